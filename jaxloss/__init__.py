"""Loss functions of computer vision and segmentation as pure JAX functions.

Every loss is a top-level function, lower is better: `jaxloss.focal(logits, labels, gamma=2)`.
Detection heads live in `jaxloss.detection`, distance transforms in `jaxloss.distance`, Optax's
names in `jaxloss.optax_compat`.
"""

import importlib.metadata

from jaxloss import _boundary, _boxes, _compound, _distribution, _region, _regression
from jaxloss import detection as detection
from jaxloss import distance as distance
from jaxloss import geometry as geometry
from jaxloss import optax_compat as optax_compat
from jaxloss._boundary import *
from jaxloss._boxes import *
from jaxloss._compound import *
from jaxloss._distribution import *
from jaxloss._region import *
from jaxloss._regression import *
from jaxloss._report import Report as Report
from jaxloss._validate import validate as validate
from jaxloss.distance import compute_edts_for_hausdorff_loss as compute_edts_for_hausdorff_loss
from jaxloss.distance import compute_edts_for_penalized_loss as compute_edts_for_penalized_loss

__version__ = importlib.metadata.version("jaxloss")

__all__ = []
__all__ += _boundary.__all__
__all__ += _boxes.__all__
__all__ += _compound.__all__
__all__ += _distribution.__all__
__all__ += _region.__all__
__all__ += _regression.__all__
__all__ += ["compute_edts_for_hausdorff_loss", "compute_edts_for_penalized_loss", "validate"]
