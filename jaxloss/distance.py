"""Exact Euclidean distance transforms of boolean masks, and the maps that losses make of them.

All functions share:

- `axes` are the spatial axes, one or more of any length; all other axes are batch axes. Batch axes
  may lie on several devices, and so may one spatial axis: the first (on a mesh of Explicit axes
  any), see docs/scale.md. The result is the same.
- `space_axis_name` is the mesh axis over which `shard_map` has split the first of `axes`, each
  device having as much of it. The distances then are those of the whole image.
- `sampling` is the positive distance between neighbouring elements: one number, or one for each of
  `axes`; `None` is 1. It may be traced; a traced one that is not positive makes the result NaN.
- The result is float32, or float64 if `sampling` is an array of that dtype. It is a constant: its
  gradient is zero.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, maps
from jaxloss._core.reduction import AxisName

__all__ = [
    "border_weights",
    "compute_edts_for_hausdorff_loss",
    "compute_edts_for_penalized_loss",
    "compute_sdf",
    "edt",
    "signed_distance",
    "squared_edt",
]

Array = jax.Array
Axes = int | Sequence[int]
Sampling = ArrayLike | Sequence[ArrayLike] | None


@checks.named
def edt(
    mask: ArrayLike,
    *,
    axes: Axes = (-2, -1),
    sampling: Sampling = None,
    empty: ArrayLike = jnp.inf,
    space_axis_name: AxisName | None = None,
) -> Array:
    """Computes the exact distance of each True element to the nearest False element.

    With `s = sampling` and `j` running over the False elements of the same image::

        edt(i) = min_j sqrt(sum_axis (s (i - j))^2)

    It is 0 on False elements. An image without a False element has no distances: it is `empty`.
    (SciPy measures that image to an element at -1; all others have SciPy's values.)

    Args:
      mask: Boolean, shape `[...]`; distances are taken inside the True regions.
      axes: The axes of the pixels: `(1, 2)` for masks `[B, H, W, C]`.
      sampling: Spacing of the elements, a scalar or one number for each axis.
      empty: The value of an image without a False element, a scalar.
      space_axis_name: The mesh axis over which the first of `axes` is split inside `shard_map`.

    Returns:
      Distances in the units of `sampling`, shape `[...]`.

    Raises:
      TypeError: If `mask` is not boolean or an axis is not an integer.
      ValueError: If `axes` repeat or are out of range, if `sampling` has another length or is not
        positive, or if `empty` is not a scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import distance
      >>> mask = jnp.array([[False, True], [True, True]])
      >>> print(distance.edt(mask).round(3))
      [[0.    1.   ]
       [1.    1.414]]
      >>> print(distance.edt(mask, sampling=(4, 3)))
      [[0. 3.]
       [4. 5.]]

    Reference:
      Felzenszwalb and Huttenlocher. Distance Transforms of Sampled Functions. Theory of Computing
      8, 2012. https://doi.org/10.4086/toc.2012.v008a019
    """
    mask, axes, sampling = _checked(mask, axes, sampling)
    return maps.edt(mask, sampling, _scalar(empty, sampling), axes=axes, split=space_axis_name)


@checks.named
def squared_edt(
    mask: ArrayLike,
    *,
    axes: Axes = (-2, -1),
    sampling: Sampling = None,
    empty: ArrayLike = jnp.inf,
    space_axis_name: AxisName | None = None,
) -> Array:
    """Computes the square of :func:`edt`, without the rounding of a square root.

    With `s = sampling` and `j` running over the False elements of the same image::

        squared_edt(i) = min_j sum_axis (s (i - j))^2

    It is 0 on False elements. Without `sampling` the values are exact up to 2^24 and correctly
    rounded beyond (to a few units in the last place if the diagonal exceeds 2^15 elements).

    Args:
      mask: Boolean, shape `[...]`; distances are taken inside the True regions.
      axes: The axes of the pixels: `(1, 2)` for masks `[B, H, W, C]`.
      sampling: Spacing of the elements, a scalar or one number for each axis.
      empty: The value of an image without a False element, a scalar; it is not squared.
      space_axis_name: The mesh axis over which the first of `axes` is split inside `shard_map`.

    Returns:
      Squared distances, shape `[...]`.

    Raises:
      TypeError: If `mask` is not boolean or an axis is not an integer.
      ValueError: If `axes` repeat or are out of range, if `sampling` has another length or is not
        positive, or if `empty` is not a scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import distance
      >>> print(distance.squared_edt(jnp.array([[False, True], [True, True]])))
      [[0. 1.]
       [1. 2.]]

    Reference:
      Felzenszwalb and Huttenlocher. Distance Transforms of Sampled Functions. Theory of Computing
      8, 2012. https://doi.org/10.4086/toc.2012.v008a019
    """
    mask, axes, sampling = _checked(mask, axes, sampling)
    return maps.squared_edt(
        mask, sampling, _scalar(empty, sampling), axes=axes, split=space_axis_name
    )


@checks.named
def signed_distance(
    mask: ArrayLike,
    *,
    axes: Axes = (-2, -1),
    sampling: Sampling = None,
    space_axis_name: AxisName | None = None,
) -> Array:
    """Computes the signed distance map of the boundary loss: negative inside, 0 on the rim.

    With `d(i)` the distance to the nearest element of the other side and `s = sampling`::

        signed_distance(i) = d(i)                 outside (mask is False)
                             -(d(i) - min(s))     inside  (mask is True)

    so the inner rim is 0 (with unequal `sampling`, where it touches the outside along the finest
    axis). An image without a boundary, all False or all True, is 0 everywhere.

    Args:
      mask: Boolean, shape `[...]`; True is the inside.
      axes: The axes of the pixels: `(1, 2)` for masks `[B, H, W, C]`.
      sampling: Spacing of the elements, a scalar or one number for each axis.
      space_axis_name: The mesh axis over which the first of `axes` is split inside `shard_map`.

    Returns:
      Signed distances in the units of `sampling`, shape `[...]`.

    Raises:
      TypeError: If `mask` is not boolean or an axis is not an integer.
      ValueError: If `axes` repeat or are out of range, or if `sampling` has another length or is
        not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import distance
      >>> print(distance.signed_distance(jnp.array([[False, False, True, True, True]])))
      [[ 2.  1.  0. -1. -2.]]

    Reference:
      Kervadec, Bouchtiba, Desrosiers, Granger, Dolz and Ben Ayed. Boundary loss for highly
      unbalanced segmentation. MIDL 2019. https://arxiv.org/abs/1812.07032
    """
    mask, axes, sampling = _checked(mask, axes, sampling)
    return maps.signed(mask, sampling, axes=axes, split=space_axis_name)


@checks.named
def compute_sdf(
    mask: ArrayLike,
    *,
    normalize: bool = False,
    axes: Axes = (-2, -1),
    sampling: Sampling = None,
    space_axis_name: AxisName | None = None,
) -> Array:
    """Computes the signed distance function that a network can regress.

    With `d_out` the distance of an outside element to the mask, `d_in` that of an inside element to
    the background, each 0 on the other side::

        sdf = d_out - d_in                            normalize=False
              d_out / max d_out - d_in / max d_in     normalize=True, in [-1, 1]

    with the maxima over the image. Unlike :func:`signed_distance` it jumps over 0 at the boundary.
    An image without a boundary, all False or all True, is 0 everywhere.

    Args:
      mask: Boolean, shape `[...]`; True is the inside.
      normalize: Whether each side is divided by its largest distance in the image.
      axes: The axes of the pixels: `(1, 2)` for masks `[B, H, W, C]`.
      sampling: Spacing of the elements, a scalar or one number for each axis.
      space_axis_name: The mesh axis over which the first of `axes` is split inside `shard_map`.

    Returns:
      Signed distances, shape `[...]`.

    Raises:
      TypeError: If `mask` is not boolean or an axis not an integer.
      ValueError: If `axes`, `sampling` or `normalize` are none of those above.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import distance
      >>> mask = jnp.array([[False, False, True, True, True, True]])
      >>> print(distance.compute_sdf(mask))
      [[ 2.  1. -1. -2. -3. -4.]]
      >>> print(distance.compute_sdf(mask, normalize=True))
      [[ 1.    0.5  -0.25 -0.5  -0.75 -1.  ]]

    Reference:
      Xue, Tang, Qiao, Gong, Yin, Qian, Huang, Fan and Huang. Shape-Aware Organ Segmentation by
      Predicting Signed Distance Maps. AAAI 2020. https://arxiv.org/abs/1912.03849
    """
    mask, axes, sampling = _checked(mask, axes, sampling)
    checks.option("normalize", normalize, (False, True))
    return maps.both_sides(
        mask, sampling, axes=axes, split=space_axis_name, normalize=bool(normalize)
    )


@functools.partial(checks.named, name="compute_edts_for_penalized_loss")  # in `jaxloss`, too
def compute_edts_for_penalized_loss(
    mask: ArrayLike,
    *,
    axes: Axes = (-2, -1),
    sampling: Sampling = None,
    space_axis_name: AxisName | None = None,
) -> Array:
    """Computes the weights of the distance-penalised losses: largest at the boundary.

    With `d(i)` the distance to the nearest element of the other side, and the extrema over the side
    of the mask, True or False, on which `i` lies::

        phi(i) = (max d - d(i)) / (max d - min d)

    in [0, 1]: 1 next to the boundary, 0 farthest from it. A side with the same distance everywhere
    is 1. The mask and its complement have the same weights. An image without a boundary, all False
    or all True, is 0 everywhere.

    Args:
      mask: Boolean, shape `[...]`; True is the inside.
      axes: The axes of the pixels: `(1, 2)` for masks `[B, H, W, C]`.
      sampling: Spacing of the elements, a scalar or one number for each axis.
      space_axis_name: The mesh axis over which the first of `axes` is split inside `shard_map`.

    Returns:
      Weights in [0, 1], shape `[...]`.

    Raises:
      TypeError: If `mask` is not boolean or an axis not an integer.
      ValueError: If `axes` or `sampling` do not fit the mask or each other.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import distance
      >>> mask = jnp.array([[False, False, False, True, True]])
      >>> print(distance.compute_edts_for_penalized_loss(mask))
      [[0.  0.5 1.  1.  0. ]]

    Reference:
      Caliva, Iriondo, Martinez, Majumdar and Pedoia. Distance Map Loss Penalty Term for Semantic
      Segmentation. MIDL 2019. https://arxiv.org/abs/1908.03679
    """
    mask, axes, sampling = _checked(mask, axes, sampling)
    return maps.penalty(
        mask.astype(jnp.int32), sampling, axes=axes, split=space_axis_name, values=2
    )


@functools.partial(checks.named, name="compute_edts_for_hausdorff_loss")  # in `jaxloss`, too
def compute_edts_for_hausdorff_loss(
    mask: ArrayLike,
    *,
    axes: Axes = (-2, -1),
    sampling: Sampling = None,
    space_axis_name: AxisName | None = None,
) -> Array:
    """Computes the distance of each element to the boundary, for the Hausdorff losses.

    With `d_out` the distance of an outside element to the mask, `d_in` that of an inside element to
    the background, each 0 on the other side::

        d = d_in + d_out

    An image without a True element is 0 everywhere. In one without a False element `d` is the
    distance to the nearest position outside the image, so that a full prediction of an empty target
    costs.

    Args:
      mask: Boolean, shape `[...]`; True is the inside.
      axes: The axes of the pixels: `(1, 2)` for masks `[B, H, W, C]`.
      sampling: Spacing of the elements, a scalar or one number for each axis.
      space_axis_name: The mesh axis over which the first of `axes` is split inside `shard_map`.

    Returns:
      Distances in the units of `sampling`, shape `[...]`.

    Raises:
      TypeError: If `mask` is not boolean or an axis not an integer.
      ValueError: If `axes` or `sampling` do not fit the mask or each other.

    Example:
      A mask with a boundary, and a full one:

      >>> import jax.numpy as jnp
      >>> from jaxloss import distance
      >>> mask = jnp.array([[False, False, True, True, True], [True] * 5])
      >>> print(distance.compute_edts_for_hausdorff_loss(mask, axes=-1))
      [[2. 1. 1. 2. 3.]
       [1. 2. 3. 2. 1.]]

    Reference:
      Karimi and Salcudean. Reducing the Hausdorff Distance in Medical Image Segmentation with
      Convolutional Neural Networks. IEEE TMI 2020, equation 8. https://arxiv.org/abs/1904.10030
    """
    mask, axes, sampling = _checked(mask, axes, sampling)
    return maps.to_boundary(mask, sampling, axes=axes, split=space_axis_name)


@checks.named
def border_weights(
    labels: ArrayLike,
    *,
    w0: ArrayLike = 10.0,
    sigma: ArrayLike = 5.0,
    axes: Axes = (-2, -1),
    sampling: Sampling = None,
    space_axis_name: AxisName | None = None,
) -> Array:
    """Computes the U-Net's weights of the background between two instances that nearly touch.

    With `d1` and `d2` the distances of a background element to the nearest and to the second
    nearest instance::

        w = w0 exp(-(d1 + d2)^2 / (2 sigma^2))

    It is 0 inside the instances, and everywhere in an image with fewer than two of them. The time
    grows with the largest number of instances in an image; ids need not be consecutive.

    Args:
      labels: Integer instance ids, shape `[...]`: 0 is the background, positive ids are instances,
        negative ones are neither.
      w0: The weight where two instances touch, at least 0. The U-Net uses 10.
      sigma: The width of the border in the units of `sampling`, positive. The U-Net uses 5.
      axes: The axes of the pixels: `(1, 2)` for masks `[B, H, W, C]`.
      sampling: Spacing of the elements, a scalar or one number for each axis.
      space_axis_name: The mesh axis over which the first of `axes` is split inside `shard_map`.

    Returns:
      Weights, shape `[...]`; differentiable in `w0` and `sigma`.

    Raises:
      TypeError: If `labels` are not integers or an axis is not one.
      ValueError: If `axes`, `sampling`, `w0` or `sigma` are none of those above.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import distance
      >>> print(distance.border_weights(jnp.array([[1, 0, 0, 2, 2, 0, 0]]), w0=100).round())
      [[ 0. 84. 84.  0.  0. 49. 28.]]

    Reference:
      Ronneberger, Fischer and Brox. U-Net: Convolutional Networks for Biomedical Image
      Segmentation. MICCAI 2015, equation 2. https://arxiv.org/abs/1505.04597
    """
    labels = jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        checks.fail(TypeError, "labels", f"of dtype {labels.dtype}", "integer instance ids")
    axes = checks.axes(axes, labels.ndim)
    sampling = _spacing(sampling, len(axes))
    w0 = checks.number("w0", w0, maps.dtype_of(sampling), "[0, inf)")
    sigma = checks.number("sigma", sigma, maps.dtype_of(sampling), "(0, inf)")
    return maps.between_instances(
        labels.astype(jnp.int32), w0, sigma, sampling, axes=axes, split=space_axis_name
    )


def _checked(
    mask: ArrayLike, axes: Axes, sampling: Sampling
) -> tuple[Array, tuple[int, ...], Array | None]:
    """Returns the mask, its spatial axes, and the spacing: a scalar or one number for each axis."""
    mask = checks.boolean("mask", mask)
    axes = checks.axes(axes, mask.ndim)
    return mask, axes, _spacing(sampling, len(axes))


def _spacing(sampling: Sampling, axes: int) -> Array | None:
    if sampling is None:
        return None
    listed = isinstance(sampling, (list, tuple))
    values: Sequence[Any] = sampling if listed else (sampling,)  # type: ignore[assignment]
    dtypes = [jax.dtypes.canonicalize_dtype(v.dtype) for v in values if hasattr(v, "dtype")]
    dtype = jnp.float64 if jnp.float64 in dtypes else jnp.float32
    numbers = [checks.number("sampling", v, dtype, "(0, inf)") for v in values]
    spacing = jnp.asarray(numbers, dtype) if listed else numbers[0]
    if spacing.shape not in ((), (axes,)):
        expected = f"a scalar or one number for each of the {axes} axes"
        checks.fail(ValueError, "sampling", f"of shape {spacing.shape}", expected)
    return spacing


def _scalar(empty: ArrayLike, sampling: Array | None) -> Array:
    empty = checks.real("empty", empty, maps.dtype_of(sampling))
    checks.shape("empty", empty, (), "one value for the images without a False element")
    return empty
