"""The set loss of Mask2Former: every mask has one query; both are compared at sampled points."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxloss._core import checks, sigmoid
from jaxloss._core.reduction import AxisName, everywhere
from jaxloss.detection import _sampling as sampling
from jaxloss.detection._assignment import at_least_one, gather, lowest
from jaxloss.detection._declare import detection
from jaxloss.detection._detr import a_query_for_each, class_cost, softmax_of_sets
from jaxloss.detection._hungarian import match_hungarian
from jaxloss.detection._smallest import smallest
from jaxloss.detection._targets import finish, read_targets
from jaxloss.options import NonNegative, Numbers

__all__ = ["mask_set"]

Array = jax.Array

PART = 1024  # points of all queries at a time


@detection
def mask_set(
    logits: Numbers,
    mask_logits: Numbers,
    masks: Numbers,
    labels: Numbers,
    *,
    valid: Numbers,
    key: Numbers,
    points: int = 12544,
    oversample: float = 3,
    important: float = 0.75,
    cost_class: NonNegative = 2.0,
    cost_mask: NonNegative = 5.0,
    cost_dice: NonNegative = 5.0,
    class_gain: NonNegative = 2.0,
    mask_gain: NonNegative = 5.0,
    dice_gain: NonNegative = 5.0,
    background_weight: NonNegative = 0.1,
    axis_name: AxisName | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Computes the set loss of Mask2Former for one decoder layer.

    Masks are looked at in random points, bilinearly, as images of one size: predicted ones may be
    coarser than the true ones. With the logits `x` and the true values `y` at `points` points,
    `p = sigmoid(x)`, and the probability of the class::

        CE = mean BCE(x, y)        Dice = 1 - (2 sum p y + 1) / (sum p + sum y + 1)
        cost = -cost_class probability + cost_mask CE + cost_dice Dice

    Each mask is matched to a query of its own by `match_hungarian`, at points that are the same for
    all masks of an image. For each pair `P` then other points are taken: of `oversample` times as
    many, drawn for the image, the share `important` whose logits are nearest to 0, and the rest
    anywhere, drawn for the pair. With the number `n` of masks in the batch, at least 1::

        classification    class_gain CE of the classes, the weighted mean, as in `detr`
        mask              mask_gain sum_P CE / n
        dice              dice_gain sum_P Dice / n

    Every layer of a decoder is matched anew, with a key of its own; sum the layers' losses. On
    several devices give each another key: `jax.random.fold_in(key, jax.lax.axis_index(name))`.

    Memory beside the gradient, which is summed in float32, is that of the points, whatever the
    size of the masks. An image without masks has its classification alone. Invalid slots reach
    nothing, and NaN costs are matched last. A mask of numbers outside of [0, 1], such as 255, makes
    the loss NaN where it is looked at.

    Args:
      logits: Scores `[B, Q, C + 1]`, the last that of the background, floating.
      mask_logits: Log-odds of the masks' pixels, `[B, Q, h, w]`, floating.
      masks: The true masks, booleans or numbers in [0, 1], `[B, M, H, W]`, `M <= Q`.
      key: A key of `jax.random`.
      points: Points in which masks are compared.
      oversample: How many times as many points the important ones are chosen of, at least 1.
      important: The share of the points that is chosen, in [0, 1].
      cost_mask: Factor of the cross-entropy in the cost.
      cost_dice: Factor of Dice in the cost.
      mask_gain: Factor of the cross-entropy.
      dice_gain: Factor of Dice.

    Returns:
      The total, and its parts `classification`, `mask` and `dice`; float32 for half-precision
      input.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxloss import detection
      >>> total, parts = detection.mask_set(
      ...     jnp.zeros((1, 3, 5)),
      ...     jnp.zeros((1, 3, 4, 4)),
      ...     jnp.ones((1, 1, 8, 8), bool),
      ...     jnp.array([[3]]),
      ...     valid=jnp.array([[True]]),
      ...     key=jax.random.key(0),
      ...     points=64,
      ... )
      >>> print({name: round(float(part), 4) for name, part in parts.items()})
      {'classification': 3.2189, 'dice': 1.6981, 'mask': 3.4657}

    Reference:
      Cheng et al. Masked-attention Mask Transformer for Universal Image Segmentation. CVPR 2022.
      https://arxiv.org/abs/2112.01527
      Kirillov et al. PointRend: Image Segmentation as Rendering. CVPR 2020.
      https://arxiv.org/abs/1912.08193
    """
    scores, maps, truth = _read_masks(logits, mask_logits, masks)
    _read_points(points, oversample, important)
    checks.key("key", key)
    images, _, classes = scores.shape
    nowhere = jnp.zeros((*truth.shape[:2], 4), scores.dtype)
    targets = read_targets(
        nowhere, labels, valid, images=images, classes=classes - 1, dtype=scores.dtype
    )
    if not truth.shape[1]:  # as `targets`, with a slot that is not valid
        truth = jnp.zeros((images, 1, 1, 1), bool)

    mask, chosen = targets.valid, int(important * points)
    shapes = (points,), (int(oversample * points),), (mask.shape[1], points - chosen)
    shared, candidates, rest = _anywhere(key, mask, shapes, scores.dtype)
    costs = _costs(jax.lax.stop_gradient(maps), truth, shared)
    cost = cost_class * class_cost(scores, targets.labels)
    cost = cost + cost_mask * costs[0] + cost_dice * costs[1]
    assigned = match_hungarian(jax.lax.stop_gradient(cost), mask)
    query = _query_of_slots(assigned.index, assigned.foreground, mask)

    where = _with_important(jax.lax.stop_gradient(maps), query, mask, candidates, rest, chosen)
    pairs = _of_pairs(maps, truth, query, where, mask)
    entropy, dice = (everywhere(jnp.where(mask, a, 0).sum(), axis_name) for a in pairs)
    n = at_least_one(mask.sum().astype(scores.dtype), axis_name)
    classified = softmax_of_sets(scores, targets, assigned, background_weight, axis_name)
    parts = {
        "classification": class_gain * classified,
        "mask": mask_gain * entropy / points / n,
        "dice": dice_gain * dice / n,
    }
    return finish(parts, targets, axis_name)


def _read_masks(
    logits: Numbers, mask_logits: Numbers, masks: Numbers
) -> tuple[Array, Array, Array]:
    """Requires scores `[B, Q, C + 1]`, a map for each query and no more true masks."""
    scores = checks.floating("logits", logits)
    checks.rank("logits", scores, 3, "images, queries and classes")
    images, queries, _ = scores.shape
    maps = checks.floating("mask_logits", mask_logits)
    checks.rank("mask_logits", maps, 4, "images, queries, rows and columns")
    truth = jnp.asarray(masks)
    checks.rank("masks", truth, 4, "images, slots, rows and columns")
    sizes = [max(size, 1) for size in (*maps.shape[2:], *truth.shape[2:])]
    meaning = "and pixels, one at least"
    checks.shape("mask_logits", maps, (images, queries, *sizes[:2]), f"images, queries {meaning}")
    expected = (images, truth.shape[1], *sizes[2:])
    checks.shape("masks", truth, expected, f"images, slots {meaning}")
    a_query_for_each("masks", truth.shape, queries)
    return scores.astype(checks.compute_dtype(scores)), maps, truth


def _read_points(points: int, oversample: float, important: float) -> None:
    """Requires the numbers of points."""
    checks.integer("points", points, 1)
    checks.interval("oversample", oversample, "[1, inf)")
    checks.interval("important", important, "[0, 1]")


def _anywhere(
    key: Array, like: Array, shapes: Sequence[tuple[int, ...]], dtype: jnp.dtype
) -> list[Array]:
    """Points in images of size 1, `[B, *shape, 2]`, divided over devices as `like` `[B, M]` is."""
    nothing = jnp.zeros_like(like[:, :1], dtype)
    points = sampling.anywhere(key, len(like), shapes, dtype)
    return [x + jnp.expand_dims(nothing, range(2, x.ndim)) for x in points]


def _costs(maps: Array, truth: Array, where: Array) -> tuple[Array, Array]:
    """Cross-entropy and Dice of each map with each true one, at points `[B, P, 2]`, `[B, Q, M]`.

    Some points at a time, whose values stay in the processor's cache.
    """
    images, points = where.shape[:2]
    parts = -(-points // PART)
    size = -(-points // parts)
    beyond = (0, 0), (0, parts * size - points), (0, 0)
    where = jnp.pad(where, beyond, constant_values=2)  # outside of the image, where all is 0
    counts = (jnp.arange(parts * size) < points).astype(where.dtype).reshape(parts, size)

    def add(sums: tuple[Array, ...], part: tuple[Array, Array]) -> tuple[tuple[Array, ...], None]:
        where, counts = part
        x = sampling.of_every_map(maps, where)
        y = sampling.of_every_map(truth, where) * counts[None, None]
        p, (_, miss) = sigmoid.probability_pair(x)[0], sigmoid.log_pair(x)
        both = lambda a: jnp.einsum("bqp,bmp->bqm", a, y, precision="highest")
        total = lambda a: jnp.einsum("bqp,p->bq", a, counts, precision="highest")
        more = both(x), both(p), total(miss), total(p), total(y)
        return tuple(a + b for a, b in zip(sums, more, strict=True)), None

    zeros = lambda x: jnp.zeros_like(x[..., 0, 0], where.dtype)
    pairs = zeros(maps)[..., None] + zeros(truth)[:, None]
    none = pairs, pairs, pairs[..., 0], pairs[..., 0], pairs[:, 0]
    by_part = jnp.moveaxis(where.reshape(images, parts, size, 2), 1, 0)
    (xy, py, miss, p, y), _ = jax.lax.scan(add, none, (by_part, counts))
    return (miss[..., None] - xy) / points, _dice(py, p[..., None], y[:, None])


def _of_pairs(
    maps: Array, truth: Array, query: Array, where: Array, valid: Array
) -> tuple[Array, Array]:
    """The summed cross-entropies and Dice of each slot with its query, at the slot's points."""
    slot = jnp.zeros_like(query) + jnp.arange(query.shape[1], dtype=query.dtype)[None]
    x = sampling.of_one_map(maps, query, where, valid)
    y = jax.lax.stop_gradient(sampling.of_one_map(truth, slot, where, valid))
    y = jnp.where(jnp.abs(y - 0.5) < 0.51, y, jnp.nan)  # between pixels with some rounding
    p, _ = sigmoid.probability_pair(x)
    return sigmoid.entropy(x, y, 1 - y).sum(-1), _dice((p * y).sum(-1), p.sum(-1), y.sum(-1))


def _dice(both: Array, p: Array, y: Array) -> Array:
    return 1 - (2 * both + 1) / (p + y + 1)


def _with_important(
    maps: Array, query: Array, valid: Array, where: Array, rest: Array, count: int
) -> Array:
    """The points, of `[B, P, 2]`, where each slot's logits are nearest to 0, and the rest of each.

    Slot by slot, as far as a processor's cache reaches; a slot that no image uses takes no time.
    """

    def important(query: Array, valid: Array) -> Array:
        x = sampling.of_one_map(maps, query[:, None], where[:, None], valid[:, None])
        return gather(where, smallest(jnp.abs(x[:, 0]), count))

    def of_slot(m: Array, points: Array) -> Array:
        slot = [jax.lax.dynamic_index_in_dim(x, m, 1, keepdims=False) for x in (query, valid)]
        nothing = lambda query, valid: where[:, :count]
        chosen = jax.lax.cond(slot[1].any(), important, nothing, *slot)
        return jax.lax.dynamic_update_slice(points, chosen[:, None], (0, m, 0, 0))

    points = jnp.pad(rest, ((0, 0), (0, 0), (count, 0), (0, 0)))
    return jax.lax.fori_loop(0, query.shape[1], of_slot, points)


def _query_of_slots(index: Array, foreground: Array, valid: Array) -> Array:
    """The query of each slot `[B, M]`, 0 where it has none."""
    queries = jnp.arange(index.shape[1], dtype=jnp.int32)[None]
    nobody = jnp.full_like(valid, index.shape[1], jnp.int32)
    found = lowest(nobody, index, jnp.where(foreground, queries, index.shape[1]))
    return jnp.where(valid, found, 0)
