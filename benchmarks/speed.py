"""Time of value and gradient on this machine's CPU, ours and the peers' in turn.

    ./run bench speed                            # everything, in about a quarter of an hour
    ./run bench speed --losses dice --shapes 4x256x256x21 --peers MONAI PyTorch

Each shape and loss is one contest. All programs run once, which compiles them, and their values
and gradients are held against ours; then they run in turn, forwards and backwards by turns, until
some seconds have passed, and the median of each counts. Those in JAX have the classes last and
second, as we have; those in PyTorch have them second, their own layout, and stand beside both.

The table is results/speed.csv, or results/speed_newest.csv with another JAX than constraints.txt
has (`--python python3.13`). Where that interpreter has no PyTorch, `--torch-python` names one that
has, such as .venv-bench/bin/python, whose process then runs in turn with this one.

The row with the fastest peer comes first: milliseconds of both, and the peer's over ours. `off` is
how far the peer's value and gradient are from ours, over our value and our largest slope. Rows that
are measured anew replace those of the table; `--missing` measures the others only. A quiet machine
is meant. Left out, and named: peers that are not installed, layouts that they do not take, and what
is more than 1e-3 off, as it computes something else.

All programs find the memory that earlier calls gave back (`memory.KEPT`). Else some calls would get
new pages and others not, 10 of 25 ms for 50 MB, by what ran before them; pages.py shows what that
costs. A run that gets new pages even so, where what was given back does not fit, is made again.
"""

import argparse
import contextlib
import datetime
import functools
import os
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["OMP_WAIT_POLICY"] = "passive"  # else PyTorch's threads spin in the next one's time
os.environ["KMP_BLOCKTIME"] = "0"

import elsewhere  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import memory  # noqa: E402
import numpy as np  # noqa: E402
import peers  # noqa: E402
import results  # noqa: E402

import jaxloss  # noqa: E402

SECONDS, FEWEST, MOST = 2.0, 3, 25  # of a contest; rounds
TRIES, NEW = 3, 1000  # pages, 4 MB
SAME = 1e-3
KEY = ("shape", "loss", "classes", "peer")
PACKAGES = ("jax", "jaxlib", "optax", "keras", "torch", "monai", "segmentation-models-pytorch")
SHAPES = (
    (4, 256, 256, 21),
    (4, 256, 256, 4),
    (8, 256, 256, 2),
    (1, 64, 96, 96, 4),
    (1, 96, 96, 96, 14),
    (256, 1000),
    (1024, 32000),
)

MINUTES = {("smp", "sigmoid_focal", 32000)}  # a pass over the batch for each class: left out

Run = Callable[[], tuple[Any, Any]]


class Program(NamedTuple):
    """One side of a contest.

    Attributes:
      peer: Whose it is.
      classes: Where its classes lie.
      run: Gives value and slopes.
      time: Runs it and gives the milliseconds.
    """

    peer: str
    classes: str
    run: Run
    time: Callable[[], float]


class Contest(NamedTuple):
    """What is computed: on which target, our loss, and whether it is one of images alone."""

    target: str
    loss: Callable[..., jax.Array]
    options: dict[str, Any]
    images: bool = False


_smooth = {"smooth": peers.SMOOTH}
CONTESTS = {
    "cross_entropy": Contest("ids", jaxloss.cross_entropy, {}),
    "cross_entropy, ignore_index": Contest(
        "ignoring", jaxloss.cross_entropy, {"ignore_index": peers.IGNORED}
    ),
    "cross_entropy, soft labels": Contest("soft", jaxloss.cross_entropy, {}),
    "cross_entropy, label_smoothing": Contest(
        "ids", jaxloss.cross_entropy, {"label_smoothing": peers.SMOOTHING}
    ),
    "binary_cross_entropy": Contest("masks", jaxloss.binary_cross_entropy, {}),
    "distillation": Contest("logits", jaxloss.distillation, {"temperature": peers.TEMPERATURE}),
    "focal": Contest("ids", jaxloss.focal, {}),
    "sigmoid_focal": Contest("masks", jaxloss.sigmoid_focal, {}),
    "dice": Contest("ids", jaxloss.dice, _smooth, True),
    "dice, masks": Contest("masks", jaxloss.dice, _smooth, True),
    "dice, per_image=False": Contest("ids", jaxloss.dice, _smooth | {"per_image": False}, True),
    "dice_cross_entropy": Contest("ids", jaxloss.dice_cross_entropy, _smooth, True),
    "tversky": Contest("ids", jaxloss.tversky, _smooth | peers.TVERSKY, True),
}


def data(shape: tuple[int, ...], target: str) -> tuple[np.ndarray, np.ndarray]:
    """Random logits and a target, the classes last."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=shape).astype(np.float32)
    if target == "soft":
        shares = rng.random(shape, dtype=np.float32)
        return logits, shares / shares.sum(-1, keepdims=True)
    if target == "logits":
        return logits, rng.normal(size=shape).astype(np.float32)
    if target == "masks":
        return logits, (rng.random(shape) < 0.3).astype(np.float32)
    ids = rng.integers(0, shape[-1], shape[:-1]).astype(np.int32)
    if target == "ignoring":
        ids[rng.random(ids.shape) < 0.1] = peers.IGNORED
    return logits, ids


def in_jax(loss: Callable[..., Any], pair: tuple[np.ndarray, ...], axis: int) -> Run:
    """Value and gradient in one compiled program."""
    step = jax.jit(jax.value_and_grad(functools.partial(loss, axis=axis)))
    arrays = tuple(jnp.asarray(x) for x in pair)
    return lambda: jax.block_until_ready(step(*arrays))


def in_torch(loss: Callable[..., Any], pair: tuple[np.ndarray, ...]) -> Run:
    """The same in PyTorch, which wants ids in 64 bits."""
    import torch

    x, y = (torch.from_numpy(array) for array in pair)
    x, y = x.clone().requires_grad_(), y if y.is_floating_point() else y.long()

    def run() -> tuple[Any, Any]:
        x.grad = None
        value = loss(x, y)
        value.backward()
        return value.detach(), x.grad

    return run


def timed(run: Run) -> float:
    """Milliseconds of one run, the first of some that needs no new pages."""
    for _ in range(TRIES):
        pages, start = memory.new_pages(), time.perf_counter()
        run()
        took = 1e3 * (time.perf_counter() - start)
        if memory.new_pages() - pages < NEW:
            break
    return took


def local(peer: str, classes: str, run: Run) -> Program:
    """A program of this process."""
    return Program(peer, classes, run, functools.partial(timed, run))


def programs(shape: tuple[int, ...], name: str, others: dict[str, peers.Losses]) -> list[Program]:
    """Those of the peers that have this loss, and ours if `others` has it."""
    last = data(shape, CONTESTS[name].target)
    second = tuple(
        np.ascontiguousarray(np.moveaxis(x, -1, 1)) if x.shape == shape else x for x in last
    )
    layouts = {"last": (last, -1), "second": (second, 1)}
    if len(shape) == 2:
        del layouts["second"]
    found = []
    for peer, losses in others.items():
        if name not in losses or (peer, name, shape[-1]) in MINUTES:
            continue
        if peer in peers.IN_TORCH:
            found.append(local(peer, "own", in_torch(losses[name], second)))
        else:
            runs = {key: in_jax(losses[name], *layout) for key, layout in layouts.items()}
            found += [local(peer, classes, run) for classes, run in runs.items()]
    return found


def in_other_process(ask: Callable[..., Any], shape: tuple[int, ...], name: str) -> list[Program]:
    """The programs that another interpreter's process has of a contest."""
    return [
        Program(peer, "own", *(functools.partial(ask, what, place) for what in ("run", "time")))
        for place, peer in enumerate(ask("programs", shape, name))
    ]


def serve(place: int, chosen: list[str]) -> None:
    """Is that process: has the programs of one contest at a time, of some peers in PyTorch."""
    others = tables(chosen)
    current: list[Program] = []

    def chosen_programs(shape: tuple[int, ...], name: str) -> list[str]:
        current[:] = programs(shape, name, others)
        return [program.peer for program in current]

    def run(place: int) -> tuple[np.ndarray, ...]:
        return tuple(np.asarray(x) for x in current[place].run())

    answers = {"programs": chosen_programs, "run": run, "time": lambda i: current[i].time()}
    elsewhere.serve(place, answers)


def held(programs: list[Program]) -> dict[Program, float]:
    """How far each program's value and gradient are from ours in its layout; compiles them.

    What cannot be compared is named and left out.
    """
    ours: dict[str, tuple[Any, Any]] = {}
    found = {}
    for program in programs:
        try:
            value, slope = map(np.asarray, program.run())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the peer's
            print(f"  left out: {program.peer}, classes {program.classes}: {error!r:.99}")
            continue
        if program.peer == "jaxloss":
            ours[program.classes] = ours["own"] = value, slope
        expected, gradient = ours[program.classes]
        off = np.abs(slope - gradient).max() / np.abs(gradient).max()
        off = float(max(off, abs(value - expected) / abs(expected)))
        if off < SAME:
            found[program] = off
        else:
            print(f"  left out: {program.peer}, classes {program.classes}: off by {off:.1g}")
    return found


def medians(programs: list[Program]) -> list[float]:
    """Milliseconds of each, from rounds in which all of them run, every other one backwards."""
    times: list[list[float]] = [[] for _ in programs]
    begin = time.perf_counter()
    for turn in range(MOST):
        if turn >= FEWEST and time.perf_counter() - begin > SECONDS:
            break
        for i in range(len(programs))[:: -1 if turn % 2 else 1]:
            times[i].append(programs[i].time())
    return [statistics.median(each) for each in times]


def measured(
    shape: tuple[int, ...],
    name: str,
    others: dict[str, peers.Losses],
    ask: Callable[..., Any] | None,
) -> list[results.Row]:
    """A row for each peer beside ours, of each layout."""
    contest = CONTESTS[name]
    ours_alone = {"jaxloss": {name: functools.partial(contest.loss, **contest.options)}}
    both = programs(shape, name, ours_alone | others)
    offs = held(both if ask is None else both + in_other_process(ask, shape, name))
    times = medians(list(offs))
    ours = {side.classes: t for side, t in zip(offs, times, strict=True) if side.peer == "jaxloss"}
    made = {
        "versions": results.versions(*PACKAGES),
        "commit": results.commit(),
        "date": datetime.date.today().isoformat(),
    }
    rows = []
    for (side, off), t in zip(offs.items(), times, strict=True):
        for classes, mine in ours.items():
            if side.peer != "jaxloss" and side.classes in (classes, "own"):
                numbers = {"ours": mine, "theirs": t, "ratio": t / mine, "off": off}
                cells = {name: _digits(number) for name, number in numbers.items()}
                key = dict(zip(KEY, (text(shape), name, classes, side.peer), strict=True))
                rows.append(key | cells | made)
    return rows


def _digits(number: float) -> str:
    return f"{number:.3g}" if number < 1000 else f"{number:.0f}"


def text(shape: tuple[int, ...]) -> str:
    """A shape as one word."""
    return "x".join(map(str, shape))


def tables(chosen: list[str]) -> dict[str, peers.Losses]:
    """The losses of the peers that are here; the others are named."""
    found = {}
    for peer in chosen:
        try:
            found[peer] = (peers.IN_JAX | peers.IN_TORCH)[peer]()
        except Exception as error:  # noqa: BLE001 - a broken package is as good as none
            said = (str(error).splitlines() or [""])[0]
            print(f"Left out: {peer} ({type(error).__name__}: {said})", flush=True)
    return found


def main() -> None:
    """Measures and stores contest by contest."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    everyone = list(peers.IN_JAX | peers.IN_TORCH)
    parser.add_argument("--shapes", nargs="+", choices=list(map(text, SHAPES)), metavar="AxBxC")
    parser.add_argument("--losses", nargs="+", choices=CONTESTS, metavar="NAME")
    parser.add_argument("--peers", nargs="+", choices=everyone, default=everyone, metavar="NAME")
    parser.add_argument("--missing", action="store_true", help="only what is not in the table")
    parser.add_argument("--torch-python", metavar="PATH", help="runs the peers in PyTorch")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve, options.peers)
    pinned = f"jax=={jax.__version__}\n" in (results.ROOT / "constraints.txt").read_text()
    name = "speed" if pinned else "speed_newest"
    stored = results.load(name) if options.missing else []
    known = {(row["shape"], row["loss"]) for row in stored}
    contests = [
        (shape, loss)
        for shape in SHAPES
        for loss in options.losses or CONTESTS
        if text(shape) in (options.shapes or [text(shape)])
        and (len(shape) > 2 or not CONTESTS[loss].images)
        and (text(shape), loss) not in known
    ]
    here = [peer for peer in options.peers if peer in peers.IN_JAX or not options.torch_python]
    others = tables(here)
    with contextlib.ExitStack() as stack:
        ask = None
        if there := [peer for peer in options.peers if peer not in here]:
            ask = stack.enter_context(elsewhere.asked(options.torch_python, there))
        for done, contest in enumerate(contests):
            start = time.perf_counter()
            rows = measured(*contest, others, ask)
            results.store(name, KEY, rows, lambda row: float(row["ratio"]))
            seconds = time.perf_counter() - start
            print(f"{done + 1}/{len(contests)} {text(contest[0])} {contest[1]}, {seconds:.0f} s")
            for row in rows:
                times = f"{row['ours']:>6} ms, {row['peer']} {row['theirs']} ms ({row['ratio']})"
                print(f"  {row['classes']:6} {times}", flush=True)
            jax.clear_caches()


if __name__ == "__main__":
    memory.keep()
    main()
