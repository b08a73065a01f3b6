"""Losses on the distance of boxes in units of their own, the image's or the caller's."""

from __future__ import annotations

import functools
from typing import Annotated, TypeAlias, Unpack

import jax
import jax.numpy as jnp

from jaxloss._boxes._per_pair import per_pair
from jaxloss._core import checks, numerics, pairs
from jaxloss._core.families import boxes
from jaxloss._core.pairs import Span
from jaxloss.options import Boxes, Interval, Numbers, Positive

__all__ = ["area_scaled_l2", "mpdiou", "nwd", "sqrt_size_l2"]

Array = jax.Array
Size: TypeAlias = Annotated[Numbers, Interval("(0, inf)", scalar=False)]


@boxes
def mpdiou(
    boxes: Numbers, target_boxes: Numbers, image_size: Size, **options: Unpack[Boxes]
) -> Array:
    """Computes the minimum-point-distance IoU loss of each pair of boxes.

    With the distances `d1` and `d2` of the first and of the last corners, in an image `H x W`::

        MPDIoU loss = 1 - IoU + (d1^2 + d2^2) / (H^2 + W^2)

    The size is that of the image, as in the paper; several ports divide by the enclosing box
    instead. There is no epsilon: identical boxes cost exactly 0 at any size. Two equal points have
    IoU 0 and cost 1 with zero gradient.

    Args:
      image_size: Height and width of the image in the unit of the boxes, above 0, or one number for
        a square image.

    Example:
      >>> import jaxloss
      >>> boxes = [[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]]
      >>> targets = [[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 4.0]]
      >>> print(jaxloss.mpdiou(boxes, targets, image_size=(6, 8), reduction="none").round(4))
      [0.         0.85999995]

    Reference:
      Ma, Xu. MPDIoU: A Loss for Efficient and Accurate Bounding Box Regression. 2023.
      https://arxiv.org/abs/2307.07662
    """
    return per_pair(_mpdiou, boxes, target_boxes, options, *_height_and_width(image_size))


@boxes
def nwd(
    boxes: Numbers, target_boxes: Numbers, constant: Positive, **options: Unpack[Boxes]
) -> Array:
    """Computes the normalised Gaussian Wasserstein distance loss of each pair of boxes.

    A box stands for a normal distribution with its centre, and half its sides as deviations. With
    the differences of centres and sides::

        NWD loss = 1 - exp(-sqrt(dx^2 + dy^2 + (dw^2 + dh^2) / 4) / constant)         in [0, 1]

    It falls smoothly for boxes that do not meet, and depends on the unit: `constant` is a length,
    for which the authors take the mean size of the objects, 12.8 pixels in their data. Identical
    boxes cost exactly 0, with zero gradient.

    Args:
      constant: The length that the distance is compared with, in the unit of the boxes, above 0.

    Example:
      >>> import jaxloss
      >>> boxes = [[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]]
      >>> targets = [[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 4.0]]
      >>> print(jaxloss.nwd(boxes, targets, constant=2.0, reduction="none").round(4))
      [0.     0.5794]

    Reference:
      Wang et al. A Normalized Gaussian Wasserstein Distance for Tiny Object Detection. 2021.
      https://arxiv.org/abs/2110.13389
    """
    return per_pair(_nwd, boxes, target_boxes, options, constant)


@boxes
def sqrt_size_l2(boxes: Numbers, target_boxes: Numbers, **options: Unpack[Boxes]) -> Array:
    """Computes YOLOv1's box loss: squared differences of centres and of the roots of the sides.

    ::

        L = dx^2 + dy^2 + (sqrt(w) - sqrt(w'))^2 + (sqrt(h) - sqrt(h'))^2

    The roots make a small deviation count more in a small box. YOLOv1's factor 5 is the caller's,
    and so is its unit: centres in cells, sides in images. A negative side counts as 0, where the
    root has the derivative 0.

    Example:
      >>> import jaxloss
      >>> boxes = [[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]]
      >>> targets = [[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 4.0]]
      >>> print(jaxloss.sqrt_size_l2(boxes, targets, reduction="none").round(4))
      [0.        2.3430998]

    Reference:
      Redmon et al. You Only Look Once: Unified, Real-Time Object Detection. CVPR 2016.
      https://arxiv.org/abs/1506.02640
    """
    return per_pair(_sqrt_size_l2, boxes, target_boxes, options)


@boxes
def area_scaled_l2(
    boxes: Numbers,
    target_boxes: Numbers,
    *,
    image_size: Size = (1.0, 1.0),
    **options: Unpack[Boxes],
) -> Array:
    """Computes YOLOv2's and v3's box loss: squared differences, which small targets scale up.

    With the area `w' h'` of the target in an image `H x W`::

        L = (2 - w' h' / (H W)) (dx^2 + dy^2 + dw^2 + dh^2)

    The differences are in the unit of the boxes.

    Args:
      image_size: Height and width of the image in the unit of the boxes, above 0, or one number for
        a square image.

    Example:
      >>> import jaxloss
      >>> boxes = [[0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2]]
      >>> targets = [[0.5, 0.5, 0.2, 0.2], [0.6, 0.5, 0.5, 0.8]]
      >>> print(jaxloss.area_scaled_l2(boxes, targets, format="cxcywh", reduction="none").round(4))
      [0.    0.736]

    Reference:
      Redmon, Farhadi. YOLOv3: An Incremental Improvement. 2018. https://arxiv.org/abs/1804.02767
    """
    return per_pair(_area_scaled_l2, boxes, target_boxes, options, *_height_and_width(image_size))


def _mpdiou(x: Span, y: Span, height: Array, width: Array) -> Array:
    diagonal = jnp.hypot(height, width)
    ends = (x.before, x.after, y.before, y.after)
    squares = [(end / diagonal) ** 2 for end in ends]
    return pairs.measure(x, y).loss + functools.reduce(jnp.add, squares)


def _nwd(x: Span, y: Span, constant: Array) -> Array:
    differences = (x.apart, y.apart, x.wider / 2, y.wider / 2)
    return -numerics.expm1(-numerics.length(*differences) / constant)


def _sqrt_size_l2(x: Span, y: Span) -> Array:
    roots = [_between_roots(axis.first, axis.second, axis.wider) for axis in (x, y)]
    return x.apart**2 + y.apart**2 + roots[0] ** 2 + roots[1] ** 2


@jax.custom_jvp
def _between_roots(first: Array, second: Array, wider: Array) -> Array:
    """Returns `sqrt(first) - sqrt(second)`, given `first - second`; a root has no slope at 0."""
    return numerics.divide(wider, numerics.sqrt(first) + numerics.sqrt(second))


@_between_roots.defjvp
def _(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    first, second, _ = primals
    by_first, by_second = (numerics.reciprocal(2 * numerics.sqrt(x)) for x in (first, second))
    return _between_roots(*primals), by_first * tangents[0] - by_second * tangents[1]


def _area_scaled_l2(x: Span, y: Span, height: Array, width: Array) -> Array:
    scale = 2 - (x.second / width) * (y.second / height)
    return scale * (x.apart**2 + y.apart**2 + x.wider**2 + y.wider**2)


def _height_and_width(image_size: Array) -> tuple[Array, Array]:
    if image_size.ndim == 0:
        return image_size, image_size
    checks.shape("image_size", image_size, (2,), "height and width")
    return image_size[0], image_size[1]
