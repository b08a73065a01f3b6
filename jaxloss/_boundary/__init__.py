"""Losses on the boundaries of segmentation masks, by exact distance maps."""

from jaxloss._boundary._hausdorff import *
from jaxloss._boundary._penalized import *
from jaxloss._boundary._shape import *
from jaxloss._boundary._signed import *
from jaxloss._boundary._surface import *
from jaxloss._boundary._union import *
