"""Centreline Dice: overlap of thin structures with each other's skeletons."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxloss._core import checks, confusion, numerics
from jaxloss._core.reduction import AxisName

__all__ = ["cldice", "soft_skeleton"]

Array = jax.Array


def cldice(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    iterations: int = 3,
    smooth: ArrayLike = 1.0,
    activation: str | None = "auto",
    axis: int | None = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    per_image: bool = True,
    include_background: bool = True,
    absent: str = "score",
    reduction: str = "mean",
    axis_name: AxisName | None = None,
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
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
      iterations: How often the skeleton peels the structures, at least 0: half the width of the
        widest one. Each costs time and memory.
      smooth: Added to numerator and denominator, at least 0.
      activation: `"auto"` (softmax for ids, sigmoid for labels of the logits' shape), `"softmax"`,
        `"sigmoid"`, or None where `logits` already are probabilities. One-hot labels that are
        meant to compete need `"softmax"`.
      axis: The class axis; any axis works (1 for NCHW). None: binary masks without a class axis,
        labels of the logits' shape. The first remaining axis is the image, the others its pixels.
      where: Boolean mask of the pixels, the rank of the ids (sigmoid: or of the logits) with each
        dimension equal or 1. What is False reaches neither value nor gradient, not even as NaN.
      weights: Factors of the pixels in every sum, shaped like `where`.
      ignore_index: The integer label of pixels to leave out.
      class_weights: The weights of the mean over classes, shape `[C]`; they are normalised.
      per_image: Whether each image is scored by itself; False pools the batch.
      include_background: Whether class 0 takes part in the mean; it always does in the softmax.
      absent: `"score"` scores a class that an image's target does not hold like any other;
        `"skip"` leaves it out of the mean.
      reduction: `"mean"` over the classes of an image that take part, then over images (0 if
        nothing is valid), `"sum"` or `"none"`.
      axis_name: Mesh axis over which the mean (the sums, if pooled) is taken globally inside
        `shard_map` or `pmap`.

    Returns:
      A scalar; with `reduction="none"` shape `[B, C]` (less the background), `[C]` if pooled, `[B]`
      for `axis=None`. float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating, `where` not boolean or `iterations` not an integer.
      ValueError: If shapes do not match, there is no pixel axis, an axis or option does not exist,
        a number is out of its range, the background is excluded from a single class, or
        `ignore_index` comes with float labels.

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
    name = "cldice"

    def read(weights: ArrayLike | None) -> confusion.Pixels:
        return confusion.read(
            name,
            logits,
            labels,
            activation=activation,
            axis=axis,
            where=where,
            weights=weights,
            ignore_index=ignore_index,
            class_weights=class_weights,
            per_image=per_image,
            axis_name=axis_name,
        )

    pixels = read(weights)
    # Pixels of weight 0 belong to the image, masked ones do not.
    mask = pixels.weight if weights is None else read(None).weight
    inside = None if mask is None else jnp.broadcast_to(mask > 0, pixels.p.shape)
    iterations = _checked_iterations(name, iterations)
    smooth = checks.number(name, "smooth", smooth, pixels.p.dtype, "[0, inf)")
    p, y = pixels.p, pixels.y
    skeleton, truth = (_skeleton(v, inside, iterations, pixels.spatial) for v in (p, y))

    def outside(skeleton: Array, other: Array) -> Array:
        wrong, right = pixels.total(skeleton * (1 - other)), pixels.total(skeleton * other)
        return confusion.complement(wrong, right + smooth)

    spurious, missed = outside(skeleton, y), outside(truth, p)
    precision, sensitivity = 1 - spurious, 1 - missed
    total = precision + sensitivity
    wrong = spurious * sensitivity + missed * precision
    loss = jnp.where(total == 0, 1, numerics.divide(wrong, total))
    return confusion.reduce(
        name,
        loss,
        pixels,
        pixels.total(y),
        reduction,
        include_background=include_background,
        absent=absent,
    )


def soft_skeleton(
    probabilities: ArrayLike,
    *,
    iterations: int = 3,
    axes: checks.Axes = (-2, -1),
    where: ArrayLike | None = None,
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
    name = "soft_skeleton"
    array = jnp.asarray(probabilities)
    if array.dtype == bool:
        array = array.astype(jnp.float32)
    v = checks.floating(name, "probabilities", array)
    v = v.astype(checks.compute_dtype(v))
    at = checks.axes(name, axes, v.ndim)
    iterations = _checked_iterations(name, iterations)
    if where is None:
        return _skeleton(v, None, iterations, at)
    mask = checks.broadcastable(name, "where", checks.boolean(name, "where", where), v.shape)
    return _skeleton(v, jnp.broadcast_to(mask, v.shape), iterations, at)


def _checked_iterations(function: str, iterations: object) -> int:
    if isinstance(iterations, bool) or not isinstance(iterations, (int, np.integer)):
        checks.fail(TypeError, function, "iterations", repr(iterations), "an integer")
    if iterations < 0:
        checks.fail(ValueError, function, "iterations", iterations, "an integer of at least 0")
    return int(iterations)


@functools.partial(jax.jit, static_argnames=("iterations", "axes"))
def _skeleton(v: Array, inside: Array | None, iterations: int, axes: tuple[int, ...]) -> Array:
    """The soft skeleton; its derivative keeps two arrays of each iteration and finds the others."""
    if inside is not None:
        v = jnp.where(inside, v, 0)

    def peel(v: Array) -> tuple[Array, Array]:
        eroded = -_highest(-v, inside, (axes,))
        opened = _highest(eroded, inside, tuple((axis,) for axis in axes))
        return eroded, jnp.maximum(v - opened, 0)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def step(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        v, skeleton = state
        eroded, ridge = peel(v)
        return (eroded, skeleton + jnp.maximum(ridge - skeleton * ridge, 0)), None

    (_, skeleton), _ = lax.scan(step, (v, jnp.zeros_like(v)), length=iterations + 1)
    return skeleton if inside is None else jnp.where(inside, skeleton, 0)


def _highest(v: Array, inside: Array | None, windows: tuple[tuple[int, ...], ...]) -> Array:
    """The maximum over neighbours along some axes, and over that along others; 0 where masked."""
    if inside is not None:
        v = jnp.where(inside, v, -jnp.inf)
    for axes in windows:
        v = _maximum(v, axes)
    return v if inside is None else jnp.where(inside, v, 0)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _maximum(v: Array, axes: tuple[int, ...]) -> Array:
    return functools.reduce(jnp.maximum, _neighbourhood(v, axes, -jnp.inf))


@_maximum.defjvp
def _(axes: tuple[int, ...], primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """The highest share the derivative."""
    (v,), (t,) = primals, tangents
    top = _maximum(v, axes)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def linear(v: Array, top: Array, t: Array) -> Array:
        ties = [x == top for x in _neighbourhood(v, axes, -jnp.inf)]
        count = sum(tie.astype(v.dtype) for tie in ties)
        moves = zip(ties, _neighbourhood(t, axes, 0.0), strict=True)
        return jnp.stack([jnp.where(tie, move, 0) for tie, move in moves]).sum(0) / count

    return top, linear(v, top, t)


def _neighbourhood(v: Array, axes: tuple[int, ...], outside: float) -> list[Array]:
    """Each element, and its neighbours before and after it along each axis."""
    fill = jnp.asarray(outside, v.dtype)

    def shifted(axis: int, step: int) -> Array:
        padding = [(step, -step, 0) if a == axis else (0, 0, 0) for a in range(v.ndim)]
        return lax.pad(v, fill, padding)

    return [v, *(shifted(axis, step) for axis in axes for step in (1, -1))]
