"""Losses on the class distribution of each position or element."""

from jaxloss._distribution import (
    _balanced,
    _bi_tempered,
    _class_weights,
    _cross_entropy,
    _dense_detection,
    _divergence,
    _focal,
    _focal_variants,
    _gradient_harmonizing,
    _hard_examples,
    _hinge,
    _long_tail,
    _margins,
    _noise_robust,
)
from jaxloss._distribution._balanced import *
from jaxloss._distribution._bi_tempered import *
from jaxloss._distribution._class_weights import *
from jaxloss._distribution._cross_entropy import *
from jaxloss._distribution._dense_detection import *
from jaxloss._distribution._divergence import *
from jaxloss._distribution._focal import *
from jaxloss._distribution._focal_variants import *
from jaxloss._distribution._gradient_harmonizing import *
from jaxloss._distribution._hard_examples import *
from jaxloss._distribution._hinge import *
from jaxloss._distribution._long_tail import *
from jaxloss._distribution._margins import *
from jaxloss._distribution._noise_robust import *

__all__ = []
__all__ += _balanced.__all__
__all__ += _bi_tempered.__all__
__all__ += _class_weights.__all__
__all__ += _cross_entropy.__all__
__all__ += _dense_detection.__all__
__all__ += _divergence.__all__
__all__ += _focal.__all__
__all__ += _focal_variants.__all__
__all__ += _gradient_harmonizing.__all__
__all__ += _hard_examples.__all__
__all__ += _hinge.__all__
__all__ += _long_tail.__all__
__all__ += _margins.__all__
__all__ += _noise_robust.__all__
