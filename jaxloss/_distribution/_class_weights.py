"""Targets and class weights that are made before the loss: smoothing, and weights from counts."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxloss._core import checks, numerics, softmax
from jaxloss._core.reading import competing
from jaxloss.options import Number, Numbers

__all__ = [
    "effective_number_weights",
    "inverse_frequency_weights",
    "median_frequency_weights",
    "smooth_labels",
]

Array = jax.Array


@checks.named
def smooth_labels(
    labels: Numbers,
    label_smoothing: Number,
    *,
    num_classes: int | None = None,
    axis: int = -1,
) -> Array:
    """Moves a share of each target to all classes evenly.

    With `y` the one-hot or soft labels and `C` classes::

        t = (1 - label_smoothing) y + label_smoothing / C

    which is what the `label_smoothing` of the softmax losses does, and what PyTorch and Optax do.
    Trainers that spread a share `e` over the `C - 1` wrong classes have `e = label_smoothing (C -
    1) / C`. With class weights the losses' own `label_smoothing` is not the same as smoothed
    targets: the mean's denominator takes the targets before smoothing.

    Args:
      labels: Integer ids, shape `[...]`, with `num_classes`; or one-hot or soft labels, shape
        `[..., C]`. An id outside `[0, C)` gives NaN for its position.
      label_smoothing: The share that is spread evenly over all classes, in `[0, 1)`.
      num_classes: `C`, for integer ids; None: `labels` hold the class axis.
      axis: The class axis of the result.

    Returns:
      Targets of shape `[..., C]` (`C` at `axis`): JAX's default float for ids, float32 for half
      precision, else the dtype of `labels`.

    Raises:
      TypeError: If integer labels come without `num_classes`, or `num_classes` is no integer.
      ValueError: If `axis` does not exist, `num_classes` is below 2 or comes with float labels, or
        `label_smoothing` is out of its range.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> print(jaxloss.smooth_labels(jnp.array([0, 2]), 0.3, num_classes=3).round(4))
      [[0.8 0.1 0.1]
       [0.1 0.1 0.8]]

    Reference:
      Szegedy et al. Rethinking the Inception Architecture for Computer Vision. CVPR 2016,
      section 7. https://arxiv.org/abs/1512.00567
    """
    array = jnp.asarray(labels)
    dense = jnp.issubdtype(array.dtype, jnp.floating) or array.dtype == bool
    shape = array.shape
    if num_classes is not None:
        classes = checks.integer("num_classes", num_classes, 2)
        if dense:
            got = f"{num_classes} with labels of dtype {array.dtype}"
            checks.fail(ValueError, "num_classes", got, "None, or integer ids")
        at = checks.axis(axis, array.ndim + 1)
        shape = (*shape[:at], classes, *shape[at:])
    elif not dense:
        got = f"None with labels of dtype {array.dtype}"
        checks.fail(TypeError, "num_classes", got, "the number of classes of the ids")
    dtype = _dtype(array)
    checks.scalar("label_smoothing", label_smoothing)
    smoothing = checks.number("label_smoothing", label_smoothing, dtype, "[0, 1)")
    scores = jnp.zeros(shape, dtype)
    return softmax.smoothed(
        competing(scores, array, {"axis": axis}, prediction="labels"), smoothing
    )


@checks.named
def inverse_frequency_weights(counts: Numbers) -> Array:
    """Weighs each class by the inverse of its frequency.

    With `n_c` the counts, `N` their sum and `C` their number::

        w_c = N / (C n_c)

    so that the weighted counts of all classes are equal and, where no class is empty, sum to `N`.
    This is scikit-learn's `"balanced"`. A class without samples weighs 0.

    Args:
      counts: Samples or pixels of each class, shape `[C]`, at least 0 and not all 0.

    Returns:
      Weights of shape `[C]`: JAX's default float for integers, float32 for half precision, else the
      dtype of `counts`. NaN for counts out of range under `jit`.

    Raises:
      TypeError: If `counts` are boolean or complex.
      ValueError: If `counts` have not one axis, are negative or all 0.

    Example:
      >>> import jaxloss
      >>> print(jaxloss.inverse_frequency_weights([60, 30, 10]).round(4))
      [0.5556 1.1111 3.3333]

    Reference:
      King and Zeng. Logistic Regression in Rare Events Data. Political Analysis 2001.
    """
    totals = _counts(counts)
    return numerics.divide(totals.sum() / totals.size, totals)


@checks.named
def median_frequency_weights(counts: Numbers) -> Array:
    """Weighs each class by the median frequency over its own.

    With `n_c` the counts and the median taken over the classes that have any::

        w_c = median(n) / n_c

    so that the middle class weighs 1. The paper divides each count by the pixels of the images that
    hold the class: pass those frequencies as `counts`. A class without samples weighs 0.

    Args:
      counts: Samples, pixels or frequencies of each class, shape `[C]`, at least 0 and not all 0.

    Returns:
      Weights of shape `[C]`: JAX's default float for integers, float32 for half precision, else the
      dtype of `counts`. NaN for counts out of range under `jit`.

    Raises:
      TypeError: If `counts` are boolean or complex.
      ValueError: If `counts` have not one axis, are negative or all 0.

    Example:
      >>> import jaxloss
      >>> print(jaxloss.median_frequency_weights([60, 30, 10, 0]))
      [0.5 1.  3.  0. ]

    Reference:
      Eigen and Fergus. Predicting Depth, Surface Normals and Semantic Labels with a Common
      Multi-Scale Convolutional Architecture. ICCV 2015, section 6.3.2.
      https://arxiv.org/abs/1411.4734
    """
    totals = _counts(counts)
    ordered = jnp.sort(jnp.where(totals > 0, totals, jnp.inf))
    held = (totals > 0).sum()
    middle = (ordered[(held - 1) // 2] + ordered[held // 2]) / 2
    return numerics.divide(middle + 0 * totals.sum(), totals)


@checks.named
def effective_number_weights(counts: Numbers, *, beta: Number = 0.999) -> Array:
    """Weighs each class by the inverse of its effective number of samples.

    With `n_c` the counts::

        E_c = (1 - beta^n_c) / (1 - beta)
        w_c = (1 / E_c) C' / sum_k (1 / E_k)

    where `C'` is the number of classes with samples, over which the sum runs too. `beta=0` weighs
    them all 1, `beta=1` by inverse frequency; the authors use 0.9 to 0.9999. A class without
    samples weighs 0. Powers near 1 are taken without cancellation.

    Args:
      counts: Samples of each class, shape `[C]`, at least 0 and not all 0.
      beta: How far new samples keep adding information, in `[0, 1]`.

    Returns:
      Weights of shape `[C]`: JAX's default float for integers, float32 for half precision, else the
      dtype of `counts`. NaN for numbers out of range under `jit`.

    Raises:
      TypeError: If `counts` are boolean or complex.
      ValueError: If `counts` have not one axis, are negative or all 0, or `beta` is out of its
        range.

    Example:
      >>> import jaxloss
      >>> print(jaxloss.effective_number_weights([5000, 500, 50]).round(4))
      [0.1256 0.317  2.5574]

    Reference:
      Cui, Jia, Lin, Song and Belongie. Class-Balanced Loss Based on Effective Number of Samples.
      CVPR 2019, equations 2 and 4. https://arxiv.org/abs/1901.05555
    """
    totals = _counts(counts)
    checks.scalar("beta", beta)
    beta = checks.number("beta", beta, totals.dtype, "[0, 1]")
    inner = jnp.where((beta == 0) | (beta == 1), 0.5, beta)  # the ends are limits
    effective = -jnp.expm1(totals * jnp.log1p(inner - 1)) / (1 - inner)
    effective = jnp.where(beta == 1, totals, jnp.where(beta == 0, 1, effective))
    weights = jnp.where(totals == 0, 0, numerics.divide(jnp.ones_like(totals), effective))
    held = (totals != 0).sum().astype(totals.dtype)
    return weights * (held / weights.sum())


def class_totals(argument: str, value: Numbers, dtype: jnp.dtype) -> Array:
    """Reads counts or frequencies of classes: at least 0 and not all 0.

    Concrete numbers out of range raise; traced ones become NaN, all of them.
    """
    totals = checks.number(argument, value, dtype, "[0, inf)")
    checks.some_above_0(argument, value)
    return jnp.where((totals >= 0).all() & (totals > 0).any(), totals, jnp.nan)


def _counts(counts: Numbers) -> Array:
    array = jnp.asarray(counts)
    if array.ndim != 1:
        checks.fail(
            ValueError, "counts", f"of shape {array.shape}", "one axis: one number per class"
        )
    dtype = _dtype(array)
    checks.real("counts", array, dtype)
    return class_totals("counts", counts, dtype)


def _dtype(array: Array) -> jnp.dtype:
    """The dtype of results: JAX's default for integers, float32 for half precision."""
    if jnp.issubdtype(array.dtype, jnp.floating):
        return checks.compute_dtype(array)
    return jnp.zeros(()).dtype
