"""Margin losses: nothing to pay once the right side leads by 1."""

from __future__ import annotations

from typing import Unpack

import jax
import jax.numpy as jnp

from jaxloss._core import numerics, sigmoid
from jaxloss._core.families import classification, one_versus_rest
from jaxloss._core.labels import Competing, is_target, per_position
from jaxloss._core.reading import competing, independent
from jaxloss._core.reduction import reduce
from jaxloss.options import Classification, Numbers, OneVersusRest

__all__ = ["hinge", "multiclass_hinge", "squared_hinge"]

Array = jax.Array


@one_versus_rest
def hinge(
    logits: Numbers,
    labels: Numbers,
    **options: Unpack[OneVersusRest],
) -> Array:
    """Computes the hinge loss of each score.

    With labels `y` of 0 and 1, not -1 and 1::

        H = max(0, 1 - (2 y - 1) logits)

    The score is used as it is. At the kink, a margin of exactly 1, the derivative is 0.

    Args:
      logits: Scores, any shape `[...]`, floating.
      labels: Targets in `[0, 1]` of the same shape: float, boolean, or integer 0 and 1. Another
        number, such as the -1 of other libraries, gives NaN there. Or integer ids without the class
        axis: one class against the rest.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> logits, labels = jnp.array([2.0, 0.5, -1.0]), jnp.array([1.0, 1.0, 1.0])
      >>> print(jaxloss.hinge(logits, labels, reduction="none"))
      [0.  0.5 2. ]

    Reference:
      Cortes and Vapnik. Support-Vector Networks. Machine Learning 1995.
    """
    data = independent(logits, labels, options)
    return reduce(sigmoid.cost(_shortfall, data), options, data)


@one_versus_rest
def squared_hinge(
    logits: Numbers,
    labels: Numbers,
    **options: Unpack[OneVersusRest],
) -> Array:
    """Computes the squared hinge loss of each score.

    With labels `y` of 0 and 1, not -1 and 1::

        H = max(0, 1 - (2 y - 1) logits)^2

    The score is used as it is. Unlike :func:`hinge` it has a gradient without a jump.

    Args:
      logits: Scores, any shape `[...]`, floating.
      labels: Targets in `[0, 1]` of the same shape: float, boolean, or integer 0 and 1. Another
        number, such as the -1 of other libraries, gives NaN there. Or integer ids without the class
        axis: one class against the rest.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> logits, labels = jnp.array([2.0, 0.5, -1.0]), jnp.array([1.0, 1.0, 1.0])
      >>> print(jaxloss.squared_hinge(logits, labels, reduction="none"))
      [0.   0.25 4.  ]

    Reference:
      Lee and Mangasarian. SSVM: A Smooth Support Vector Machine for Classification. Computational
      Optimization and Applications 2001.
    """
    data = independent(logits, labels, options)
    return reduce(sigmoid.cost(_squared_shortfall, data), options, data)


@classification
def multiclass_hinge(
    logits: Numbers,
    labels: Numbers,
    **options: Unpack[Classification],
) -> Array:
    """Computes the multiclass hinge loss of Crammer and Singer for each position.

    With the target's score `x_y`::

        H = max_j (x_j + [j != y]) - x_y                        ids
        H = max_j (x_j + 1 - y_j) - sum_c y_c x_c               labels of the logits' shape

    The target must lead the best other class by 1. It differs from PyTorch's `multi_margin_loss`,
    which adds up all classes that are too close and divides by `C`. An offset common to all logits
    cancels before anything is rounded. A logit of -inf is a class that has been removed: it costs
    nothing where the label has no mass, and +inf with zero gradient where it has.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> logits = jnp.array([[2.0, 0.5, 0.0], [2.0, 1.5, 0.0], [2.0, 3.0, 0.0]])
      >>> print(jaxloss.multiclass_hinge(logits, jnp.array([0, 0, 0]), reduction="none"))
      [0.  0.5 2. ]

    Reference:
      Crammer and Singer. On the Algorithmic Implementation of Multiclass Kernel-based Vector
      Machines. JMLR 2001.
    """
    data = competing(logits, labels, options)
    return reduce(per_position(_multiclass_hinge, data), options, data)


def _multiclass_hinge(part: Competing) -> Array:
    x, axis = part.unmasked_logits(), part.axis
    if part.has_ids:
        hit = is_target(part.labels, x.shape, axis)
        score = jnp.where(hit, x, 0).sum(axis, keepdims=True)
    else:
        y = part.dense_labels()
        score = numerics.product(y, x).sum(axis, keepdims=True)
    removed = score == -jnp.inf
    ahead = x - numerics.finite(jnp.where(removed, 0, score))
    if part.has_ids:
        lead = jnp.where(hit, 0, (ahead + 1) * jnp.expand_dims(part.poison(), axis))
    else:
        lead = jnp.where((x == jnp.inf) & (y == 1), 0, ahead + (1 - y))
    return part.weighted(jnp.where(removed.squeeze(axis), jnp.inf, lead.max(axis)))


def _shortfall(x: Array, y: Array) -> Array:
    """By how much a score misses the margin of 1 on its label's side, NaN for no label."""
    y = jnp.where((y >= 0) & (y <= 1), y, jnp.nan)
    missing = 1 - numerics.product(2 * y - 1, x)
    return jnp.where(missing <= 0, 0, missing)


def _squared_shortfall(x: Array, y: Array) -> Array:
    return _shortfall(x, y) ** 2
