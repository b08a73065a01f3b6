"""Boxes: formats, areas and overlap coefficients, exact for boxes of any size.

A box is `[..., 4]`: `"xyxy"` corners `(x0, y0, x1, y1)`, `"cxcywh"` centre and size, or `"xywh"`
first corner and size. A box with `x1 < x0` or `y1 < y0` is empty: it counts as the point or
segment at its centre. A rotated box is `"cxcywhr"`, `[..., 5]` with the angle in radians, or its
`"corners"`, `[..., 4, 2]`. Coefficients are those of paired boxes, higher is better; the losses
made of them are `jaxloss.giou` and its kin. All are computed relative to the boxes' own enclosing
box and without an epsilon, so boxes of 1e-18 and 1e+18 units are as exact as others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, Unpack

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, pairs, polygons
from jaxloss._core.declare import Family, family
from jaxloss._core.pairs import FORMATS, Span
from jaxloss._core.platforms import bind
from jaxloss._core.recompute import recomputed
from jaxloss.options import Coordinates, Format, Numbers

__all__ = [
    "area",
    "ciou",
    "convert",
    "diou",
    "giou",
    "iou",
    "masks_to_boxes",
    "nms",
    "pairwise_ciou",
    "pairwise_diou",
    "pairwise_giou",
    "pairwise_iou",
    "rotated_iou",
]

Array = jax.Array
AnyFormat: TypeAlias = Literal["xyxy", "cxcywh", "xywh", "cxcywhr", "corners"]

_RAISES = {
    "TypeError": "If `boxes` is not floating.",
    "ValueError": "If a last axis is not 4, shapes do not match or the format does not exist.",
}
_coefficient = family(
    Family(
        Coordinates,
        {
            "boxes": "Boxes, shape `[..., 4]`, floating.",
            "target_boxes": "Boxes of the same shape: pairs, never a matrix.",
        },
        "One number per box or pair, shape `[...]`; float32 for half-precision input.",
        _RAISES,
    )
)
_matrix = family(
    Family(
        Coordinates,
        {
            "boxes": "Boxes, shape `[..., N, 4]`, floating.",
            "target_boxes": "Boxes, shape `[..., M, 4]`, with the same leading axes.",
        },
        "The matrix of coefficients, shape `[..., N, M]`; float32 for half-precision input.",
        _RAISES,
    )
)


@checks.named
def convert(boxes: Numbers, source: AnyFormat, target: AnyFormat) -> Array:
    """Converts boxes from one format to another, or rotated ones between theirs.

    The corners of a rotated box begin at `(-w / 2, -h / 2)`, go to `(w / 2, -h / 2)` and on around
    it, each turned by the angle. Back, the angle is that of the first edge, in `[-pi, pi]`, or, if
    that has no length, the one at right angles to the second; a point has the angle 0. Four
    corners that are no rectangle give the box of the means of opposite edges.

    Args:
      boxes: Boxes, shape `[..., 4]`; rotated ones `[..., 5]` or, as corners, `[..., 4, 2]`;
        floating.
      source: Their format: `"xyxy"`, `"cxcywh"` or `"xywh"`; rotated `"cxcywhr"` or `"corners"`.
      target: The format wanted.

    Returns:
      The same boxes in the dtype of `boxes`.

    Raises:
      TypeError: If `boxes` is not floating.
      ValueError: If the last axes are not those of the format, a format does not exist, or only
        one of both is of rotated boxes.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import geometry
      >>> print(geometry.convert(jnp.array([1.0, 2.0, 5.0, 4.0]), "xyxy", "cxcywh"))
      [3. 3. 4. 2.]

    Reference:
      Lin et al. Microsoft COCO: Common Objects in Context. ECCV 2014 (xywh).
      https://arxiv.org/abs/1405.0312
    """
    checks.option("source", source, (*FORMATS, *polygons.FORMATS))
    checks.option("target", target, polygons.FORMATS if source in polygons.FORMATS else FORMATS)
    convert = polygons.convert if source in polygons.FORMATS else pairs.convert
    return convert("boxes", boxes, source, target)


@_coefficient
def area(boxes: Numbers, **options: Unpack[Coordinates]) -> Array:
    """Computes the area of each box; `width * height`, 0 for an empty one.

    Example:
      >>> from jaxloss import geometry
      >>> print(geometry.area([1.0, 2.0, 5.0, 4.0]))
      8.0

    Reference:
      Euclid. Elements, book I, proposition 35.
    """
    checks.option("format", options["format"], FORMATS)
    box = _read("boxes", boxes)
    x, y = pairs.read(box, box, options["format"])
    return x.first * y.first


@_coefficient
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


@_coefficient
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


@_coefficient
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


@_coefficient
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
    first = _read("boxes", boxes, polygons.checked)
    second = _read("target_boxes", target_boxes, polygons.checked)
    checks.shape("target_boxes", second, first.shape, _PAIRED)
    second = second.astype(first.dtype)
    return polygons.measure(polygons.pair(*map(pairs.columns, (first, second)))).iou


@_matrix
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


@_matrix
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


@_matrix
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


@_matrix
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


@checks.named
def masks_to_boxes(masks: Numbers) -> Array:
    """Computes the smallest box around the pixels of each mask.

    A pixel is the square from its index to the next, so that a mask of one pixel has a box of area
    1, as in detectron2 and mmdetection; the last corner of torchvision's boxes is one pixel less.
    An empty mask has the box `(0, 0, 0, 0)`.

    Args:
      masks: Boolean, shape `[..., H, W]`.

    Returns:
      Boxes `"xyxy"` in pixels, float32 `[..., 4]`.

    Raises:
      TypeError: If `masks` is not boolean.
      ValueError: If it has fewer than two axes.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import geometry
      >>> mask = jnp.array([[False, False, False], [False, True, True]])
      >>> print(geometry.masks_to_boxes(mask))
      [1. 1. 3. 2.]

    Reference:
      He et al. Mask R-CNN. ICCV 2017. https://arxiv.org/abs/1703.06870
    """
    mask = checks.boolean("masks", masks)
    checks.minimum_rank("masks", mask, 2, "the last are the pixels")
    (x0, x1), (y0, y1) = _extent(mask.any(-2)), _extent(mask.any(-1))
    return jnp.stack([x0, y0, x1, y1], -1).astype(jnp.float32)


def _extent(line: Array) -> tuple[Array, Array]:
    """Where the True part of a line begins and ends; 0 twice if there is none."""
    at = jnp.arange(line.shape[-1])
    first = jnp.where(line, at, line.shape[-1]).min(-1, initial=line.shape[-1])
    last = jnp.where(line, at + 1, 0).max(-1, initial=0)
    return jnp.minimum(first, last), last


@checks.named
def nms(
    boxes: Numbers,
    scores: Numbers,
    *,
    iou_threshold: ArrayLike,
    max_outputs: int,
    score_threshold: ArrayLike | None = None,
    labels: Numbers | None = None,
    format: Format = "xyxy",
) -> tuple[Array, Array]:
    """Selects boxes by greedy non-maximum suppression, a fixed number of slots under `jit`.

    Exact: each slot takes the box of the highest score left, of equal scores the first, and drops
    every box whose IoU with it is above `iou_threshold`. A slot costs one pass over the boxes, and
    no matrix of IoUs is built. With `labels` a box drops those of its own class only.

    Args:
      boxes: Boxes, shape `[N, 4]`, floating; more leading axes by `jax.vmap`.
      scores: One score per box, shape `[N]`, floating. NaN and -inf are never selected.
      iou_threshold: A box is dropped above it, in `[0, 1]`.
      max_outputs: The number of slots.
      score_threshold: Boxes with a score that is not above it are never selected. None: all may be.
      labels: The class of each box, integers `[N]`. None: all boxes are of one.
      format: `"xyxy"`, `"cxcywh"` or `"xywh"`.

    Returns:
      The indices of the selected boxes, by falling score, int32 `[max_outputs]`, -1 where nothing
      was left; and whether a slot holds a box, bool `[max_outputs]`.

    Raises:
      TypeError: If `boxes` or `scores` is not floating, or `labels` or `max_outputs` not integers.
      ValueError: If a shape does not match, a number is out of its range or the format does not
        exist.

    Example:
      >>> from jaxloss import geometry
      >>> boxes = [[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9], [3.0, 0.0, 4.0, 4.0]]
      >>> scores = [0.9, 0.8, 0.7]
      >>> indices, valid = geometry.nms(boxes, scores, iou_threshold=0.5, max_outputs=3)
      >>> print(indices, valid)
      [ 0  2 -1] [ True  True False]

    Reference:
      Neubeck, Van Gool. Efficient Non-Maximum Suppression. ICPR 2006.
    """
    checks.option("format", format, FORMATS)
    box = _read("boxes", boxes)
    checks.shape("boxes", box, (*box.shape[-2:-1], 4), "one row per box; batches by vmap")
    score = checks.floating("scores", scores)
    checks.shape("scores", score, box.shape[:1], "one score per box")
    label = None if labels is None else jnp.asarray(labels)
    if label is not None:
        if not jnp.issubdtype(label.dtype, jnp.integer):
            checks.fail(TypeError, "labels", f"of dtype {label.dtype}", "integers")
        checks.shape("labels", label, box.shape[:1], "one class per box")
    slots = checks.integer("max_outputs", max_outputs, least=0)
    most = checks.number("iou_threshold", iou_threshold, box.dtype, "[0, 1]")
    left = score > -jnp.inf
    if score_threshold is not None:
        low = checks.number("score_threshold", score_threshold, score.dtype, "[-inf, inf]")
        left &= score > low
    box, score = jax.lax.stop_gradient((box, score))
    return _select(box, jnp.where(left, score, -jnp.inf), label, most, slots, format)


@functools.partial(jax.jit, static_argnums=(4, 5))
def _select(
    boxes: Array, scores: Array, labels: Array | None, most: Array, slots: int, format: Format
) -> tuple[Array, Array]:
    if not len(scores):
        return jnp.full(slots, -1, jnp.int32), jnp.zeros(slots, bool)

    def step(left: Array, _: None) -> tuple[Array, Array]:
        best = jnp.argmax(left).astype(jnp.int32)
        found = left[best] > -jnp.inf
        overlap = _iou(*pairs.read(boxes[best], boxes, format))
        dropped = overlap > most
        if labels is not None:
            dropped &= labels == labels[best]
        dropped |= jnp.arange(len(left)) == best
        return jnp.where(dropped, -jnp.inf, left), jnp.where(found, best, -1)

    indices = jax.lax.scan(step, scores, length=slots)[1]
    return indices, indices >= 0


def _iou(x: Span, y: Span) -> Array:
    return pairs.measure(x, y).iou


def _giou(x: Span, y: Span) -> Array:
    return _iou(x, y) - pairs.vacancy(x, y)


def _diou(x: Span, y: Span) -> Array:
    return _iou(x, y) - pairs.offset(x, y)


def _ciou(x: Span, y: Span) -> Array:
    v = pairs.aspect(x, y)
    return _diou(x, y) - pairs.aspect_weight(v, pairs.measure(x, y)) * v


_PAIRED = "the shape of `boxes`, as they are paired"


def _paired(
    coefficient: Callable[[Span, Span], Array],
    boxes: Numbers,
    target_boxes: Numbers,
    options: Mapping[str, Any],
) -> Array:
    """The coefficient of each pair."""
    checks.option("format", options["format"], FORMATS)
    first, second = _read("boxes", boxes), _read("target_boxes", target_boxes)
    checks.shape("target_boxes", second, first.shape, _PAIRED)
    return coefficient(*pairs.read(first, second.astype(first.dtype), options["format"]))


def _pairwise(
    coefficient: Callable[[Span, Span], Array],
    boxes: Numbers,
    target_boxes: Numbers,
    options: Mapping[str, Any],
) -> Array:
    """The coefficient of every box with every other; its derivatives are recomputed."""
    checks.option("format", options["format"], FORMATS)
    first, second = _read("boxes", boxes), _read("target_boxes", target_boxes)
    for name, box in (("boxes", first), ("target_boxes", second)):
        checks.minimum_rank(name, box, 2, "a set of boxes and their four numbers")
    expected = (*first.shape[:-2], second.shape[-2], 4)
    checks.shape("target_boxes", second, expected, "the leading axes of `boxes`")
    each = recomputed(bind(_of_boxes, coefficient=coefficient, format=options["format"]))
    return each(first[..., :, None, :], second.astype(first.dtype)[..., None, :, :])


def _of_boxes(
    first: Array, second: Array, *, coefficient: Callable[[Span, Span], Array], format: Format
) -> Array:
    return coefficient(*pairs.read(first, second, format))


def _read(
    argument: str, boxes: Numbers, checked: Callable[[str, Any], Array] = pairs.checked
) -> Array:
    """Boxes in the compute dtype."""
    box = checked(argument, boxes)
    return box.astype(checks.compute_dtype(box))
