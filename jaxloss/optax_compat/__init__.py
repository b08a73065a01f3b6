"""Optax's losses under their own names and conventions, on jaxloss's mathematics.

`from jaxloss import optax_compat as losses` in place of `from optax import losses` is the whole
migration: signatures, shapes, broadcasting, axes, masks and dtypes are those of Optax 0.2.8, and so
are the values, to rounding. What changes: half precision is rounded once, at the end; infinite
logits, zero targets and zero vectors have finite values and gradients where a limit exists; ids
outside the range give NaN instead of wrapping; the derivatives of the sigmoid losses and of the
cross-entropy of ids are recomputed from their inputs instead of stored.

Names without a counterpart in jaxloss (CTC, ranking, sparsemax, Fenchel-Young, perceptron,
contrastive and triplet losses) are Optax's own functions. Beyond Optax there is `per_example`.
"""

from optax.losses import ctc_loss as ctc_loss
from optax.losses import ctc_loss_with_forward_probs as ctc_loss_with_forward_probs
from optax.losses import make_fenchel_young_loss as make_fenchel_young_loss
from optax.losses import multiclass_sparsemax_loss as multiclass_sparsemax_loss
from optax.losses import ntxent as ntxent
from optax.losses import perceptron_loss as perceptron_loss
from optax.losses import ranking_softmax_loss as ranking_softmax_loss
from optax.losses import sparsemax_loss as sparsemax_loss
from optax.losses import triplet_margin_loss as triplet_margin_loss

from jaxloss.optax_compat import (
    _classification,
    _divergence,
    _per_example,
    _regression,
    _segmentation,
    _smoothing,
)
from jaxloss.optax_compat._classification import *
from jaxloss.optax_compat._divergence import *
from jaxloss.optax_compat._per_example import *
from jaxloss.optax_compat._regression import *
from jaxloss.optax_compat._segmentation import *
from jaxloss.optax_compat._smoothing import *

__all__ = [
    "ctc_loss",
    "ctc_loss_with_forward_probs",
    "make_fenchel_young_loss",
    "multiclass_sparsemax_loss",
    "ntxent",
    "perceptron_loss",
    "ranking_softmax_loss",
    "sparsemax_loss",
    "triplet_margin_loss",
]
__all__ += _classification.__all__
__all__ += _divergence.__all__
__all__ += _per_example.__all__
__all__ += _regression.__all__
__all__ += _segmentation.__all__
__all__ += _smoothing.__all__
