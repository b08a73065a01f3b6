"""How much boxes overlap: coefficients of pairs, and of every box of a set with every other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Unpack

import jax

from jaxloss._core import checks, pairs, polygons
from jaxloss._core.pairs import FORMATS, Span
from jaxloss._core.platforms import bind
from jaxloss._core.recompute import recomputed
from jaxloss.geometry._declare import coefficient, matrix, read
from jaxloss.options import Coordinates, Format, Numbers

__all__ = [
    "ciou",
    "diou",
    "giou",
    "iou",
    "pairwise_ciou",
    "pairwise_diou",
    "pairwise_giou",
    "pairwise_iou",
    "rotated_iou",
]

Array = jax.Array

_PAIRED = "the shape of `boxes`, as they are paired"


@coefficient
def iou(boxes: Numbers, target_boxes: Numbers, **options: Unpack[Coordinates]) -> Array:
    """Computes the intersection over union of each pair of boxes.

    `IoU = intersection / union`, in `[0, 1]`.

    Two empty boxes have no union: their IoU is 0 with zero gradient.

    Example:
      >>> from jaxloss import geometry
      >>> print(geometry.iou([0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 4.0]).round(4))
      0.2

    Reference:
      Jaccard. The Distribution of the Flora in the Alpine Zone. New Phytologist 1912.
    """
    return _paired(_iou, boxes, target_boxes, options)


@coefficient
def giou(boxes: Numbers, target_boxes: Numbers, **options: Unpack[Coordinates]) -> Array:
    """Computes the generalised intersection over union of each pair of boxes.

    `GIoU = IoU - (|C| - union) / |C|` with the enclosing box `C`, in `(-1, 1]`.

    It tells how far apart disjoint boxes are. An enclosing box without area adds nothing.

    Example:
      >>> from jaxloss import geometry
      >>> print(geometry.giou([0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 4.0]).round(4))
      0.0333

    Reference:
      Rezatofighi et al. Generalized Intersection over Union. CVPR 2019.
      https://arxiv.org/abs/1902.09630
    """
    return _paired(_giou, boxes, target_boxes, options)


@coefficient
def diou(boxes: Numbers, target_boxes: Numbers, **options: Unpack[Coordinates]) -> Array:
    """Computes the distance intersection over union of each pair of boxes.

    `DIoU = IoU - d^2 / c^2`, `d` the distance of the centres, `c` the enclosing diagonal.

    Two equal points have no diagonal: the distance adds nothing.

    Example:
      >>> from jaxloss import geometry
      >>> print(geometry.diou([0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 4.0]).round(4))
      0.12

    Reference:
      Zheng et al. Distance-IoU Loss: Faster and Better Learning for Bounding Box Regression.
      AAAI 2020. https://arxiv.org/abs/1911.08287
    """
    return _paired(_diou, boxes, target_boxes, options)


@coefficient
def ciou(boxes: Numbers, target_boxes: Numbers, **options: Unpack[Coordinates]) -> Array:
    """Computes the complete intersection over union of each pair of boxes.

    `CIoU = DIoU - a v`, `v = 4 / pi^2 (atan(w / h) - atan(w' / h'))^2`, `a = v / (1 - IoU + v)`.

    `a` is a constant for the derivative, as in the paper. A point has the angle 0.

    Example:
      >>> from jaxloss import geometry
      >>> print(geometry.ciou([0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 4.0]).round(4))
      0.1179

    Reference:
      Zheng et al. Distance-IoU Loss: Faster and Better Learning for Bounding Box Regression.
      AAAI 2020. https://arxiv.org/abs/1911.08287
    """
    return _paired(_ciou, boxes, target_boxes, options)


@checks.named
def rotated_iou(boxes: Numbers, target_boxes: Numbers) -> Array:
    """Computes the exact intersection over union of each pair of rotated boxes.

    `IoU = intersection / union` of two rectangles, in `[0, 1]`.

    The intersection is the area of the polygon itself, and so is its gradient. Two boxes without
    area have the IoU 0, or 1 if they are equal, with zero gradient. A negative side counts as 0.

    Args:
      boxes: Boxes (cx, cy, w, h, radians), shape `[..., 5]`, floating.
      target_boxes: Boxes of the same shape: pairs, never a matrix.

    Returns:
      One coefficient per pair, shape `[...]`; float32 for half-precision input.

    Raises:
      TypeError: If `boxes` is not floating.
      ValueError: If the last axis is not 5 or the shapes differ.

    Example:
      >>> from jaxloss import geometry
      >>> boxes, targets = [0.0, 0.0, 4.0, 2.0, 1.57079633], [0.0, 0.0, 4.0, 2.0, 0.0]
      >>> print(geometry.rotated_iou(boxes, targets).round(4))
      0.3333

    Reference:
      Zhou et al. IoU Loss for 2D/3D Object Detection. 3DV 2019. https://arxiv.org/abs/1908.03851
    """
    first = read("boxes", boxes, polygons.checked)
    second = read("target_boxes", target_boxes, polygons.checked)
    checks.shape("target_boxes", second, first.shape, _PAIRED)
    second = second.astype(first.dtype)
    return polygons.measure(polygons.pair(*map(pairs.columns, (first, second)))).iou


@matrix
def pairwise_iou(boxes: Numbers, target_boxes: Numbers, **options: Unpack[Coordinates]) -> Array:
    """Computes the intersection over union of every box of one set with every one of another.

    `IoU = intersection / union`, in `[0, 1]`.

    As exact as `iou` at any scale. Two empty boxes have IoU 0 with zero gradient.

    Example:
      >>> from jaxloss import geometry
      >>> boxes = [[0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 6.0, 6.0]]
      >>> print(geometry.pairwise_iou(boxes, [[1.0, 0.0, 3.0, 4.0]]).round(4))
      [[0.2] [0. ]]

    Reference:
      Jaccard. The Distribution of the Flora in the Alpine Zone. New Phytologist 1912.
    """
    return _pairwise(_iou, boxes, target_boxes, options)


@matrix
def pairwise_giou(boxes: Numbers, target_boxes: Numbers, **options: Unpack[Coordinates]) -> Array:
    """Computes the generalised IoU of every box of one set with every one of another.

    `GIoU = IoU - (|C| - union) / |C|` with the enclosing box `C`, in `(-1, 1]`.

    As exact as `giou` at any scale: a matching cost for DETR and its kin.

    Example:
      >>> from jaxloss import geometry
      >>> boxes = [[0.0, 0.0, 2.0, 2.0], [3.0, 0.0, 4.0, 4.0]]
      >>> print(geometry.pairwise_giou(boxes, [[1.0, 0.0, 3.0, 4.0]]).round(4))
      [[0.0333] [0.    ]]

    Reference:
      Rezatofighi et al. Generalized Intersection over Union. CVPR 2019.
      https://arxiv.org/abs/1902.09630
    """
    return _pairwise(_giou, boxes, target_boxes, options)


@matrix
def pairwise_diou(boxes: Numbers, target_boxes: Numbers, **options: Unpack[Coordinates]) -> Array:
    """Computes the distance IoU of every box of one set with every one of another.

    `DIoU = IoU - d^2 / c^2`, `d` the distance of the centres, `c` the enclosing diagonal.

    As exact as `diou` at any scale.

    Example:
      >>> from jaxloss import geometry
      >>> boxes = [[0.0, 0.0, 2.0, 2.0], [3.0, 0.0, 4.0, 4.0]]
      >>> print(geometry.pairwise_diou(boxes, [[1.0, 0.0, 3.0, 4.0]]).round(4))
      [[ 0.12]
       [-0.09]]

    Reference:
      Zheng et al. Distance-IoU Loss: Faster and Better Learning for Bounding Box Regression.
      AAAI 2020. https://arxiv.org/abs/1911.08287
    """
    return _pairwise(_diou, boxes, target_boxes, options)


@matrix
def pairwise_ciou(boxes: Numbers, target_boxes: Numbers, **options: Unpack[Coordinates]) -> Array:
    """Computes the complete IoU of every box of one set with every one of another.

    `CIoU = DIoU - a v`, `v = 4 / pi^2 (atan(w / h) - atan(w' / h'))^2`, `a = v / (1 - IoU + v)`.

    As exact as `ciou` at any scale; `a` is a constant for the derivative there and here.

    Example:
      >>> from jaxloss import geometry
      >>> boxes = [[0.0, 0.0, 2.0, 2.0], [3.0, 0.0, 4.0, 4.0]]
      >>> print(geometry.pairwise_ciou(boxes, [[1.0, 0.0, 3.0, 4.0]]).round(4))
      [[ 0.1179]
       [-0.0904]]

    Reference:
      Zheng et al. Distance-IoU Loss: Faster and Better Learning for Bounding Box Regression.
      AAAI 2020. https://arxiv.org/abs/1911.08287
    """
    return _pairwise(_ciou, boxes, target_boxes, options)


def _iou(x: Span, y: Span) -> Array:
    return pairs.measure(x, y).iou


def _giou(x: Span, y: Span) -> Array:
    return _iou(x, y) - pairs.vacancy(x, y)


def _diou(x: Span, y: Span) -> Array:
    return _iou(x, y) - pairs.offset(x, y)


def _ciou(x: Span, y: Span) -> Array:
    v = pairs.aspect(x, y)
    return _diou(x, y) - pairs.aspect_weight(v, pairs.measure(x, y)) * v


def _paired(
    formula: Callable[[Span, Span], Array],
    boxes: Numbers,
    target_boxes: Numbers,
    options: Mapping[str, Any],
) -> Array:
    """The coefficient of each pair."""
    checks.option("format", options["format"], FORMATS)
    first, second = read("boxes", boxes), read("target_boxes", target_boxes)
    checks.shape("target_boxes", second, first.shape, _PAIRED)
    return formula(*pairs.read(first, second.astype(first.dtype), options["format"]))


def _pairwise(
    formula: Callable[[Span, Span], Array],
    boxes: Numbers,
    target_boxes: Numbers,
    options: Mapping[str, Any],
) -> Array:
    """The coefficient of every box with every other; its derivatives are recomputed."""
    checks.option("format", options["format"], FORMATS)
    first, second = read("boxes", boxes), read("target_boxes", target_boxes)
    for name, box in (("boxes", first), ("target_boxes", second)):
        checks.minimum_rank(name, box, 2, "a set of boxes and their four numbers")
    expected = (*first.shape[:-2], second.shape[-2], 4)
    checks.shape("target_boxes", second, expected, "the leading axes of `boxes`")
    each = recomputed(bind(_of_boxes, formula=formula, format=options["format"]))
    return each(first[..., :, None, :], second.astype(first.dtype)[..., None, :, :])


def _of_boxes(
    first: Array, second: Array, *, formula: Callable[[Span, Span], Array], format: Format
) -> Array:
    return formula(*pairs.read(first, second, format))
