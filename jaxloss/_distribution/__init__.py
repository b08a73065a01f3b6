"""Losses on the class distribution of each position or element."""

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
