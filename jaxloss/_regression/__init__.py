"""Losses on real-valued predictions."""

from jaxloss._regression import _errors, _likelihood, _robust
from jaxloss._regression._errors import *
from jaxloss._regression._likelihood import *
from jaxloss._regression._robust import *

__all__ = []
__all__ += _errors.__all__
__all__ += _likelihood.__all__
__all__ += _robust.__all__
