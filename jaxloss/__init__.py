"""Loss functions of computer vision and segmentation as pure JAX functions.

Every loss is a top-level function, lower is better: `jaxloss.focal(logits, labels, gamma=2)`. What
the losses of a family share stands in `jaxloss.options`, distance transforms in
`jaxloss.distance`, overlaps of boxes in `jaxloss.geometry`, whole detection heads in
`jaxloss.detection`, and Optax's names in `jaxloss.optax_compat`.
"""

import difflib
import importlib.metadata
from typing import TYPE_CHECKING, NoReturn

from jaxloss import detection as detection
from jaxloss import distance as distance
from jaxloss import geometry as geometry
from jaxloss import optax_compat as optax_compat
from jaxloss import options as options
from jaxloss._boundary import *
from jaxloss._boxes import *
from jaxloss._compound import *
from jaxloss._distribution import *
from jaxloss._fused import *
from jaxloss._region import *
from jaxloss._regression import *
from jaxloss._report import Report as Report
from jaxloss._validate import validate as validate
from jaxloss.distance import compute_edts_for_hausdorff_loss as compute_edts_for_hausdorff_loss
from jaxloss.distance import compute_edts_for_penalized_loss as compute_edts_for_penalized_loss

try:
    __version__ = importlib.metadata.version("jaxloss")
except importlib.metadata.PackageNotFoundError:  # from a folder that is not installed
    __version__ = "unknown"

_MODULES = ("detection", "distance", "geometry", "optax_compat", "options")
__all__ = sorted(
    name
    for name, value in globals().items()
    if getattr(value, "__module__", "").startswith("jaxloss.") and callable(value)
)
__all__.remove("Report")

_OTHER_NAMES = {
    "asymmetriclossmultilabel": "asymmetric",
    "asymmetriclosssinglelabel": "asymmetric",
    "asymmetricunifiedfocalloss": "unified_focal",
    "balancedsoftmax": "logit_adjusted",
    "balancedsoftmaxloss": "logit_adjusted",
    "bce": "binary_cross_entropy",
    "bcediceloss": "dice_cross_entropy",
    "bceloss": "binary_cross_entropy",
    "bcewithlogitsloss": "binary_cross_entropy",
    "binaryfocalcrossentropy": "sigmoid_focal",
    "bitemperedlogisticloss": "bi_tempered",
    "boxiou": "geometry.pairwise_iou",
    "categoricalcrossentropy": "cross_entropy",
    "categoricalfocalcrossentropy": "softmax_focal",
    "ce": "cross_entropy",
    "completeboxiouloss": "ciou",
    "cosineembeddingloss": "cosine",
    "cosinesimilarity": "cosine",
    "crossentropyloss": "cross_entropy",
    "dcandbceloss": "dice_cross_entropy",
    "dcandceloss": "dice_cross_entropy",
    "dcandtopkloss": "dice_top_k",
    "deepsupervisionwrapper": "deep_supervision",
    "diceceloss": "dice_cross_entropy",
    "dicefocalloss": "dice_focal",
    "diceloss": "dice",
    "distanceboxiouloss": "diou",
    "focalloss": "focal",
    "gceloss": "generalized_cross_entropy",
    "gdloss": "gwd",
    "generalizedboxiouloss": "giou",
    "generalizeddiceloss": "generalized_dice",
    "hausdorffdtloss": "hausdorff_dt",
    "hungarianmatcher": "detection.match_hungarian",
    "iouloss": "iou",
    "jaccardloss": "jaccard",
    "jsdcrossentropy": "js_divergence",
    "keypointloss": "keypoint_similarity",
    "kfloss": "kfiou",
    "kldiv": "kl_divergence",
    "kldivloss": "kl_divergence",
    "knowledgedistillationkldivloss": "distillation",
    "l1loss": "l1",
    "labelsmoothing": "smooth_labels",
    "labelsmoothingcrossentropy": "cross_entropy",
    "lovaszloss": "lovasz_softmax",
    "mae": "l1",
    "meanabsoluteerror": "l1",
    "meansquarederror": "l2",
    "memoryefficientsoftdiceloss": "dice",
    "mse": "l2",
    "mseloss": "l2",
    "multipleoutputloss2": "deep_supervision",
    "nllloss": "nll",
    "ohemceloss": "top_k_cross_entropy",
    "ohemcrossentropy": "top_k_cross_entropy",
    "oks": "keypoint_similarity",
    "oksloss": "keypoint_similarity",
    "polycrossentropy": "poly1",
    "sceloss": "symmetric_cross_entropy",
    "setcriterion": "detection.detr",
    "silog": "scale_invariant_log",
    "silogloss": "scale_invariant_log",
    "smoothl1loss": "smooth_l1",
    "softbcewithlogitsloss": "binary_cross_entropy",
    "softcldiceloss": "cldice",
    "softdiceloss": "dice",
    "softtargetcrossentropy": "cross_entropy",
    "sparsecategoricalcrossentropy": "cross_entropy",
    "ssimloss": "ssim",
    "structuralsimilarityindexmeasure": "ssim",
    "subcenterarcfaceloss": "arcface",
    "topkloss": "top_k_cross_entropy",
    "tverskyloss": "tversky",
    "v8detectionloss": "detection.yolo_v8",
    "v8obbloss": "detection.yolo_v8_rotated",
}


def __dir__() -> list[str]:
    return [*__all__, *_MODULES, "Report", "__version__"]


if not TYPE_CHECKING:  # a type checker would accept any name

    def __getattr__(name: str) -> NoReturn:
        plain = name.replace("_", "").lower()
        homes = [m for m in (detection, distance, geometry, optax_compat) if name in m.__all__]
        near = [f"{homes[0].__name__.removeprefix('jaxloss.')}.{name}"] if homes else []
        near += [_OTHER_NAMES[plain]] if plain in _OTHER_NAMES else []
        near += difflib.get_close_matches(plain.removesuffix("loss"), __all__, 1, cutoff=0.75)
        hint = f"; did you mean jaxloss.{near[0]}?" if near and not name.startswith("__") else ""
        raise AttributeError(f"jaxloss has no {name!r}{hint}")
