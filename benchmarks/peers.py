"""Value and gradient on this machine's CPU, side by side with Optax, PyTorch and MONAI.

Prints milliseconds per call and each peer's time over ours, from interleaved runs of one process;
the best of several rounds, as other load only ever adds. Data: float32 (4, 256, 256, 21), which
PyTorch and MONAI get in their own layout (4, 21, 256, 256). Peers that are not installed are left
out; `tests/goldens/make.py` says how to install them.

    python benchmarks/peers.py [name ...]
"""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["OMP_WAIT_POLICY"] = "passive"  # else PyTorch's threads spin in the next one's time
os.environ["KMP_BLOCKTIME"] = "0"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

import jaxloss  # noqa: E402

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    torch = None
try:
    from monai.losses import DiceCELoss, DiceLoss, FocalLoss, TverskyLoss
except ImportError:
    DiceLoss = None

SHAPE = (4, 256, 256, 21)
ROUNDS = 15


def data() -> dict[str, np.ndarray]:
    """Random logits, ids and dense labels."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, SHAPE[-1], SHAPE[:-1])
    return {
        "logits": rng.normal(size=SHAPE).astype(np.float32),
        "ids": ids.astype(np.int32),
        "dense": rng.random(SHAPE, dtype=np.float32),
        "soft": rng.dirichlet(np.ones(SHAPE[-1]), SHAPE[:-1]).astype(np.float32),
        "binary": (rng.random(SHAPE) < 0.3).astype(np.float32),
    }


def of_jax(loss: Callable[..., jax.Array], target: str, inputs: Any) -> Callable[[], None]:
    """A call that computes value and gradient, compiled."""
    step = jax.jit(jax.value_and_grad(loss))
    pair = jnp.asarray(inputs["logits"]), jnp.asarray(inputs[target])
    return lambda: jax.block_until_ready(step(*pair))


def of_torch(loss: Callable[..., Any], target: str, inputs: Any) -> Callable[[], None]:
    """The same in PyTorch, class axis second."""
    first = lambda x: torch.tensor(np.ascontiguousarray(np.moveaxis(x, -1, 1)))
    x = first(inputs["logits"]).requires_grad_()
    ids = target == "ids"
    y = torch.tensor(inputs[target]).long() if ids else first(inputs[target])

    def run() -> None:
        x.grad = None
        loss(x, y).backward()

    return run


def programs() -> dict[str, tuple[str, Callable, dict[str, tuple[Any, Callable]]]]:
    """For each row: the target, our loss, and the peers with their way to run."""
    losses = optax.losses
    rows = {
        "cross_entropy, ids": (
            "ids",
            jaxloss.cross_entropy,
            {
                "Optax": (
                    of_jax,
                    lambda x, y: losses.softmax_cross_entropy_with_integer_labels(x, y).mean(),
                )
            },
        ),
        "focal, ids": ("ids", jaxloss.focal, {}),
        "binary_cross_entropy": (
            "dense",
            jaxloss.binary_cross_entropy,
            {"Optax": (of_jax, lambda x, y: losses.sigmoid_binary_cross_entropy(x, y).mean())},
        ),
        "focal, same shape": (
            "binary",
            jaxloss.sigmoid_focal,
            {"Optax": (of_jax, lambda x, y: losses.sigmoid_focal_loss(x, y, gamma=2.0).mean())},
        ),
        "cross_entropy, ids, one ignored": (
            "ids",
            lambda x, y: jaxloss.cross_entropy(x, y, ignore_index=0),
            {},
        ),
        "cross_entropy, soft labels": (
            "soft",
            jaxloss.cross_entropy,
            {"Optax": (of_jax, lambda x, y: losses.softmax_cross_entropy(x, y).mean())},
        ),
        "dice, ids": ("ids", jaxloss.dice, {}),
        "dice_cross_entropy, ids": ("ids", jaxloss.dice_cross_entropy, {}),
        "tversky, ids": ("ids", jaxloss.tversky, {}),
    }
    if torch is not None:
        rows["cross_entropy, ids"][2]["torch"] = (of_torch, F.cross_entropy)
        ignoring = lambda x, y: F.cross_entropy(x, y, ignore_index=0)
        rows["cross_entropy, ids, one ignored"][2]["torch"] = (of_torch, ignoring)
        rows["cross_entropy, soft labels"][2]["torch"] = (of_torch, F.cross_entropy)
        rows["binary_cross_entropy"][2]["torch"] = (of_torch, F.binary_cross_entropy_with_logits)
    if DiceLoss is not None:
        one_hot = lambda y: y[:, None]
        softmax = {"to_onehot_y": True, "softmax": True}
        for name, peer in {
            "dice, ids": DiceLoss(**softmax),
            "tversky, ids": TverskyLoss(**softmax),
            "focal, ids": FocalLoss(to_onehot_y=True, use_softmax=True),
            "dice_cross_entropy, ids": DiceCELoss(**softmax),
        }.items():
            rows[name][2]["MONAI"] = (
                of_torch,
                lambda x, y, peer=peer: peer(x, one_hot(y)),
            )
        rows["focal, same shape"][2]["MONAI"] = (of_torch, FocalLoss())
    return rows


def best(runs: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Milliseconds of each run, the best of interleaved rounds."""
    times = dict.fromkeys(runs, float("inf"))
    for turn in range(ROUNDS + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if turn:
                times[name] = min(times[name], 1e3 * (time.perf_counter() - start))
    return times


def main(chosen: list[str]) -> None:
    """Prints the table."""
    inputs = data()
    print("| value and gradient | jaxloss, ms | peers, ms (over ours) |\n|---|---|---|")
    for name, (target, loss, peers) in programs().items():
        if chosen and not any(word in name for word in chosen):
            continue
        runs = {"jaxloss": of_jax(loss, target, inputs)}
        runs |= {peer: make(run, target, inputs) for peer, (make, run) in peers.items()}
        times = best(runs)
        ours = times.pop("jaxloss")
        others = ", ".join(f"{k} {v:.1f} ({v / ours:.2f})" for k, v in times.items())
        print(f"| {name} | {ours:.1f} | {others} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
