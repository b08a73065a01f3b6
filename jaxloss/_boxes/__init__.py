"""Losses on paired bounding boxes."""

from jaxloss._boxes import _axis_aligned
from jaxloss._boxes._axis_aligned import *

__all__ = []
__all__ += _axis_aligned.__all__
