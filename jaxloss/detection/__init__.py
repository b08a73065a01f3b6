"""Whole detection heads, the assigners they stand on, coders, points and anchors.

Targets are padded to `M` boxes per image: `boxes` `[B, M, 4]` xyxy in pixels of the input, `labels`
`[B, M]` and `valid` `[B, M]`. What stands in slots that are not valid (inverted boxes, impossible
labels, NaN) reaches nothing. All shapes are fixed, everything runs inside `jit`, and assignment is
a constant for the derivative. A head returns its total and the parts that add up to it.
"""

from jaxloss.detection._assignment import Assignment as Assignment
from jaxloss.detection._by_iou import *
from jaxloss.detection._by_ratio import *
from jaxloss.detection._coders import *
from jaxloss.detection._detr import *
from jaxloss.detection._fcos import *
from jaxloss.detection._hungarian import *
from jaxloss.detection._mask_set import *
from jaxloss.detection._places import *
from jaxloss.detection._retinanet import *
from jaxloss.detection._sim_ota import *
from jaxloss.detection._task_aligned import *
from jaxloss.detection._yolo_v5 import *
from jaxloss.detection._yolo_v8 import *
from jaxloss.detection._yolo_v8_rotated import *

__all__ = sorted(name for name, value in globals().items() if callable(value) and name[0] != "_")
