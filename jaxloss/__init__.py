"""Loss functions of computer vision and segmentation as pure JAX functions.

Every loss is a top-level function, lower is better: `jaxloss.focal(logits, labels, gamma=2)`.
Distance transforms live in `jaxloss.distance`, Optax's names in `jaxloss.optax_compat`.
"""
import importlib, sys
__version__ = "0"
__all__ = []
_FAILED = {}
for _f in ("_boundary._hausdorff _boundary._penalized _boundary._shape _boundary._signed _boundary._surface _boundary._union "
  "_boxes._distances _boxes._focusing _boxes._gaussian _boxes._gaussian_overlap _boxes._overlap _boxes._robust _boxes._rotated _boxes._sides _boxes._variants "
  "_compound._combinators _compound._combo _compound._exp_log _compound._structural _compound._sums _compound._unified _compound._with_boundary "
  "_distribution._balanced _distribution._bi_tempered _distribution._class_weights _distribution._cross_entropy _distribution._dense_detection _distribution._divergence _distribution._focal _distribution._focal_variants _distribution._gradient_harmonizing _distribution._hard_examples _distribution._hinge _distribution._long_tail _distribution._margins _distribution._noise_robust "
  "_region._centreline _region._generalized _region._logarithms _region._lovasz _region._overlap _region._rates _region._ratios _region._structure _region._wasserstein "
  "_regression._errors _regression._likelihood _regression._robust distance geometry optax_compat _validate _report").split():
    try:
        _m = importlib.import_module("jaxloss." + _f)
        if _f.startswith("_") or _f=="distance":
            for _n in getattr(_m, "__all__", []):
                if _f != "distance" or _n.startswith("compute_edts"):
                    globals()[_n] = getattr(_m, _n); __all__.append(_n)
    except Exception as _e:
        _FAILED[_f] = repr(_e)
