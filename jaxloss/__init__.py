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
from jaxloss._core.other_names import LOSSES
from jaxloss._distribution import *
from jaxloss._fused import *
from jaxloss._region import *
from jaxloss._regression import *
from jaxloss._validation import Report as Report
from jaxloss._validation import validate as validate
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


def __dir__() -> list[str]:
    return [*__all__, *_MODULES, "Report", "__version__"]


if not TYPE_CHECKING:  # a type checker would accept any name

    def __getattr__(name: str) -> NoReturn:
        plain = name.replace("_", "").lower()
        homes = [m for m in (detection, distance, geometry, optax_compat) if name in m.__all__]
        near = [f"{homes[0].__name__.removeprefix('jaxloss.')}.{name}"] if homes else []
        near += [LOSSES[plain]] if plain in LOSSES else []
        near += difflib.get_close_matches(plain.removesuffix("loss"), __all__, 1, cutoff=0.75)
        hint = f"; did you mean jaxloss.{near[0]}?" if near and not name.startswith("__") else ""
        raise AttributeError(f"jaxloss has no {name!r}{hint}")
