"""The set loss of DETR and its kin: every box has one query, found by the cheapest matching."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

import jax
import jax.numpy as jnp

from jaxloss._boxes import giou
from jaxloss._core import checks, numerics, pairs, sigmoid
from jaxloss._core.labels import int32
from jaxloss._core.reduction import AxisName
from jaxloss._distribution import binary_cross_entropy, cross_entropy, sigmoid_focal
from jaxloss._regression import l1
from jaxloss.detection._assignment import Assignment, at_least_one, class_targets, gather
from jaxloss.detection._declare import Sizes, detection
from jaxloss.detection._hungarian import match_hungarian
from jaxloss.detection._targets import Targets, finish, read_dense, read_targets
from jaxloss.geometry import iou, pairwise_giou
from jaxloss.options import NonNegative, Numbers, Positive, Several

__all__ = ["detr"]

Array = jax.Array
Assigned: TypeAlias = Annotated[Assignment, Several]

_DEFAULTS = {  # alpha and gamma
    "softmax": (None, None),
    "focal": (0.25, 2.0),
    "varifocal": (0.75, 2.0),
    "matchability_aware": (1.0, 1.5),
}
_COST_ALPHA, _COST_GAMMA = 0.25, 2


@detection
def detr(
    logits: Numbers,
    predicted_boxes: Numbers,
    boxes: Numbers,
    labels: Numbers,
    *,
    valid: Numbers,
    image_size: Sizes,
    classification: Literal["softmax", "focal", "varifocal", "matchability_aware"] = "softmax",
    cost_class: NonNegative = 1.0,
    cost_l1: NonNegative = 5.0,
    cost_giou: NonNegative = 2.0,
    class_gain: NonNegative = 1.0,
    l1_gain: NonNegative = 5.0,
    giou_gain: NonNegative = 2.0,
    background_weight: NonNegative = 0.1,
    alpha: NonNegative | None = None,
    gamma: NonNegative | None = None,
    groups: int | None = None,
    assignment: Assigned | None = None,
    normalizer: Positive | None = None,
    axis_name: AxisName | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Computes the set loss of DETR, Deformable DETR, RT-DETR or DEIM for one decoder layer.

    Each box is matched to a query of its own by `match_hungarian`, with boxes cxcywh over the
    image's sides and the cost::

        cost_class c + cost_l1 |b - b'|_1 - cost_giou GIoU

    `c` is minus the class's probability for `"softmax"`; for the others, with the class's logit
    `x`, `p = sigmoid(x)`, it is `.25 (1 - p)^2 (-log p) - .75 p^2 (-log(1 - p))`. With the matched
    pairs `P`, the number `n` of boxes in the batch, at least 1, and the IoU `q` of a pair, a
    constant, 0 for other classes and queries::

        classification    class_gain times
          "softmax"             CE with C as the class of unmatched queries, of background_weight:
                                the weighted mean
          "focal"               sum FL(x, one-hot or 0) / n                          Deformable DETR
          "varifocal"           sum q BCE(x, q) / n, where q = 0 alpha p^gamma BCE(x, 0)     RT-DETR
          "matchability_aware"  sum BCE(x, q^gamma) / n, where q = 0 alpha p^gamma BCE(x, 0)    DEIM
        l1                l1_gain sum_P |b - b'|_1 / n
        giou              giou_gain sum_P (1 - GIoU) / n

    The weights `p^gamma` are constants. Where the IoU of a pair is 0 transformers has no class loss
    for `"varifocal"`; here the class is then one of the others, as in VarifocalNet.

    Every layer of a decoder is matched anew; sum the layers' losses. Denoising queries know their
    boxes: give them to a call of their own, with `assignment`, and not to the main one.

    An image without boxes has its classification alone. Invalid slots reach nothing, and NaN costs
    are matched last.

    Args:
      logits: Scores `[B, Q, C + 1]`, the last that of the background, for `"softmax"`; `[B, Q, C]`
        for the others; floating.
      predicted_boxes: Boxes cxcywh over the image's sides, in [0, 1], `[B, Q, 4]`.
      boxes: Boxes xyxy in pixels, `[B, M, 4]`, `M <= Q`.
      image_size: Height and width in pixels, `(H, W)`, or of each image, `[B, 2]`.
      classification: `"softmax"`, `"focal"`, `"varifocal"` or `"matchability_aware"`.
      cost_l1: Factor of the distance in the cost.
      cost_giou: Factor of the GIoU in the cost.
      l1_gain: Factor of the distance.
      giou_gain: Factor of the GIoU loss.
      alpha: None: 0.25 for focal, 0.75 for varifocal, 1 for matchability-aware; softmax has none.
      gamma: None: 2 for focal and varifocal, 1.5 for matchability-aware; softmax has none.
      groups: The queries are `G` groups of equal size, one after another, that are matched each by
        itself (Group DETR); `n` counts every box once for each.
      assignment: Of the queries, instead of matching, arrays `[B, Q]`: index and foreground say
        which box a query has, ignored queries have no class loss.
      normalizer: `n` instead of the number of boxes, above 0; the softmax's classification, a
        weighted mean, has none.

    Returns:
      The total, and its parts `classification`, `l1` and `giou`; float32 for half-precision input.

    Example:
      Two layers of a decoder:

      >>> import jax.numpy as jnp
      >>> from jaxloss import detection
      >>> layers = jnp.zeros((2, 1, 3, 5)), jnp.full((2, 1, 3, 4), 0.5)
      >>> truth = jnp.array([[[0.0, 0.0, 32.0, 64.0]]]), jnp.array([[3]])
      >>> total = sum(
      ...     detection.detr(*layer, *truth, valid=jnp.array([[True]]), image_size=(64, 64))[0]
      ...     for layer in zip(*layers)
      ... )
      >>> print(total.round(4))
      14.5855

    Reference:
      Carion et al. End-to-End Object Detection with Transformers. ECCV 2020.
      https://arxiv.org/abs/2005.12872
      Zhu et al. Deformable DETR. ICLR 2021. https://arxiv.org/abs/2010.04159
      Zhao et al. DETRs Beat YOLOs on Real-time Object Detection. CVPR 2024.
      https://arxiv.org/abs/2304.08069
      Huang et al. DEIM: DETR with Improved Matching. CVPR 2025. https://arxiv.org/abs/2412.04234
      Chen et al. Group DETR. ICCV 2023. https://arxiv.org/abs/2207.13085
    """
    checks.option("classification", classification, _DEFAULTS)
    scores, predicted = read_dense(logits=logits, predicted_boxes=predicted_boxes)
    images, queries, classes = scores.shape
    softmax, dtype = classification == "softmax", scores.dtype
    classes -= softmax
    targets = read_targets(boxes, labels, valid, images=images, classes=classes, dtype=dtype)
    targets = targets._replace(boxes=relative(targets, image_size))
    count = 1 if groups is None else checks.integer("groups", groups, 1)
    if queries % count:
        checks.fail(ValueError, "groups", groups, f"a divisor of the {queries} queries")

    if assignment is None:
        a_query_for_each("boxes", jnp.shape(boxes), queries // count)
        factors = cost_class, cost_l1, cost_giou
        assigned = match(scores, predicted, targets, factors, softmax=softmax, groups=count)
    else:
        assigned = _read_assignment(assignment, scores, targets)
    n = normalizer
    if n is None:
        n = at_least_one(count * targets.valid.sum().astype(dtype), axis_name)

    box, matched = gather(targets.boxes, assigned.index), assigned.foreground
    total: dict[str, Any] = {"reduction": "sum", "axis_name": axis_name}
    apart = l1(predicted, box, where=matched[..., None], **total)
    misfit = giou(predicted, box, format="cxcywh", where=matched, **total)
    if softmax:
        entropy = softmax_of_sets(scores, targets, assigned, background_weight, axis_name)
    else:
        q = _fit(predicted, box, assigned)
        hits = class_targets(targets.labels, assigned, classes)
        options = {"where": ~assigned.ignore[..., None], **total}
        entropy = _sigmoid_of_sets(classification, scores, q, hits, alpha, gamma, options) / n
    parts = {
        "classification": class_gain * entropy,
        "l1": l1_gain * apart / n,
        "giou": giou_gain * misfit / n,
    }
    return finish(parts, targets, axis_name)


def a_query_for_each(argument: str, shape: tuple[int, ...], queries: int) -> None:
    """Requires no more slots, `[B, M, ...]`, than queries."""
    if shape[1] > queries:
        expected = f"at most {queries} slots, a query for each"
        checks.fail(ValueError, argument, f"of shape {shape}", expected)


def softmax_of_sets(
    logits: Array,
    targets: Targets,
    assigned: Assignment,
    background_weight: Array,
    axis_name: AxisName | None,
) -> Array:
    """The weighted mean of the cross-entropies, of unmatched queries with the last class."""
    background = logits.shape[-1] - 1
    ids = jnp.where(assigned.foreground, gather(targets.labels, assigned.index), background)
    weights = jnp.where(assigned.foreground, 1, background_weight)
    where = ~assigned.ignore
    return cross_entropy(logits, ids, weights=weights, where=where, axis_name=axis_name)


def _sigmoid_of_sets(
    kind: str,
    logits: Array,
    q: Array,
    hits: Array,
    alpha: Array | None,
    gamma: Array | None,
    options: Mapping[str, Any],
) -> Array:
    """The sum of the losses of all classes, each by itself; `q` is the IoU of the pairs."""
    given = zip((alpha, gamma), _DEFAULTS[kind], strict=True)
    alpha, gamma = (usual if number is None else number for number, usual in given)
    if kind == "focal":
        return sigmoid_focal(logits, hits, alpha=alpha, gamma=gamma, **options)
    alpha, gamma = (jnp.asarray(number, logits.dtype) for number in (alpha, gamma))
    q = jnp.where(hits, q[..., None], 0)
    focus = numerics.power(sigmoid.probability_pair(jax.lax.stop_gradient(logits))[0], gamma)
    if kind == "varifocal":
        truth, weight = q, q
    else:
        truth, weight = numerics.power(q, gamma), jnp.ones_like(q)
    weight = jnp.where(q > 0, weight, alpha * focus)
    return binary_cross_entropy(logits, truth, weights=weight, **options)


def _fit(predicted: Array, boxes: Array, assigned: Assignment) -> Array:
    """The IoU of each query with its box, a constant; 1 where it has none."""
    predicted = jnp.where(assigned.foreground[..., None], predicted, boxes)
    return iou(jax.lax.stop_gradient(predicted), boxes, format="cxcywh")


def class_cost(logits: Array, labels: Array) -> Array:
    """Minus the probability that each query gives to the class of each box, `[B, Q, M]`."""
    return -_of_labels(jax.nn.softmax(logits, -1), labels)


def _focal_cost(logits: Array, labels: Array) -> Array:
    """The focal loss of each query with the class of each box, less that without, `[B, Q, M]`."""
    x = _of_labels(logits, labels)
    (p, q), (hit, miss) = sigmoid.probability_pair(x), sigmoid.log_pair(x)
    return _COST_ALPHA * q**_COST_GAMMA * hit - (1 - _COST_ALPHA) * p**_COST_GAMMA * miss


def _of_labels(values: Array, labels: Array) -> Array:
    """Values `[B, Q, C]` of the classes of boxes `[B, M]`."""
    return jnp.take_along_axis(values, labels[:, None], -1, mode="promise_in_bounds")


def _cost(scores: Array, predicted: Array, targets: Targets, *, softmax: bool) -> tuple[Array, ...]:
    """What class, distance and GIoU cost where a query predicts a box, `[B, Q, M]` each."""
    scores, predicted = jax.lax.stop_gradient((scores, predicted))
    apart = [
        numerics.absolute(predicted[..., i, None] - targets.boxes[:, None, :, i]) for i in range(4)
    ]
    return (
        (class_cost if softmax else _focal_cost)(scores, targets.labels),
        apart[0] + apart[1] + apart[2] + apart[3],
        -pairwise_giou(predicted, targets.boxes, format="cxcywh"),
    )


def match(
    scores: Array,
    predicted: Array,
    targets: Targets,
    factors: tuple[Array, Array, Array],
    *,
    softmax: bool,
    groups: int = 1,
) -> Assignment:
    """Matches each group of queries by itself; `factors` are those of class, distance and GIoU."""
    costs = _cost(scores, predicted, targets, softmax=softmax)
    by_class, apart, misfit = (factor * cost for factor, cost in zip(factors, costs, strict=True))
    images, queries, slots = by_class.shape
    cost = jax.lax.stop_gradient(by_class + apart + misfit)
    cost = cost.reshape(images, groups, queries // groups, slots)
    found = jax.vmap(match_hungarian, in_axes=(1, None), out_axes=1)(cost, targets.valid)
    return Assignment(*(jax.lax.collapse(x, 1) for x in found))


def relative(targets: Targets, size: Array) -> Array:
    """The boxes as cxcywh over the image's sides."""
    if size.ndim == 1:
        size = size[None]
    images = targets.boxes.shape[0]
    allowed = (images if size.shape[:1] == (images,) else 1, 2)
    checks.shape("image_size", size, allowed, "height and width, of all images or of each")
    box = targets.boxes / jnp.tile(size[:, None, ::-1], 2)
    return pairs.convert("boxes", box, "xyxy", "cxcywh")


def _read_assignment(given: Assignment, scores: Array, targets: Targets) -> Assignment:
    """Requires arrays of the queries; a query with a slot that is not valid has no box."""
    if not isinstance(given, tuple) or len(given) != len(Assignment._fields):
        checks.fail(TypeError, "assignment", f"a {type(given).__name__}", "an Assignment")
    given = Assignment(*given)
    index = int32(checks.integer_ids("assignment.index", given.index))
    foreground = checks.boolean("assignment.foreground", given.foreground)
    ignore = checks.boolean("assignment.ignore", given.ignore)
    arrays = {"index": index, "foreground": foreground, "ignore": ignore}
    for field, array in arrays.items():
        checks.shape(f"assignment.{field}", array, scores.shape[:2], "one for each query")
    inside = (index >= 0) & (index < targets.valid.shape[1])
    index = jnp.where(inside, index, 0)
    foreground = foreground & inside & gather(targets.valid, index)
    return given._replace(index=index, foreground=foreground, ignore=ignore & ~foreground)
