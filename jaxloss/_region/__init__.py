"""Losses on the overlap of whole segmentation masks."""

from jaxloss._region import (
    _centreline,
    _generalized,
    _logarithms,
    _lovasz,
    _overlap,
    _rates,
    _ratios,
    _structure,
    _wasserstein,
)
from jaxloss._region._centreline import *
from jaxloss._region._generalized import *
from jaxloss._region._logarithms import *
from jaxloss._region._lovasz import *
from jaxloss._region._overlap import *
from jaxloss._region._rates import *
from jaxloss._region._ratios import *
from jaxloss._region._structure import *
from jaxloss._region._wasserstein import *

__all__ = []
__all__ += _centreline.__all__
__all__ += _generalized.__all__
__all__ += _logarithms.__all__
__all__ += _lovasz.__all__
__all__ += _overlap.__all__
__all__ += _rates.__all__
__all__ += _ratios.__all__
__all__ += _structure.__all__
__all__ += _wasserstein.__all__
