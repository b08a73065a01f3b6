"""Whole detection heads, the assigners they stand on, coders, points and anchors.

Targets are padded to `M` boxes per image: `boxes` `[B, M, 4]` xyxy in pixels of the input, `labels`
`[B, M]` and `valid` `[B, M]`. What stands in slots that are not valid (inverted boxes, impossible
labels, NaN) reaches nothing. All shapes are fixed, everything runs inside `jit`, and assignment is
a constant for the derivative. A head returns its total and the parts that add up to it.
"""

from jaxloss.detection import (
    _by_iou,
    _by_ratio,
    _coders,
    _detr,
    _fcos,
    _hungarian,
    _mask_set,
    _places,
    _retinanet,
    _sim_ota,
    _task_aligned,
    _yolo_v5,
    _yolo_v8,
    _yolo_v8_rotated,
)
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

__all__ = ["Assignment"]
__all__ += _by_iou.__all__
__all__ += _by_ratio.__all__
__all__ += _coders.__all__
__all__ += _detr.__all__
__all__ += _fcos.__all__
__all__ += _hungarian.__all__
__all__ += _mask_set.__all__
__all__ += _places.__all__
__all__ += _retinanet.__all__
__all__ += _sim_ota.__all__
__all__ += _task_aligned.__all__
__all__ += _yolo_v5.__all__
__all__ += _yolo_v8.__all__
__all__ += _yolo_v8_rotated.__all__
