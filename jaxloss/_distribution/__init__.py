"""Losses on the class distribution of each position or element."""

from jaxloss._distribution import _cross_entropy, _focal
from jaxloss._distribution._cross_entropy import *
from jaxloss._distribution._focal import *

__all__ = []
__all__ += _cross_entropy.__all__
__all__ += _focal.__all__
