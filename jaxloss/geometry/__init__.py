"""Boxes: formats, areas and overlap coefficients, exact for boxes of any size.

A box is `[..., 4]`: `"xyxy"` corners `(x0, y0, x1, y1)`, `"cxcywh"` centre and size, or `"xywh"`
first corner and size. A box with `x1 < x0` or `y1 < y0` is empty: it counts as the point or
segment at its centre. A rotated box is `"cxcywhr"`, `[..., 5]` with the angle in radians, or its
`"corners"`, `[..., 4, 2]`. Coefficients are those of paired boxes, higher is better; the losses
made of them are `jaxloss.giou` and its kin. All are computed relative to the boxes' own enclosing
box and without an epsilon, so boxes of 1e-18 and 1e+18 units are as exact as others.
"""

from jaxloss.geometry._coefficients import *
from jaxloss.geometry._formats import *
from jaxloss.geometry._nms import *

__all__ = sorted(name for name, value in globals().items() if callable(value) and name[0] != "_")
