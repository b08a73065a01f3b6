"""Losses made of losses."""

from jaxloss._compound import (
    _combinators,
    _combo,
    _exp_log,
    _structural,
    _sums,
    _unified,
    _with_boundary,
)
from jaxloss._compound._combinators import *
from jaxloss._compound._combo import *
from jaxloss._compound._exp_log import *
from jaxloss._compound._structural import *
from jaxloss._compound._sums import *
from jaxloss._compound._unified import *
from jaxloss._compound._with_boundary import *

__all__ = []
__all__ += _combinators.__all__
__all__ += _combo.__all__
__all__ += _exp_log.__all__
__all__ += _structural.__all__
__all__ += _sums.__all__
__all__ += _unified.__all__
__all__ += _with_boundary.__all__
