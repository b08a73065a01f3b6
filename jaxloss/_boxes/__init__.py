"""Losses on paired bounding boxes."""

from jaxloss._boxes import (
    _distances,
    _focusing,
    _gaussian,
    _gaussian_overlap,
    _overlap,
    _robust,
    _rotated,
    _sides,
    _variants,
)
from jaxloss._boxes._distances import *
from jaxloss._boxes._focusing import *
from jaxloss._boxes._gaussian import *
from jaxloss._boxes._gaussian_overlap import *
from jaxloss._boxes._overlap import *
from jaxloss._boxes._robust import *
from jaxloss._boxes._rotated import *
from jaxloss._boxes._sides import *
from jaxloss._boxes._variants import *

__all__ = []
__all__ += _distances.__all__
__all__ += _focusing.__all__
__all__ += _gaussian.__all__
__all__ += _gaussian_overlap.__all__
__all__ += _overlap.__all__
__all__ += _robust.__all__
__all__ += _rotated.__all__
__all__ += _sides.__all__
__all__ += _variants.__all__
