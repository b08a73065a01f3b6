"""Non-maximum suppression of a fixed size."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, pairs
from jaxloss._core.pairs import FORMATS
from jaxloss.geometry._declare import read
from jaxloss.options import Format, Numbers

__all__ = ["nms"]

Array = jax.Array


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
    box = read("boxes", boxes)
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
    """Slot by slot, the boxes that are selected; one that is, or is dropped, has the score -inf."""
    if not len(scores):
        return jnp.full(slots, -1, jnp.int32), jnp.zeros(slots, bool)

    def step(left: Array, _: None) -> tuple[Array, Array]:
        best = jnp.argmax(left).astype(jnp.int32)
        found = left[best] > -jnp.inf
        overlap = pairs.measure(*pairs.read(boxes[best], boxes, format)).iou
        dropped = overlap > most
        if labels is not None:
            dropped &= labels == labels[best]
        dropped |= jnp.arange(len(left)) == best
        return jnp.where(dropped, -jnp.inf, left), jnp.where(found, best, -1)

    indices = jax.lax.scan(step, scores, length=slots)[1]
    return indices, indices >= 0
