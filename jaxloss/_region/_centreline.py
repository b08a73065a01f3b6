"""Centreline Dice: overlap of thin structures with each other's skeletons."""

from __future__ import annotations

import functools
from typing import Unpack

import jax
import jax.numpy as jnp
from jax import lax

from jaxloss._core import checks, numerics, scores
from jaxloss._core.confusion import Confusion
from jaxloss._core.families import segmentation
from jaxloss._core.images import Pixels, read
from jaxloss._core.scores import complement, score
from jaxloss.options import NonNegative, Numbers, Segmentation

__all__ = ["cldice", "skeleton_recall", "soft_skeleton"]

Array = jax.Array


@segmentation
def cldice(
    logits: Numbers,
    labels: Numbers,
    *,
    iterations: int = 3,
    smooth: NonNegative = 1.0,
    **options: Unpack[Segmentation],
) -> Array:
    """Computes the centreline Dice loss of each image and class, for vessels, roads and fibres.

    With `S` the soft skeleton (see :func:`soft_skeleton`), sums over an image's valid pixels::

        Tp     = (sum S(p) y + smooth) / (sum S(p) + smooth)      topology precision
        Ts     = (sum S(y) p + smooth) / (sum S(y) + smooth)      topology sensitivity
        clDice = 1 - 2 Tp Ts / (Tp + Ts)

    A broken vessel loses little area but much of its centreline, so connectivity counts. It is
    exactly 0 for a perfect hard prediction, and an empty target costs an empty prediction nothing.
    With `smooth=0` an image where either skeleton is empty costs 1. Train it together with a Dice
    loss, as the paper does: alone it leaves the width of the structures free.

    Sums run over each image and class, where the authors' code pools the batch and all classes and
    MONAI's pools the classes of an image. Masked pixels lie outside the image for the skeletons.

    Args:
      iterations: How often the skeleton peels the structures, at least 0: half the width of the
        widest one. Each costs time and memory.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> vessel = jnp.zeros((1, 5, 6)).at[:, 2, :].set(1.0)
      >>> broken = vessel.at[:, 2, 3].set(0.0)
      >>> print(jaxloss.cldice(broken, vessel, axis=None, activation=None).round(4))
      0.0769

    Reference:
      Shit, Paetzold, Sekuboyina, Ezhov, Unger, Zhylka, Pluim, Bauer and Menze. clDice - a Novel
      Topology-Preserving Loss Function for Tubular Structure Segmentation. CVPR 2021.
      https://arxiv.org/abs/2003.07311
    """
    iterations = checks.integer("iterations", iterations, 0)
    pixels = read(logits, labels, options)
    *_, p, q, y = pixels.form(*pixels.arrays, axis=pixels.axis)
    mask = pixels.arrays[2]
    inside = None if mask is None else jnp.broadcast_to(mask, p.shape)
    of_p, of_y = (_skeleton(v, inside, iterations, pixels.spatial) for v in (p, y))
    products = (of_p * y, of_p * (1 - y), of_y * p, of_y * q)
    loss = _cldice(*map(pixels.total, products), smooth)
    return scores.reduce(loss, pixels, pixels.total(y), options)


def _cldice(hit: Array, spurious: Array, found: Array, missed: Array, smooth: Array) -> Array:
    """The loss of how much of each skeleton lies inside and outside of the other mask."""
    inside, across = hit + smooth, found + smooth
    imprecision, tp = complement(spurious, inside), numerics.share(inside, spurious)
    insensitivity, ts = complement(missed, across), numerics.share(across, missed)
    wrong, total = imprecision * ts + insensitivity * tp, tp + ts
    return jnp.where(total == 0, 1, wrong * numerics.reciprocal(total))


@segmentation
def skeleton_recall(
    logits: Numbers,
    labels: Numbers,
    skeleton: Numbers,
    *,
    smooth: NonNegative = 1.0,
    **options: Unpack[Segmentation],
) -> Array:
    """Computes the skeleton recall loss of each image and class: how much of a skeleton is missed.

    With the skeleton `s` of the target, sums over an image's valid pixels::

        skeleton recall = 1 - (sum p s + smooth) / (sum s + smooth)

    The skeleton is made before training, by any method, and widened to a tube of a few pixels: this
    costs nothing in the training step, where :func:`jaxloss.cldice` makes soft skeletons of both
    masks. Predicting everything costs nothing, so it is added to a Dice and a cross-entropy loss.

    It is computed as wrong over right plus wrong, so it is exactly 0 where the whole skeleton is
    found and never negative. With `smooth=0` a class without a skeleton costs 1.

    Args:
      skeleton: Of all pixels, boolean or numbers in `[0, 1]`, in the shape of the ids: a pixel then
        is on the skeleton of its label's class. Or of each class, in the shape of `logits`.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> vessel = jnp.zeros((1, 5, 6)).at[:, 2, :].set(1.0)
      >>> broken = vessel.at[:, 2, 3].set(0.0)
      >>> loss = jaxloss.skeleton_recall(broken, vessel, vessel, axis=None, activation=None)
      >>> print(loss.round(4))
      0.1429

    Reference:
      Kirchhoff et al. Skeleton Recall Loss for Connectivity Conserving and Resource Efficient
      Segmentation of Thin Tubular Structures. ECCV 2024. https://arxiv.org/abs/2404.03010
    """
    pixels = read(logits, labels, options)
    s = _of_classes(jnp.asarray(skeleton), pixels)
    return score(_skeleton_recall, pixels, options, smooth, more=_on_skeleton, maps=(s,))


def _of_classes(skeleton: Array, pixels: Pixels) -> Array:
    """Reads a skeleton in the shape of the logits; 0 where no pixel counts."""
    if skeleton.dtype == bool:
        skeleton = skeleton.astype(pixels.dtype)
    s, shape, axis = checks.real("skeleton", skeleton, pixels.dtype), pixels.shape, pixels.axis
    if s.shape != shape and axis is not None:
        ids = checks.without(shape, axis)
        checks.shape("skeleton", s, ids, f"the shape of the ids, or {shape}, that of `logits`")
        s = jnp.expand_dims(s, axis) * pixels.targets()
    checks.shape("skeleton", s, shape, "the shape of `logits`")
    return s if pixels.weight is None else jnp.where(pixels.weight == 0, 0, s)


def _skeleton_recall(counts: Confusion, smooth: Array) -> Array:
    found, missed = counts.more
    return complement(missed, found + smooth)


def _on_skeleton(p: Array, q: Array, y: Array, s: Array) -> tuple[Array, Array]:
    s = jnp.where(jnp.isnan(y), y, s)  # of a bad label
    return p * s, q * s


@checks.named
def soft_skeleton(
    probabilities: Numbers,
    *,
    iterations: int = 3,
    axes: checks.Axes = (-2, -1),
    where: Numbers | None = None,
) -> Array:
    """Computes the soft skeleton of a mask: what remains of a structure when it is peeled.

    With `erode` the minimum over an element and its neighbours along each axis, `dilate` the
    maximum over the cube of all neighbours, and `open v = dilate(erode v)`::

        S <- v - open v                          at least 0
        iterations times:
            v <- erode v,  D <- v - open v       at least 0
            S <- S + D - S D

    On a mask of 0 and 1 it is Lantuejoul's morphological skeleton, whose lines may be broken; on
    probabilities it is differentiable almost everywhere. Where several neighbours are extreme they
    share the derivative. What lies outside the image, or is masked, is no neighbour of anything.

    Args:
      probabilities: Floating in [0, 1], or a boolean mask, shape `[...]`.
      iterations: How often the structures are peeled, at least 0: half the width of the widest one.
      axes: The spatial axes; all other axes are batch axes.
      where: Boolean mask, the rank of `probabilities` with each dimension equal or 1. What is False
        is outside: its skeleton is 0.

    Returns:
      The skeleton, in [0, 1], shape `[...]`. float32 for a mask and half-precision input.

    Raises:
      TypeError: If `probabilities` are neither floating nor boolean, `where` is not boolean, or
        `iterations` or an axis is not an integer.
      ValueError: If `axes` repeat or are out of range, `iterations` is negative, or the shape of
        `where` does not fit.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> mask = jnp.zeros((5, 6), bool).at[1:4, :].set(True)
      >>> print(jaxloss.soft_skeleton(mask))
      [[0. 0. 0. 0. 0. 0.]
       [0. 0. 0. 0. 0. 0.]
       [1. 1. 1. 1. 1. 1.]
       [0. 0. 0. 0. 0. 0.]
       [0. 0. 0. 0. 0. 0.]]

    Reference:
      Shit, Paetzold, Sekuboyina, Ezhov, Unger, Zhylka, Pluim, Bauer and Menze. clDice - a Novel
      Topology-Preserving Loss Function for Tubular Structure Segmentation. CVPR 2021, algorithm 1.
      https://arxiv.org/abs/2003.07311
    """
    array = jnp.asarray(probabilities)
    if array.dtype == bool:
        array = array.astype(jnp.float32)
    v = checks.floating("probabilities", array)
    v = v.astype(checks.compute_dtype(v))
    at = checks.axes(axes, v.ndim)
    iterations = checks.integer("iterations", iterations, 0)
    if where is None:
        return _skeleton(v, None, iterations, at)
    mask = checks.broadcastable("where", checks.boolean("where", where), v.shape)
    return _skeleton(v, jnp.broadcast_to(mask, v.shape), iterations, at)


@functools.partial(jax.jit, static_argnames=("iterations", "axes"))
def _skeleton(v: Array, inside: Array | None, iterations: int, axes: tuple[int, ...]) -> Array:
    """The soft skeleton; its derivative keeps two arrays of each iteration and finds the others."""
    v = numerics.masked(v, inside)

    def peel(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        return _peeled(*state, inside, axes), None

    (_, skeleton), _ = lax.scan(peel, (v, jnp.zeros_like(v)), length=iterations + 1)
    return numerics.masked(skeleton, inside)


@functools.partial(jax.checkpoint, prevent_cse=False, static_argnums=(3,))
def _peeled(
    v: Array, skeleton: Array, inside: Array | None, axes: tuple[int, ...]
) -> tuple[Array, Array]:
    """Peels once, and adds to the skeleton what an opening would lose."""
    eroded = -_highest(-v, inside, (axes,))
    opened = _highest(eroded, inside, tuple((axis,) for axis in axes))
    ridge = jnp.maximum(v - opened, 0)
    return eroded, skeleton + jnp.maximum(ridge - skeleton * ridge, 0)


def _highest(v: Array, inside: Array | None, windows: tuple[tuple[int, ...], ...]) -> Array:
    """The maximum over neighbours along some axes, and over that along others; 0 where masked."""
    if inside is not None:
        v = jnp.where(inside, v, -jnp.inf)
    for axes in windows:
        v = _maximum(v, axes)
    return numerics.masked(v, inside)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _maximum(v: Array, axes: tuple[int, ...]) -> Array:
    return functools.reduce(jnp.maximum, _neighbourhood(v, axes, -jnp.inf))


@_maximum.defjvp
def _(axes: tuple[int, ...], primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """The highest share the derivative."""
    (v,), (t,) = primals, tangents
    top = _maximum(v, axes)

    return top, _shared_by_ties(v, top, t, axes)


@functools.partial(jax.checkpoint, prevent_cse=False, static_argnums=(3,))
def _shared_by_ties(v: Array, top: Array, t: Array, axes: tuple[int, ...]) -> Array:
    ties = [x == top for x in _neighbourhood(v, axes, -jnp.inf)]
    count = sum(tie.astype(v.dtype) for tie in ties)
    moves = zip(ties, _neighbourhood(t, axes, 0.0), strict=True)
    return jnp.stack([jnp.where(tie, move, 0) for tie, move in moves]).sum(0) / count


def _neighbourhood(v: Array, axes: tuple[int, ...], outside: float) -> list[Array]:
    """Each element, and its neighbours before and after it along each axis."""
    return [v, *(_shifted(v, axis, step, outside) for axis in axes for step in (1, -1))]


def _shifted(v: Array, axis: int, step: int, outside: float) -> Array:
    padding = [(step, -step, 0) if a == axis else (0, 0, 0) for a in range(v.ndim)]
    return lax.pad(v, jnp.asarray(outside, v.dtype), padding)
