"""Checks of values beside the losses they guard: milliseconds on sound data, and on bad data.

Run `python benchmarks/validate.py`. Logits are (4, 256, 256, 21), float32, labels ids. Each round
times everybody once, so that a busy machine is busy for all; the table shows the fastest of the
rounds. "both" is one program that returns value, gradient and report.
"""

import functools
import time
from collections.abc import Callable

import jax
import numpy as np
from edt import machine
from jax import numpy as jnp

import jaxloss

ROUNDS = 30
SHAPE = (4, 256, 256, 21)
LOSSES = ("cross_entropy", "focal", "dice", "dice_cross_entropy")


def milliseconds(run: Callable[..., object], *arguments: jax.Array) -> float:
    """The time of one call."""
    start = time.perf_counter()
    jax.block_until_ready(run(*arguments))
    return (time.perf_counter() - start) * 1e3


def fastest(programs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The fastest of the rounds, of each program."""
    for run in programs.values():
        jax.block_until_ready(run())
    rounds = [[milliseconds(run) for run in programs.values()] for _ in range(ROUNDS)]
    return dict(zip(programs, np.min(rounds, axis=0), strict=True))


def data() -> dict[str, tuple[jax.Array, jax.Array]]:
    """Sound logits and ids, and the same with one bad value."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=SHAPE).astype(np.float32)
    labels = generator.integers(0, SHAPE[-1], SHAPE[:-1], np.int32)
    broken, wrong = logits.copy(), labels.copy()
    broken[-1, -1, -1, -1], wrong[-1, -1, -1] = np.nan, 255
    pairs = {"sound": (logits, labels), "one NaN": (broken, labels), "one id": (logits, wrong)}
    return jax.device_put(pairs)


def of_losses() -> None:
    """Prints what the checks cost beside each loss."""
    pairs = data()
    print(f"{'':20}{'value, gradient':>16}{'both':>8}{'checks':>8}  share", end="")
    print("".join(f"{name:>9}" for name in pairs if name != "sound"))
    for name in LOSSES:
        loss = jax.value_and_grad(getattr(jaxloss, name))
        report = functools.partial(jaxloss.validate, name)
        run, check = jax.jit(loss), jax.jit(report)
        both = jax.jit(lambda *pair, loss=loss, report=report: (loss(*pair), report(*pair)))
        programs = {kind: functools.partial(check, *pair) for kind, pair in pairs.items()}
        programs["loss"] = functools.partial(run, *pairs["sound"])
        programs["both"] = functools.partial(both, *pairs["sound"])
        times = fastest(programs)
        print(f"{name:20}{times['loss']:16.2f}{times['both']:8.2f}{times['sound']:8.2f}", end="")
        print(f"{times['sound'] / times['loss']:7.1%}", end="")
        print("".join(f"{times[kind]:9.2f}" for kind in pairs if kind != "sound"))


def of_ids() -> None:
    """Prints what one bad id among 10 million costs."""
    ids = np.random.default_rng(0).integers(0, 2, 10_000_000, np.int32)
    wrong = ids.copy()
    wrong[9_876_543] = 2
    logits = jnp.zeros((ids.size, 2))
    pairs = {"sound": ids, "one id of 21": wrong}
    check = jax.jit(functools.partial(jaxloss.validate, "cross_entropy"))
    programs = {
        name: functools.partial(check, logits, jnp.asarray(ids)) for name, ids in pairs.items()
    }
    times = fastest(programs)
    print("10 million ids:", ", ".join(f"{name} {time:.1f} ms" for name, time in times.items()))
    print(check(logits, wrong))


if __name__ == "__main__":
    print(machine())
    of_losses()
    of_ids()
