"""Losses on the overlap of whole segmentation masks."""

from jaxloss._region import _overlap
from jaxloss._region._overlap import *

__all__ = []
__all__ += _overlap.__all__
