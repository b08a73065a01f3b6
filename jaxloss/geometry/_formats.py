"""How boxes are written: formats, what one covers, and the boxes of masks."""

from __future__ import annotations

from typing import Literal, TypeAlias, Unpack

import jax
import jax.numpy as jnp

from jaxloss._core import checks, pairs, polygons
from jaxloss._core.pairs import FORMATS
from jaxloss.geometry._declare import coefficient, read
from jaxloss.options import Coordinates, Numbers

__all__ = ["area", "convert", "masks_to_boxes"]

Array = jax.Array
AnyFormat: TypeAlias = Literal["xyxy", "cxcywh", "xywh", "cxcywhr", "corners"]


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


@coefficient
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
    box = read("boxes", boxes)
    x, y = pairs.read(box, box, options["format"])
    return x.first * y.first


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
