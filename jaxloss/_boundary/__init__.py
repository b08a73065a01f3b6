"""Losses on the boundaries of segmentation masks, by exact distance maps."""

from jaxloss._boundary import _hausdorff, _penalized, _shape, _signed, _surface, _union
from jaxloss._boundary._hausdorff import *
from jaxloss._boundary._penalized import *
from jaxloss._boundary._shape import *
from jaxloss._boundary._signed import *
from jaxloss._boundary._surface import *
from jaxloss._boundary._union import *

__all__ = []
__all__ += _hausdorff.__all__
__all__ += _penalized.__all__
__all__ += _shape.__all__
__all__ += _signed.__all__
__all__ += _surface.__all__
__all__ += _union.__all__
