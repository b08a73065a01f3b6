"""Label smoothing as Optax has it."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss._core import checks, numerics
from jaxloss.optax_compat import _reading
from jaxloss.optax_compat._reading import Axes

__all__ = ["smooth_labels"]


@checks.named
def smooth_labels(
    labels: ArrayLike,
    alpha: ArrayLike,
    *,
    axis: Axes = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Moves a share of each target to all classes evenly: `jaxloss.smooth_labels`.

    The `label_smoothing` of jaxloss's losses does the same without an array of all classes.

    Args:
      labels: One-hot or soft labels, floating.
      alpha: The share that is moved.
      axis: The class axis, several of them, or None for all.
      where: Boolean: the share is divided among the classes for which it is True. The others get
        it too, as in Optax, so mask the loss as well.

    Returns:
      The smoothed labels, in the shape of `labels`.

    Raises:
      TypeError: If `labels` is not floating or `where` not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxloss import optax_compat as losses
      >>> print(losses.smooth_labels(jnp.array([1.0, 0.0, 0.0]), 0.3).round(4))
      [0.8 0.1 0.1]
    """
    array = checks.floating("labels", labels)
    dtype, (targets, share) = _reading.in_one_dtype(array, alpha)
    if where is None:
        axes = _reading.axes_of(axis, array.ndim)
        count = jnp.full((), math.prod(array.shape[i] for i in axes), targets.dtype)
    else:
        mask = checks.boolean("where", where)
        axes = _reading.axes_of(axis, mask.ndim)
        count = mask.sum(axes, keepdims=True).astype(targets.dtype)
    rest = numerics.divide(share, count)
    targets, share, rest = jnp.broadcast_arrays(targets, share, rest)
    return ((1 - share) * targets + rest).astype(dtype)
