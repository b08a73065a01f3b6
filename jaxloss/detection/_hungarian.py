"""The cheapest one-to-one matching of queries and boxes, exactly, inside `jit`."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxloss._core import checks
from jaxloss.detection._assignment import Assignment, assignment, gather, lowest
from jaxloss.detection._declare import detection
from jaxloss.options import Numbers

__all__ = ["match_hungarian"]

Array = jax.Array


@detection
def match_hungarian(cost: Numbers, valid: Numbers) -> Assignment:
    """Matches every box to a query of its own, so that the sum of the costs is the smallest.

    Solved exactly by shortest augmenting paths, all images side by side, in a loop of fixed shapes:
    each step of it looks at one column of every image. Boxes whose best query no other box wants
    are matched before the loop, which therefore is short.

    Slots that are not valid are matched to nothing and their costs are not looked at. Costs that
    are NaN or infinite, or so large that their sums would be, are dearer than all others together:
    such a pair is matched only if no complete matching does without. Of several matchings of one
    sum the same one is always taken; which one is not specified, but equal costs of a box are
    looked at in the order of the queries. One cost without padding may go, as into SciPy, into
    `queries, boxes = optax.assignment.hungarian_algorithm(cost)`.

    Args:
      cost: What it costs that a query predicts a box, floating `[B, Q, M]`, `Q >= M`.

    Returns:
      The `Assignment` of the queries, arrays `[B, Q]`; the weights are 1 where there is a box. No
      gradient passes.

    Raises:
      TypeError: If `cost` is not floating or `valid` not boolean.
      ValueError: If there are more slots than queries, or a shape does not match.

    Example:
      The first query suits both boxes best, but the sum is smaller if the second box has it:

      >>> import jax.numpy as jnp
      >>> from jaxloss import detection
      >>> cost = jnp.array([[[1.0, 1.0], [2.0, 9.0], [5.0, 9.0]]])
      >>> print(detection.match_hungarian(cost, jnp.array([[True, True]])).index)
      [[1 0 0]]

    Reference:
      Crouse. On Implementing 2D Rectangular Assignment Algorithms. IEEE Transactions on Aerospace
      and Electronic Systems 2016. https://doi.org/10.1109/TAES.2016.140952
    """
    price = checks.floating("cost", cost)
    checks.rank("cost", price, 3, "images, queries and slots for boxes")
    images, queries, slots = price.shape
    if slots > queries:
        expected = "a query for each slot, at least"
        checks.fail(ValueError, "cost", f"of shape {price.shape}", expected)
    mask = checks.boolean("valid", valid)
    checks.shape("valid", mask, (images, slots), "which of the slots hold a box")
    price = price.astype(checks.compute_dtype(price))
    if not price.size:
        nobody = jnp.zeros((images, queries), jnp.int32)
        return assignment(nobody, nobody > 0, price.dtype)
    box = _match(jax.lax.stop_gradient(price), mask)
    return assignment(box, box >= 0, price.dtype)


class _Search(NamedTuple):
    """The state of the search, one row for each image.

    The box that is being matched reaches every query by a path: to a query that suits the box, on
    to one that suits the box which has that query, and so on until a query is free. An edge is as
    long as what it adds to the cost.

    Attributes:
      box: The box of each query, `[B, Q]`, -1 for a free one.
      discount: What each query adds to the costs of its edges, `[B, Q]`, never positive; 0 for a
        free one. With it no edge of a best matching is shorter than another of its box.
      waiting: The boxes without a query, `[B, M]`; the first of them is being matched.
      length: The length of the shortest path to each query so far, `[B, Q]`.
      before: The query in front of each on that path, `[B, Q]`, -1 where the path begins with it.
      known: The queries to which no shorter path can exist, `[B, Q]`.
      query: The last of the known ones, `[B]`, whose box is looked at next; -1 at the beginning.
    """

    box: Array
    discount: Array
    waiting: Array
    length: Array
    before: Array
    known: Array
    query: Array


def _match(cost: Array, valid: Array) -> Array:
    """The box of each query, `[B, Q]`, -1 for those without."""
    cost = _finite(cost.swapaxes(1, 2), valid)
    box, waiting = _uncontested(cost, valid)
    zero = jnp.zeros_like(cost[:, 0])
    start = _Search(box, zero, waiting, *_nothing_known(zero))
    end = jax.lax.while_loop(lambda s: s.waiting.any(), functools.partial(_step, cost), start)
    return end.box


def _nothing_known(like: Array) -> tuple[Array, ...]:
    """The `length`, `before`, `known` and `query` of a search that begins."""
    nowhere = jnp.full_like(like, -1, jnp.int32)
    return jnp.full_like(like, jnp.inf), nowhere, jnp.zeros_like(like, bool), nowhere[:, 0]


def _step(cost: Array, search: _Search) -> _Search:
    """Looks at one more box of each image; where that leads to a free query, matches."""
    box, discount, waiting, length, before, known, query = search
    target = waiting.argmax(1).astype(box.dtype)
    last = jnp.maximum(query, 0)
    at = jnp.where(query < 0, target, _pick(box, last))
    row = gather(cost, at) - discount
    so_far = jnp.where(query < 0, 0, _pick(length, last) - _pick(row, last))
    path = so_far[:, None] + row
    shorter = (path < length) & ~known
    length = jnp.where(shorter, path, length)
    before = jnp.where(shorter, query[:, None], before)

    unknown = jnp.where(known, jnp.inf, length)
    least = unknown.min(1, keepdims=True)
    queries = jnp.arange(box.shape[1], dtype=box.dtype)[None]
    query = jnp.where(unknown == least, queries, box.shape[1] - 1).min(1)
    found = _pick(box, query) < 0
    grown = _Search(
        box, discount, waiting, length, before, known | (queries == query[:, None]), query
    )

    discount = discount + jnp.where(known, jnp.minimum(length - least, 0), 0)
    matched = _along_path(box, before, target, jnp.where(found & waiting.any(1), query, -1))
    rest = waiting & (jnp.arange(waiting.shape[1], dtype=box.dtype)[None] != target[:, None])
    ended = _Search(matched, discount, rest, *_nothing_known(length))
    choose = lambda new, old: jnp.where(found.reshape(-1, *[1] * (new.ndim - 1)), new, old)
    return jax.tree.map(choose, ended, grown)


def _along_path(box: Array, before: Array, target: Array, query: Array) -> Array:
    """Moves every box on the path to `query` one query on, and `target` to the first of them."""
    queries = jnp.arange(box.shape[1], dtype=box.dtype)[None]

    def move(state: tuple[Array, Array]) -> tuple[Array, Array]:
        box, query = state
        last = jnp.maximum(query, 0)
        source = jnp.where(query < 0, -1, _pick(before, last))
        mover = jnp.where(source < 0, target, _pick(box, jnp.maximum(source, 0)))
        return jnp.where(queries == query[:, None], mover[:, None], box), source

    return jax.lax.while_loop(lambda state: (state[1] >= 0).any(), move, (box, query))[0]


def _uncontested(cost: Array, valid: Array) -> tuple[Array, Array]:
    """Matches each box to its best query, unless an earlier one wants it; and which boxes wait."""
    boxes = cost.shape[1]
    number = jnp.arange(boxes, dtype=jnp.int32)[None]
    nobody = jnp.full_like(cost[:, 0], boxes, jnp.int32)
    best = cost.argmin(2)
    first = lowest(nobody, best, jnp.where(valid, number, boxes))
    return jnp.where(first == boxes, -1, first), valid & (gather(first, best) != number)


def _finite(cost: Array, valid: Array) -> Array:
    """Replaces costs that are not finite by one that is dearer than all others together."""
    boxes = cost.shape[1]
    sound = jnp.abs(cost) < jnp.finfo(cost.dtype).max / (4 * boxes + 4)  # NaN is not
    counts = sound & valid[..., None]
    low = jnp.where(counts, cost, jnp.inf).min((1, 2), keepdims=True)
    high = jnp.where(counts, cost, -jnp.inf).max((1, 2), keepdims=True)
    low, high = (jnp.where(jnp.isfinite(end), end, 0) for end in (low, high))
    step = jnp.maximum(high - low, jnp.abs(high))
    dear = high + boxes * jnp.where(step == 0, 1, step)
    return jnp.where(sound, cost, dear)


def _pick(rows: Array, index: Array) -> Array:
    """One number of each row."""
    return jnp.take_along_axis(rows, index[:, None], 1, mode="promise_in_bounds")[:, 0]
