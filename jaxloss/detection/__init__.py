"""Whole detection heads, the assigners they stand on, coders, points and anchors.

Targets are padded to `M` boxes per image: `boxes` `[B, M, 4]` xyxy in pixels of the input, `labels`
`[B, M]` and `valid` `[B, M]`. What stands in slots that are not valid (inverted boxes, impossible
labels, NaN) reaches nothing. All shapes are fixed, everything runs inside `jit`, and assignment is
a constant for the derivative. A head returns its total and the parts that add up to it.
"""

from jaxloss.detection import _coders, _places
from jaxloss.detection._assignment import Assignment as Assignment
from jaxloss.detection._coders import *
from jaxloss.detection._places import *

__all__ = ["Assignment"]
__all__ += _coders.__all__
__all__ += _places.__all__
