"""Losses on the boundaries of segmentation masks, by exact distance maps."""

from jaxloss._boundary import _surface
from jaxloss._boundary._surface import *

__all__ = []
__all__ += _surface.__all__
