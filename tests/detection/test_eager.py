"""Heads called outside of `jit`: one program each, for value and gradient."""

import jax
import pytest

from tests.detection import test_anchor_heads, test_set_heads

CALLS = {  # head, predictions, targets
    name: (head, module.predictions(name), targets)
    for module, targets_of in (
        (test_anchor_heads, lambda name: test_anchor_heads.targets()),
        (test_set_heads, test_set_heads.targets),
    )
    for name, head in module.HEADS.items()
    for targets in [targets_of(name)]
}


@pytest.mark.parametrize("name", CALLS)
def test_a_second_eager_call_compiles_nothing(name, caplog):
    head, x, (box, label, valid) = CALLS[name]
    gain = "gamma" if name in ("retinanet", "fcos") else "class_gain"
    loss = lambda x, number: head(x, box, label, valid=valid, **{gain: number})
    run = jax.value_and_grad(loss, has_aux=True)
    run(x, 0.5)
    with jax.log_compiles():
        run(x, 0.25)
    assert "ompiling" not in caplog.text
