"""Losses on real-valued predictions."""

from jaxloss._regression._depth import *
from jaxloss._regression._errors import *
from jaxloss._regression._general_robust import *
from jaxloss._regression._keypoints import *
from jaxloss._regression._likelihood import *
from jaxloss._regression._robust import *
