"""Losses on paired bounding boxes."""

from jaxloss._boxes._distances import *
from jaxloss._boxes._focusing import *
from jaxloss._boxes._gaussian import *
from jaxloss._boxes._gaussian_overlap import *
from jaxloss._boxes._overlap import *
from jaxloss._boxes._robust import *
from jaxloss._boxes._rotated import *
from jaxloss._boxes._sides import *
from jaxloss._boxes._variants import *
