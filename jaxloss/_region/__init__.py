"""Losses on the overlap of whole segmentation masks."""

from jaxloss._region._centreline import *
from jaxloss._region._generalized import *
from jaxloss._region._logarithms import *
from jaxloss._region._lovasz import *
from jaxloss._region._metrics import *
from jaxloss._region._overlap import *
from jaxloss._region._rates import *
from jaxloss._region._ratios import *
from jaxloss._region._structure import *
from jaxloss._region._wasserstein import *
