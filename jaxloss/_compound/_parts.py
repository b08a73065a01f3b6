"""What compound losses share: they are numbers, of one reading of logits and labels."""

from collections.abc import Mapping
from typing import Any

from jax.typing import ArrayLike

from jaxloss._core import checks, images


def read(logits: ArrayLike, labels: ArrayLike, options: Mapping[str, Any]) -> images.Pixels:
    """Reads logits and labels of a loss whose parts have no shape in common."""
    checks.option("reduction", options["reduction"], ("mean", "sum"))
    return images.read(logits, labels, options)
