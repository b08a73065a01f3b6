"""Losses made of losses."""

from jaxloss._compound._combinators import *
from jaxloss._compound._combo import *
from jaxloss._compound._exp_log import *
from jaxloss._compound._structural import *
from jaxloss._compound._sums import *
from jaxloss._compound._unified import *
from jaxloss._compound._with_boundary import *
