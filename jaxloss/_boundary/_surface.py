"""Boundary (surface) loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import jax

from jaxloss._boundary._maps import Sampling, poison, scored, spacing_of
from jaxloss._core import families, maps, numerics
from jaxloss._core.confusion import Confusion
from jaxloss._core.images import Pixels, read
from jaxloss._core.scores import score
from jaxloss.options import Boundary, Numbers

__all__ = ["boundary"]

Array = jax.Array


@families.boundary
def boundary(
    logits: Numbers,
    labels: Numbers,
    *,
    distance_map: Numbers | None = None,
    sampling: Sampling = None,
    **options: Unpack[Boundary],
) -> Array:
    """Computes the boundary loss: probabilities weighted by the distance to the true boundary.

    With the signed distance `phi` to each class's boundary (positive outside, negative inside, 0 on
    the inner rim; see :func:`jaxloss.distance.signed_distance`), over an image's valid pixels::

        boundary = mean phi p

    It is the mean distance that separates the predicted region from the true boundary, up to a
    constant: it may be negative and its minimum depends on the target. It has almost no gradient on
    empty predictions, so train it together with a region loss, whose weight falls over time.

    The map is exact, computed inside the compiled program, and a constant for the derivative. A
    class whose target is empty or full has no boundary: its map and loss are 0. The authors' data
    loader rounds its maps to integers; these are not.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> labels = jnp.array([[[0, 0, 0, 1, 1]]])
      >>> near = jnp.array([[[0.0, 0.0, 0.9, 0.9, 0.9]]])
      >>> far = jnp.array([[[0.9, 0.0, 0.0, 0.9, 0.9]]])
      >>> for p in (near, far):
      ...     print(jaxloss.boundary(jnp.stack([1 - p, p], -1), labels, activation=None).round(4))
      0.0
      0.36

    Reference:
      Kervadec et al. Boundary Loss for Highly Unbalanced Segmentation. MIDL 2019.
      https://arxiv.org/abs/1812.07032
    """
    return boundary_of(read(logits, labels, options), options, distance_map, sampling)


def boundary_of(
    pixels: Pixels, options: Mapping[str, Any], distance_map: Array | None, sampling: Array | None
) -> Array:
    """Returns the reduced boundary loss."""
    pixels, phi = scored(pixels, options["include_background"], distance_map)
    if phi is None:
        spacing = spacing_of(sampling, pixels.dtype, len(pixels.spatial))
        phi = maps.signed(pixels.targets() > 0.5, spacing, axes=pixels.spatial)
    return score(_boundary, pixels, options, pixels.valid(), more=_moved, maps=(phi,))


def _boundary(counts: Confusion, n: Array) -> Array:
    return numerics.divide(counts.more[0], n)


def _moved(p: Array, q: Array, y: Array, phi: Array) -> tuple[Array]:
    return (phi * p + poison(p, y),)
