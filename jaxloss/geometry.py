"""Boxes: formats, areas and overlap coefficients, exact for boxes of any size.

A box is `[..., 4]`: `"xyxy"` corners `(x0, y0, x1, y1)`, `"cxcywh"` centre and size, or `"xywh"`
first corner and size. A box with `x1 < x0` or `y1 < y0` is empty: it counts as the point or
segment at its centre. Coefficients are those of paired boxes, higher is better; the losses made of
them are `jaxloss.giou` and its kin. All are computed relative to the boxes' own enclosing box and
without an epsilon, so boxes of 1e-18 and 1e+18 units are as exact as others.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxloss._core import boxes as pairs
from jaxloss._core import checks, polygons
from jaxloss._core.boxes import FORMATS, Span
from jaxloss._core.cost import bind, recomputed

__all__ = [
    "area",
    "ciou",
    "convert",
    "diou",
    "giou",
    "iou",
    "nms",
    "pairwise_giou",
    "pairwise_iou",
    "rotated_iou",
]

Array = jax.Array


@checks.named
def convert(boxes: ArrayLike, source: str, target: str) -> Array:
    """Converts boxes from one format to another.

    Args:
      boxes: Boxes, shape `[..., 4]`, floating.
      source: Their format: `"xyxy"`, `"cxcywh"` or `"xywh"`.
      target: The format wanted.

    Returns:
      The same boxes, shape `[..., 4]`, in the dtype of `boxes`.

    Raises:
      TypeError: If `boxes` is not floating.
      ValueError: If the last axis is not 4 or a format does not exist.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import geometry
      >>> print(geometry.convert(jnp.array([1.0, 2.0, 5.0, 4.0]), "xyxy", "cxcywh"))
      [3. 3. 4. 2.]

    Reference:
      Lin et al. Microsoft COCO: Common Objects in Context. ECCV 2014 (xywh).
      https://arxiv.org/abs/1405.0312
    """
    checks.option("source", source, FORMATS)
    checks.option("target", target, FORMATS)
    return pairs.convert("boxes", boxes, source, target)


@checks.named
def area(boxes: ArrayLike, *, format: str = "xyxy") -> Array:
    """Computes the area of each box; 0 for an empty one.

    Args:
      boxes: Boxes, shape `[..., 4]`, floating.
      format: `"xyxy"`, `"cxcywh"` or `"xywh"`.

    Returns:
      `width * height`, shape `[...]`; float32 for half-precision input.

    Raises:
      TypeError: If `boxes` is not floating.
      ValueError: If the last axis is not 4 or the format does not exist.

    Example:
      >>> from jaxloss import geometry
      >>> print(geometry.area([1.0, 2.0, 5.0, 4.0]))
      8.0

    Reference:
      Euclid. Elements, book I, proposition 35.
    """
    checks.option("format", format, FORMATS)
    box = _read("boxes", boxes)
    x, y = pairs.read(box, box, format)
    return x.first * y.first


@checks.named
def iou(boxes: ArrayLike, target_boxes: ArrayLike, *, format: str = "xyxy") -> Array:
    """Computes the intersection over union of each pair of boxes.

    `IoU = intersection / union`, in `[0, 1]`.

    Two empty boxes have no union: their IoU is 0 with zero gradient.

    Args:
      boxes: Boxes, shape `[..., 4]`, floating.
      target_boxes: Boxes of the same shape: pairs, never a matrix.
      format: `"xyxy"`, `"cxcywh"` or `"xywh"`.

    Returns:
      One coefficient per pair, shape `[...]`; float32 for half-precision input.

    Raises:
      TypeError: If `boxes` is not floating.
      ValueError: If the last axis is not 4, the shapes differ or the format does not exist.

    Example:
      >>> from jaxloss import geometry
      >>> print(geometry.iou([0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 4.0]).round(4))
      0.2

    Reference:
      Jaccard. The Distribution of the Flora in the Alpine Zone. New Phytologist 1912.
    """
    return pairs.measure(*_paired(boxes, target_boxes, format)).iou


@checks.named
def giou(boxes: ArrayLike, target_boxes: ArrayLike, *, format: str = "xyxy") -> Array:
    """Computes the generalised intersection over union of each pair of boxes.

    `GIoU = IoU - (|C| - union) / |C|` with the enclosing box `C`, in `(-1, 1]`.

    It tells how far apart disjoint boxes are. An enclosing box without area adds nothing.

    Args:
      boxes: Boxes, shape `[..., 4]`, floating.
      target_boxes: Boxes of the same shape: pairs, never a matrix.
      format: `"xyxy"`, `"cxcywh"` or `"xywh"`.

    Returns:
      One coefficient per pair, shape `[...]`; float32 for half-precision input.

    Raises:
      TypeError: If `boxes` is not floating.
      ValueError: If the last axis is not 4, the shapes differ or the format does not exist.

    Example:
      >>> from jaxloss import geometry
      >>> print(geometry.giou([0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 4.0]).round(4))
      0.0333

    Reference:
      Rezatofighi et al. Generalized Intersection over Union. CVPR 2019.
      https://arxiv.org/abs/1902.09630
    """
    areas = pairs.measure(*_paired(boxes, target_boxes, format))
    return areas.iou - areas.vacancy


@checks.named
def diou(boxes: ArrayLike, target_boxes: ArrayLike, *, format: str = "xyxy") -> Array:
    """Computes the distance intersection over union of each pair of boxes.

    `DIoU = IoU - d^2 / c^2`, `d` the distance of the centres, `c` the enclosing diagonal.

    Two equal points have no diagonal: the distance adds nothing.

    Args:
      boxes: Boxes, shape `[..., 4]`, floating.
      target_boxes: Boxes of the same shape: pairs, never a matrix.
      format: `"xyxy"`, `"cxcywh"` or `"xywh"`.

    Returns:
      One coefficient per pair, shape `[...]`; float32 for half-precision input.

    Raises:
      TypeError: If `boxes` is not floating.
      ValueError: If the last axis is not 4, the shapes differ or the format does not exist.

    Example:
      >>> from jaxloss import geometry
      >>> print(geometry.diou([0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 4.0]).round(4))
      0.12

    Reference:
      Zheng et al. Distance-IoU Loss: Faster and Better Learning for Bounding Box Regression.
      AAAI 2020. https://arxiv.org/abs/1911.08287
    """
    x, y = _paired(boxes, target_boxes, format)
    return pairs.measure(x, y).iou - pairs.offset(x, y)


@checks.named
def ciou(boxes: ArrayLike, target_boxes: ArrayLike, *, format: str = "xyxy") -> Array:
    """Computes the complete intersection over union of each pair of boxes.

    `CIoU = DIoU - a v`, `v = 4 / pi^2 (atan(w / h) - atan(w' / h'))^2`, `a = v / (1 - IoU + v)`.

    `a` is a constant for the derivative, as in the paper. A point has the angle 0.

    Args:
      boxes: Boxes, shape `[..., 4]`, floating.
      target_boxes: Boxes of the same shape: pairs, never a matrix.
      format: `"xyxy"`, `"cxcywh"` or `"xywh"`.

    Returns:
      One coefficient per pair, shape `[...]`; float32 for half-precision input.

    Raises:
      TypeError: If `boxes` is not floating.
      ValueError: If the last axis is not 4, the shapes differ or the format does not exist.

    Example:
      >>> from jaxloss import geometry
      >>> print(geometry.ciou([0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 4.0]).round(4))
      0.1179

    Reference:
      Zheng et al. Distance-IoU Loss: Faster and Better Learning for Bounding Box Regression.
      AAAI 2020. https://arxiv.org/abs/1911.08287
    """
    x, y = _paired(boxes, target_boxes, format)
    areas, aspect = pairs.measure(x, y), pairs.aspect(x, y)
    return areas.iou - pairs.offset(x, y) - pairs.aspect_weight(aspect, areas) * aspect


@checks.named
def rotated_iou(boxes: ArrayLike, target_boxes: ArrayLike) -> Array:
    """Computes the exact intersection over union of each pair of rotated boxes.

    `IoU = intersection / union` of two rectangles, in `[0, 1]`.

    The intersection is the area of the polygon itself, and so is its gradient. Two boxes without
    area have no union: their IoU is 0 with zero gradient. A negative side counts as 0.

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
    return polygons.compare("rotated_iou", boxes, target_boxes).iou


@checks.named
def pairwise_iou(boxes: ArrayLike, target_boxes: ArrayLike, *, format: str = "xyxy") -> Array:
    """Computes the intersection over union of every box of one set with every one of another.

    `IoU = intersection / union`, in `[0, 1]`.

    As exact as `iou` at any scale. Two empty boxes have IoU 0 with zero gradient.

    Args:
      boxes: Boxes, shape `[..., N, 4]`, floating.
      target_boxes: Boxes, shape `[..., M, 4]`, with the same leading axes.
      format: `"xyxy"`, `"cxcywh"` or `"xywh"`.

    Returns:
      The matrix of coefficients, shape `[..., N, M]`; float32 for half-precision input.

    Raises:
      TypeError: If `boxes` is not floating.
      ValueError: If a last axis is not 4, the leading axes differ or the format does not exist.

    Example:
      >>> from jaxloss import geometry
      >>> boxes = [[0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 6.0, 6.0]]
      >>> print(geometry.pairwise_iou(boxes, [[1.0, 0.0, 3.0, 4.0]]).round(4))
      [[0.2] [0. ]]

    Reference:
      Jaccard. The Distribution of the Flora in the Alpine Zone. New Phytologist 1912.
    """
    return _matrix(_iou, boxes, target_boxes, format)


@checks.named
def pairwise_giou(boxes: ArrayLike, target_boxes: ArrayLike, *, format: str = "xyxy") -> Array:
    """Computes the generalised IoU of every box of one set with every one of another.

    `GIoU = IoU - (|C| - union) / |C|` with the enclosing box `C`, in `(-1, 1]`.

    As exact as `giou` at any scale: a matching cost for DETR and its kin.

    Args:
      boxes: Boxes, shape `[..., N, 4]`, floating.
      target_boxes: Boxes, shape `[..., M, 4]`, with the same leading axes.
      format: `"xyxy"`, `"cxcywh"` or `"xywh"`.

    Returns:
      The matrix of coefficients, shape `[..., N, M]`; float32 for half-precision input.

    Raises:
      TypeError: If `boxes` is not floating.
      ValueError: If a last axis is not 4, the leading axes differ or the format does not exist.

    Example:
      >>> from jaxloss import geometry
      >>> boxes = [[0.0, 0.0, 2.0, 2.0], [3.0, 0.0, 4.0, 4.0]]
      >>> print(geometry.pairwise_giou(boxes, [[1.0, 0.0, 3.0, 4.0]]).round(4))
      [[0.0333] [0.    ]]

    Reference:
      Rezatofighi et al. Generalized Intersection over Union. CVPR 2019.
      https://arxiv.org/abs/1902.09630
    """
    return _matrix(_giou, boxes, target_boxes, format)


@checks.named
def nms(
    boxes: ArrayLike,
    scores: ArrayLike,
    *,
    iou_threshold: ArrayLike,
    max_outputs: int,
    score_threshold: ArrayLike | None = None,
    format: str = "xyxy",
) -> tuple[Array, Array]:
    """Selects boxes by greedy non-maximum suppression, a fixed number of slots under `jit`.

    Exact: each slot takes the box of the highest score left, of equal scores the first, and drops
    every box whose IoU with it is above `iou_threshold`. A slot costs one pass over the boxes, and
    no matrix of IoUs is built. For classes apart, `jax.vmap` over scores per class.

    Args:
      boxes: Boxes, shape `[N, 4]`, floating; more leading axes by `jax.vmap`.
      scores: One score per box, shape `[N]`, floating. NaN and -inf are never selected.
      iou_threshold: A box is dropped above it, in `[0, 1]`.
      max_outputs: The number of slots.
      score_threshold: Boxes with a score that is not above it are never selected. None: all may be.
      format: `"xyxy"`, `"cxcywh"` or `"xywh"`.

    Returns:
      The indices of the selected boxes, by falling score, int32 `[max_outputs]`, -1 where nothing
      was left; and whether a slot holds a box, bool `[max_outputs]`.

    Raises:
      TypeError: If `boxes` or `scores` is not floating, or `max_outputs` not an integer.
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
    if isinstance(max_outputs, bool) or not isinstance(max_outputs, int | np.integer):
        checks.fail(TypeError, "max_outputs", repr(max_outputs), "an integer")
    if max_outputs < 0:
        checks.fail(ValueError, "max_outputs", max_outputs, "at least 0")
    most = checks.number("iou_threshold", iou_threshold, box.dtype, "[0, 1]")
    left = score > -jnp.inf
    if score_threshold is not None:
        low = checks.number("score_threshold", score_threshold, score.dtype, "[-inf, inf]")
        left &= score > low
    box, score = jax.lax.stop_gradient((box, score))
    return _select(box, jnp.where(left, score, -jnp.inf), most, int(max_outputs), format)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _select(
    boxes: Array, scores: Array, most: Array, slots: int, format: str
) -> tuple[Array, Array]:
    if not len(scores):
        return jnp.full(slots, -1, jnp.int32), jnp.zeros(slots, bool)

    def step(left: Array, _: None) -> tuple[Array, Array]:
        best = jnp.argmax(left).astype(jnp.int32)
        found = left[best] > -jnp.inf
        x, y = pairs.read(boxes[best], boxes, format)
        dropped = (_iou(x, y) > most) | (jnp.arange(len(left)) == best)
        return jnp.where(dropped, -jnp.inf, left), jnp.where(found, best, -1)

    indices = jax.lax.scan(step, scores, length=slots)[1]
    return indices, indices >= 0


def _read(argument: str, boxes: ArrayLike) -> Array:
    """Boxes in the compute dtype."""
    box = pairs.checked(argument, boxes)
    return box.astype(checks.compute_dtype(box))


def _paired(boxes: ArrayLike, target_boxes: ArrayLike, format: str) -> tuple[Span, Span]:
    checks.option("format", format, FORMATS)
    first = _read("boxes", boxes)
    second = _read("target_boxes", target_boxes).astype(first.dtype)
    meaning = "the shape of `boxes`, as they are paired"
    checks.shape("target_boxes", second, first.shape, meaning)
    return pairs.read(first, second, format)


def _matrix(
    coefficient: Callable[[Span, Span], Array],
    boxes: ArrayLike,
    target_boxes: ArrayLike,
    format: str,
) -> Array:
    checks.option("format", format, FORMATS)
    first = _read("boxes", boxes)
    second = _read("target_boxes", target_boxes).astype(first.dtype)
    for name, box in (("boxes", first), ("target_boxes", second)):
        checks.minimum_rank(name, box, 2, "a set of boxes and their four numbers")
    expected = (*first.shape[:-2], second.shape[-2], 4)
    checks.shape("target_boxes", second, expected, "the leading axes of `boxes`")
    each = recomputed(bind(_of_pair, coefficient=coefficient, format=format))
    return each(first[..., :, None, :], second[..., None, :, :])


def _of_pair(
    first: Array, second: Array, *, coefficient: Callable[[Span, Span], Array], format: str
) -> Array:
    return coefficient(*pairs.read(first, second, format))


def _iou(x: Span, y: Span) -> Array:
    return pairs.measure(x, y).iou


def _giou(x: Span, y: Span) -> Array:
    areas = pairs.measure(x, y)
    return areas.iou - areas.vacancy
