"""The recipes of docs/training.md: trainers take the same step, micro-batches are the batch."""

import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxloss
from jaxloss.optax_compat import per_example

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "training.md").read_text()
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(8, 4, 4, 3)).astype(np.float32)
LABELS = (IMAGES.sum(-1) > 0).astype(np.int32)
IGNORED = np.where(RNG.random(LABELS.shape) < 0.3, 255, LABELS)
PARAMS = {"kernel": RNG.normal(size=(3, 2)).astype(np.float32), "bias": np.zeros(2, np.float32)}


@pytest.fixture(scope="module", autouse=True)
def _mixed_types():
    """Trainers promote ranks and types inside; the suite forbids it to jaxloss only."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def _recipe(name):
    """What the code block of the page that defines a name defines."""
    heading, _, name = name.rpartition("/")
    page = PAGE[PAGE.index(f"## {heading}\n") :] if heading else PAGE
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        if re.search(rf"^def {name}\(", block, re.MULTILINE):
            found = {}
            exec(compile(block, "docs/training.md", "exec"), found)
            return found[name]
    raise LookupError(name)


def _apply(params, images):
    return images @ params["kernel"] + params["bias"]


@functools.cache
def _plain():
    """The losses before two steps, and the parameters after them."""
    step = _recipe("Plain JAX/make_train_step")(_apply, optax.sgd(0.5))
    params, state, first = step(PARAMS, optax.sgd(0.5).init(PARAMS), IMAGES, IGNORED)
    params, _, second = step(params, state, IMAGES, IGNORED)
    return (first, second), params


def _assert_same(values, params):
    expected, reference = _plain()
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    assert values[1] < values[0]
    for key, value in reference.items():
        np.testing.assert_allclose(np.reshape(params[key], value.shape), value, rtol=1e-4)


def test_plain_jax():
    (first, second), _ = _plain()
    assert second < first


def test_flax_nnx():
    nnx = pytest.importorskip("flax.nnx")
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    model.kernel[...], model.bias[...] = (jnp.asarray(PARAMS[key]) for key in ("kernel", "bias"))
    transform = optax.chain(optax.sgd(0.5), optax.contrib.reduce_on_plateau())
    optimizer = nnx.Optimizer(model, transform, wrt=nnx.Param)
    step = _recipe("Flax NNX/train_step")
    values = [step(model, optimizer, IMAGES, IGNORED) for _ in range(2)]
    _assert_same(values, {"kernel": model.kernel[...], "bias": model.bias[...]})


def test_flax_linen():
    linen = pytest.importorskip("flax.linen")
    from flax.training.train_state import TrainState

    state = TrainState.create(apply_fn=linen.Dense(2).apply, params=PARAMS, tx=optax.sgd(0.5))
    step = _recipe("Flax Linen/train_step")
    state, first = step(state, IMAGES, IGNORED)
    state, second = step(state, IMAGES, IGNORED)
    _assert_same((first, second), state.params)


def test_equinox():
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.Conv2d(3, 2, kernel_size=1, key=jax.random.key(0))
    model = eqx.tree_at(
        lambda m: (m.weight, m.bias),
        model,
        (PARAMS["kernel"].T[..., None, None], PARAMS["bias"][:, None, None]),
    )
    optimizer = optax.sgd(0.5)
    state, values = optimizer.init(eqx.filter(model, eqx.is_array)), []
    step, channels_first = _recipe("Equinox/train_step"), IMAGES.transpose(0, 3, 1, 2)
    for _ in range(2):
        model, state, value = step(model, optimizer, state, channels_first, IGNORED)
        values.append(value)
    _assert_same(values, {"kernel": model.weight[..., 0, 0].T, "bias": model.bias})


def test_lbfgs():
    def objective(params):
        return jaxloss.focal(_apply(params, IMAGES), LABELS)

    optimizer = optax.lbfgs()
    step = _recipe("make_lbfgs_step")(objective, optimizer)
    params, state, values = PARAMS, optimizer.init(PARAMS), []
    for _ in range(3):
        params, state, value = step(params, state)
        values.append(value)
    assert values[2] < values[1] < values[0]


def test_losses_of_single_images():
    """Inside `vmap` a batch of one; without it Dice is one of rows."""
    logits = _apply(PARAMS, IMAGES)
    each = jnp.stack([jaxloss.dice(logits[n : n + 1], LABELS[n : n + 1]) for n in range(8)])
    np.testing.assert_allclose(_recipe("of_each_image")(logits, LABELS), each, rtol=1e-6)
    np.testing.assert_allclose(per_example(jaxloss.dice)(logits, LABELS), each, rtol=1e-6)
    assert not np.allclose(jax.vmap(jaxloss.dice)(logits, LABELS), each, rtol=1e-2)
    pixels = jax.vmap(jaxloss.cross_entropy)(logits, LABELS)
    np.testing.assert_allclose(pixels.mean(), jaxloss.cross_entropy(logits, LABELS), rtol=1e-6)


# What several losses share


def test_deep_supervision():
    rng = np.random.default_rng(1)
    outputs = [rng.normal(size=(2, n, n, 3)).astype(np.float32) for n in (8, 4, 2)]
    labels = rng.integers(0, 3, (2, 8, 8))
    found = _recipe("nnunet_loss")(outputs, labels)
    terms = [
        jaxloss.dice_cross_entropy(x, y, include_background=False, smooth=1e-5)
        for x, y in zip(outputs[:2], (labels, labels[:, 1::2, 1::2]), strict=True)
    ]
    np.testing.assert_allclose(found, 2 / 3 * terms[0] + 1 / 3 * terms[1], rtol=1e-6)
    first = [x.transpose(0, 3, 1, 2) for x in outputs]
    again = _recipe("nnunet_loss")(first, labels, axis=1)
    np.testing.assert_allclose(again, found, rtol=1e-6)


def test_an_annealed_temperature_compiles_once():
    teacher = np.random.default_rng(1).normal(size=(*LABELS.shape, 2)).astype(np.float32)
    logits, run = _apply(PARAMS, IMAGES), jax.jit(_recipe("distilled"))
    for step, temperature in ((0, 4.0), (500, 2.5), (2000, 1.0)):
        found = run(logits, teacher, IGNORED, jnp.asarray(step))
        p, q = (jax.nn.log_softmax(x / temperature) for x in (logits, teacher))
        apart = (temperature**2 * (jnp.exp(q) * (q - p)).sum(-1))[IGNORED != 255].mean()
        hard = jaxloss.cross_entropy(logits, LABELS, where=IGNORED != 255)
        np.testing.assert_allclose(found, 0.5 * hard + 0.5 * apart, rtol=1e-5)
    assert run._cache_size() == 1


def test_uncertainties_of_two_tasks():
    def apply(network, images):
        logits = _apply(network, images)
        return logits, 3 + logits[..., 0]

    params, depths = _recipe("init")(PARAMS), np.zeros(LABELS.shape, np.float32)
    loss = jax.jit(jax.value_and_grad(_recipe("two_tasks"), has_aux=True), static_argnums=1)
    (total, losses), gradient = loss(params, apply, IMAGES, LABELS, depths)
    np.testing.assert_allclose(total, sum(losses.values()) / 2, rtol=1e-6)
    for task, slope in gradient["log_variances"].items():
        np.testing.assert_allclose(slope, (1 - losses[task]) / 2, rtol=1e-5)
    assert max(float(abs(x).max()) for x in gradient["network"].values()) > 0
    best = {task: jnp.log(value) for task, value in losses.items()}
    (_, _), gradient = loss(params | {"log_variances": best}, apply, IMAGES, LABELS, depths)
    np.testing.assert_allclose(list(gradient["log_variances"].values()), 0, atol=1e-6)
    sinks = [jaxloss.uncertainty_weighted([-0.1], [s]) for s in (0.0, -4.0, -8.0)]
    assert sinks[2] < sinks[1] < sinks[0]


@pytest.mark.parametrize("labels", [LABELS, IGNORED], ids=["all", "ignored"])
def test_distance_maps_of_the_data_pipeline(labels):
    """In both layouts the loss is that with its own map; along other axes it is not."""
    logits, options = _apply(PARAMS, IMAGES), {"ignore_index": 255}
    expected = jaxloss.boundary(logits, labels, **options)
    last, first = (_recipe(name)(labels, 2) for name in ("channels_last", "channels_first"))
    assert last.shape == logits.shape
    np.testing.assert_array_equal(first, last.transpose(0, 3, 1, 2))
    given = jaxloss.boundary(logits, labels, distance_map=last, **options)
    np.testing.assert_allclose(given, expected, rtol=1e-5)
    x = logits.transpose(0, 3, 1, 2)
    given = jaxloss.boundary(x, labels, distance_map=first, axis=1, **options)
    np.testing.assert_allclose(given, expected, rtol=1e-5)
    wrong = jaxloss.distance.signed_distance(jax.nn.one_hot(labels, 2, dtype=bool))
    assert not np.allclose(wrong, last)
    if labels is LABELS:
        both = _recipe("boundary")(logits, labels, last, 0.25)
        region = jaxloss.dice(logits, labels)
        np.testing.assert_allclose(both, 0.25 * region + 0.75 * expected, rtol=1e-5)


# Accumulation: four micro-batches are the full batch

WEIGHTS = RNG.random(LABELS.shape).astype(np.float32)
CLASS_WEIGHTS = np.array([0.3, 2.0], np.float32)
UNEVEN = np.where(np.arange(8)[:, None, None] < 2, 255, IGNORED)  # nothing valid in the first


def _micro(x):
    return x.reshape(4, 2, *x.shape[1:])


def _assert_equal(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)


def _whole(loss):
    """Value and gradient of the full batch."""
    return jax.jit(jax.value_and_grad(lambda params: loss(_apply(params, IMAGES))))(PARAMS)


def _weighted(logits, reduction="mean", labels=UNEVEN, weights=WEIGHTS):
    return jaxloss.focal(
        logits,
        labels,
        weights=weights,
        class_weights=CLASS_WEIGHTS,
        ignore_index=255,
        reduction=reduction,
    )


def test_sums_and_weights_of_micro_batches():
    accumulated = jax.jit(functools.partial(_recipe("accumulated"), _apply))
    batches = map(_micro, (IMAGES, UNEVEN, WEIGHTS))
    found = accumulated(PARAMS, *batches, jnp.asarray(CLASS_WEIGHTS))
    _assert_equal(found, _whole(_weighted))
    nothing = np.full_like(UNEVEN, 255)
    batches = map(_micro, (IMAGES, nothing, WEIGHTS))
    found = accumulated(PARAMS, *batches, jnp.asarray(CLASS_WEIGHTS))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(found))


def test_multi_steps_of_sums_over_the_count_of_all():
    """The mean of the micro-batches' means is another number."""
    valid = UNEVEN != 255
    count = (WEIGHTS * CLASS_WEIGHTS[np.where(valid, UNEVEN, 0)])[valid].sum()
    optimizer = optax.MultiSteps(optax.sgd(1.0), every_k_schedule=4)

    @functools.partial(jax.jit, static_argnames="reduction")
    def run(reduction):
        def step(carry, batch):
            images, labels, weights = batch
            params, state = carry

            def objective(params):
                value = _weighted(_apply(params, images), reduction, labels, weights)
                return 4 * value / count if reduction == "sum" else value

            updates, state = optimizer.update(jax.grad(objective)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        batches = tuple(map(_micro, (IMAGES, UNEVEN, WEIGHTS)))
        return jax.lax.scan(step, (PARAMS, optimizer.init(PARAMS)), batches)[0][0]

    expected = jax.tree.map(jnp.subtract, PARAMS, _whole(_weighted)[1])
    _assert_equal(run("sum"), expected)
    assert not np.allclose(run("mean")["kernel"], expected["kernel"], rtol=1e-2)


POOLED = {
    "region": functools.partial(jaxloss.dice, per_image=False),
    "compound": functools.partial(jaxloss.dice_cross_entropy, per_image=False),
    "sorted": functools.partial(jaxloss.lovasz_softmax, per_image=False),
}


@pytest.mark.parametrize("kind", POOLED)
def test_the_loss_of_all_logits_of_micro_batches(kind):
    loss = POOLED[kind]
    objective = functools.partial(_recipe("objective"), loss, _apply)
    run = jax.jit(jax.value_and_grad(lambda p: objective(p, _micro(IMAGES), _micro(LABELS))))
    _assert_equal(run(PARAMS), _whole(lambda logits: loss(logits, LABELS)))


def test_a_named_axis_of_micro_batches():
    recipe = _recipe("objective_over_axis")
    run = jax.value_and_grad(lambda p: recipe(_apply(p, _micro(IMAGES)), _micro(LABELS)))
    expected = _whole(lambda x: jaxloss.dice_cross_entropy(x, LABELS, per_image=False))
    _assert_equal(jax.jit(run)(PARAMS), expected)

    def masked(logits, labels, weights):
        loss = functools.partial(jaxloss.cross_entropy, ignore_index=255, axis_name="micro")
        return loss(logits, labels, weights=weights)

    def over_axis(params):
        logits = _apply(params, _micro(IMAGES))
        return jax.vmap(masked, axis_name="micro")(logits, _micro(UNEVEN), _micro(WEIGHTS)).mean()

    expected = _whole(lambda x: jaxloss.cross_entropy(x, UNEVEN, ignore_index=255, weights=WEIGHTS))
    _assert_equal(jax.jit(jax.value_and_grad(over_axis))(PARAMS), expected)


def test_the_hardest_examples():
    logits = _apply(PARAMS, IMAGES)
    found = _recipe("hardest")(logits, LABELS, 3)
    each = [jaxloss.dice_cross_entropy(logits[n : n + 1], LABELS[n : n + 1]) for n in range(8)]
    np.testing.assert_array_equal(found, np.argsort(each)[-3:])
