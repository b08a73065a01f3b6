"""Every loss as a program: value and gradient of large arrays, made from the cases of the tests.

All predictions have the same size, 44 million float32 numbers: images of 512 x 512, as many as
there is room for (of 100 classes and more, of 210 x 210). Options are the defaults, except those
that have none, which the case's first sample gives.
"""

import functools
import inspect
import math
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
import peers

import jaxloss
from jaxloss import distance
from tests.registry import Sample, collect

SIZE = 168 * 512 * 512
CLASSES, FEW, USUAL = (2, 3, 4, 8, 14, 21, 150, 1000), (2, 4, 21), (21,)
LAYOUTS = {"last": -1, "first": 1}  # where the class axis stands
HEADS = ("cross_entropy", "focal", "binary_cross_entropy", "dice", "dice_cross_entropy", "tversky")

_IMAGES = jax.ShapeDtypeStruct((8, 512, 512), jnp.bool_)
_VOLUMES = jax.ShapeDtypeStruct((4, 96, 96, 96), jnp.bool_)
_SPACE = (-3, -2, -1)
MAPS: dict[str, tuple[Callable[..., jax.Array], Any]] = {
    "edt": (distance.edt, _IMAGES),
    "edt, sampling": (lambda mask: distance.edt(mask, sampling=(1.0, 0.7)), _IMAGES),
    "signed_distance": (distance.signed_distance, _IMAGES),
    "compute_sdf": (lambda mask: distance.compute_sdf(mask, normalize=True), _IMAGES),
    "compute_edts_for_penalized_loss": (jaxloss.compute_edts_for_penalized_loss, _IMAGES),
    "compute_edts_for_hausdorff_loss": (jaxloss.compute_edts_for_hausdorff_loss, _IMAGES),
    "edt, 3-D": (lambda mask: distance.edt(mask, axes=_SPACE), _VOLUMES),
    "signed_distance, 3-D": (lambda mask: distance.signed_distance(mask, axes=_SPACE), _VOLUMES),
}


PEERS = {"Optax": peers.of_optax(), "plain JAX": peers.plain_jax()}


class Key(NamedTuple):
    """What a row of the table is about.

    Attributes:
      device: `"h100"`, `"v5e"` or `"cpu"`.
      loss: Its name, or that of a distance map.
      form: `"ids"`, `"masked"` (with `where`), `"smoothed"` or `"dense"` (a target in the
        prediction's shape); `"half"`, the first of these of a prediction in bfloat16; `"map"`; or
        a peer, on what is usual.
      classes: How many, 0 where there are none.
      layout: Where their axis stands, `"last"` or `"first"`; empty where there are none.
    """

    device: str
    loss: str
    form: str
    classes: int
    layout: str


@functools.cache
def cases() -> dict[str, Any]:
    """The cases of the tests."""
    return collect()


@functools.cache
def samples(loss: str) -> dict[str, Sample]:
    """A loss's forms, each with the sample that it is made from; the usual one comes first."""
    found: dict[str, Sample] = {}
    for sample in cases()[loss].samples:
        found.setdefault("ids" if sample.has_ids else "dense", sample)
    parameters = inspect.signature(getattr(jaxloss, loss)).parameters
    if "ids" in found:
        found["masked"] = found["ids"]
        if "label_smoothing" in parameters:
            found["smoothed"] = found["ids"]
    if loss in HEADS:
        found["half"] = next(iter(found.values()))
    return found


def has_classes(loss: str) -> bool:
    """Whether a class axis is a part of the loss."""
    return any("axis" in s.options or s.axis is not None for s in samples(loss).values())


def plan(devices: list[str], everything: bool) -> Iterator[Key]:
    """The rows, those first that matter most; `everything` adds every loss at all class counts."""
    for device in devices:
        classes = CLASSES if device != "cpu" else USUAL
        yield from _sweep(device, HEADS, _first, classes)
        yield from (Key(device, loss, _first(loss)[0], *_usual(loss)) for loss in cases())
        yield from (Key(device, name, "map", 0, "") for name in MAPS)
        for peer, losses in PEERS.items():
            known = filter(cases().__contains__, losses)
            yield from (Key(device, name, peer, *_usual(name)) for name in known)
        yield from _sweep(device, HEADS, _others, FEW if device != "cpu" else USUAL)
        if everything and device != "cpu":
            yield from _sweep(device, filter(has_classes, cases()), _first, CLASSES)


def _sweep(
    device: str,
    losses: Iterable[str],
    forms: Callable[[str], list[str]],
    classes: Iterable[int],
) -> Iterator[Key]:
    pairs = [(loss, form) for loss in losses for form in forms(loss)]
    for count in classes:
        for layout in LAYOUTS if device != "cpu" else ["last"]:
            yield from (Key(device, *pair, count, layout) for pair in pairs)


def _first(loss: str) -> list[str]:
    return list(samples(loss))[:1]


def _others(loss: str) -> list[str]:
    return list(samples(loss))[1:]


def _usual(loss: str) -> tuple[int, str]:
    return (USUAL[0], "last") if has_classes(loss) else (0, "")


def program(key: Key) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Value and gradient of a loss, and the shapes of its arguments; of a map, the map alone."""
    if key.form == "map":
        function, mask = MAPS[key.loss]
        return function, (mask,)
    if key.form in PEERS:
        sample = samples(key.loss)[_first(key.loss)[0]]
        loss = functools.partial(PEERS[key.form][key.loss], axis=-1)
    else:
        sample = samples(key.loss)[key.form]
        loss = functools.partial(getattr(jaxloss, key.loss), **_options(key, sample))
    shape = _shape(key, sample)
    at = LAYOUTS.get(key.layout, -1) % len(shape)
    positions = shape[:at] + shape[at + 1 :]
    whole = sample.target.ndim == sample.prediction.ndim
    dtype = jnp.int32 if sample.has_ids else jnp.float32
    precision = jnp.bfloat16 if key.form == "half" else jnp.float32
    prediction = jax.ShapeDtypeStruct(shape, precision)
    arguments = [prediction, jax.ShapeDtypeStruct(shape if whole else positions, dtype)]
    if key.form == "masked":
        arguments.append(jax.ShapeDtypeStruct(positions, jnp.bool_))
        return jax.value_and_grad(lambda x, y, where: loss(x, y, where=where)), tuple(arguments)
    return jax.value_and_grad(loss), tuple(arguments)


def _options(key: Key, sample: Sample) -> dict[str, Any]:
    parameters = inspect.signature(getattr(jaxloss, key.loss)).parameters
    options = {}
    for name, value in sample.options.items():
        if parameters[name].default is inspect.Parameter.empty:
            of_classes = key.classes and isinstance(value, np.ndarray)
            shape = (key.classes,) * np.ndim(value)
            options[name] = np.resize(value, shape) if of_classes else value
    if key.layout == "first":
        options["axis"] = LAYOUTS[key.layout]
    if key.form == "smoothed":
        options["label_smoothing"] = 0.1
    return options


def _shape(key: Key, sample: Sample) -> tuple[int, ...]:
    if key.classes:
        side = 512 if key.classes < 100 else 210
        shape = [round(SIZE / key.classes / side**2), side, side]
        shape.insert(LAYOUTS[key.layout] % 4, key.classes)
        return tuple(shape)
    if sample.inner:  # boxes, vectors
        rest = sample.prediction.shape[1:]
        return (SIZE // math.prod(rest), *rest)
    return (SIZE // 512**2, 512, 512)


def floor(arguments: tuple[Any, ...], passes: int) -> int:
    """The bytes that must move: all arguments read in each pass, one gradient written.

    A map has no gradient: it is written once, in float32.
    """
    inputs = sum(a.dtype.itemsize * math.prod(a.shape) for a in arguments)
    first = arguments[0]
    written = 4 if first.dtype == bool else first.dtype.itemsize
    return passes * inputs + written * math.prod(first.shape)


def processor_seconds() -> float:
    """Seconds of all processors that this program and those that it started have taken."""
    return sum(os.times()[:4])


class Small(NamedTuple):
    """What the first sample of a loss shows, compiled for this machine.

    Attributes:
      passes: How often the arguments must be read: 2 where the slope at one position depends on the
        prediction at others, as a sum, a rank or a neighbour must be known before. Tried out by
        giving the first position the numbers of the last.
      seconds: CPU seconds of tracing and compiling.
    """

    passes: int
    seconds: float


def first(loss: str) -> tuple[Callable[..., jax.Array], jax.Array, jax.Array]:
    """Returns a loss with the options of its first sample, and that sample."""
    sample = cases()[loss].samples[0]
    function = functools.partial(getattr(jaxloss, loss), **sample.options)
    target = jnp.asarray(sample.target, jnp.int32 if sample.has_ids else jnp.float32)
    return function, jnp.asarray(sample.prediction, jnp.float32), target


@functools.cache
def small(loss: str) -> Small:
    """Compiles and runs value and gradient of a loss on its first sample."""
    sample = cases()[loss].samples[0]
    function, _, target = first(loss)
    inner = [sample.axis] if sample.axis is not None else range(-sample.inner, 0)
    own, last = [0] * sample.prediction.ndim, [-1] * sample.prediction.ndim
    for axis in inner:  # all numbers of a position
        own[axis] = last[axis] = slice(None)
    own, last = tuple(own), tuple(last)
    moved = sample.prediction.copy()
    moved[own] = moved[last]
    before, after = (jnp.asarray(x, jnp.float32) for x in (sample.prediction, moved))
    start = processor_seconds()
    run = jax.jit(jax.value_and_grad(function)).lower(before, target).compile()
    seconds = processor_seconds() - start
    slopes = [np.array(run(x, target)[1]) for x in (before, after)]
    for slope in slopes:
        slope[own] = 0
    coupled = np.abs(slopes[1] - slopes[0]).max() > 1e-6 * np.abs(slopes[0]).max()
    return Small(2 if coupled else 1, seconds)
