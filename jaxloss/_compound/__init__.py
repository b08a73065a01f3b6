"""Losses made of losses."""

from jaxloss._compound import _combo, _sums
from jaxloss._compound._combo import *
from jaxloss._compound._sums import *

__all__ = []
__all__ += _combo.__all__
__all__ += _sums.__all__
