"""Ratios of overlap: Dice, Jaccard, Tversky."""

import jax
from jax.typing import ArrayLike

from jaxloss._core import checks, confusion
from jaxloss._core.reduction import AxisName

__all__ = ["dice", "jaccard", "tversky"]

Array = jax.Array


def dice(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    smooth: ArrayLike = 1.0,
    squared: bool | str = False,
    activation: str | None = "auto",
    axis: int | None = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    per_image: bool = True,
    include_background: bool = True,
    absent: str = "score",
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the soft Dice loss of each image and class.

    With probabilities `p` and targets `y`, sums over an image's valid pixels::

        Dice = 1 - (2 sum p y + smooth) / (sum p + sum y + smooth)

    `squared=True` is V-Net's form, `squared="counts"` nnU-Net's::

        1 - (2 sum p y + smooth) / (sum p^2 + sum y^2 + smooth)
        1 - (2 tp + smooth) / (2 tp + fp + fn + smooth)     tp = sum (p y)^2
                                     fp = sum (p (1-y))^2,  fn = sum ((1-p) y)^2

    It is computed as wrong over right plus wrong, so it is exactly 0 for a perfect prediction and
    never negative. `smooth` is added to `2 sum p y`, as in MONAI and nnU-Net; Optax adds it to half
    of that, so its `smooth=1` is `smooth=2` here. An image without the class scores
    `1 - smooth / (sum p + smooth)`; with `smooth=0` it costs 1, whatever the prediction. For soft
    targets only `squared=True` has its minimum at `p = y`.

    Args:
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
      smooth: Added to numerator and denominator, at least 0. Small values make the gradient of an
        image without the class large, about `1 / smooth` per pixel.
      squared: False, True (V-Net) or `"counts"` (nnU-Net's `square`).
      activation: `"auto"` (softmax for ids, sigmoid for labels of the logits' shape), `"softmax"`,
        `"sigmoid"`, or None where `logits` already are probabilities. One-hot labels that are
        meant to compete need `"softmax"`.
      axis: The class axis; any axis works (1 for NCHW). None: binary masks without a class axis,
        labels of the logits' shape. The first remaining axis is the image, the others its pixels.
      where: Boolean mask of the pixels, the rank of the ids (sigmoid: or of the logits) with each
        dimension equal or 1. What is False reaches neither value nor gradient, not even as NaN.
      weights: Factors of the pixels in every sum, shaped like `where`.
      ignore_index: The integer label of pixels to leave out.
      class_weights: The weights of the mean over classes, shape `[C]`; they are normalised.
      per_image: Whether each image is scored by itself; False pools the batch.
      include_background: Whether class 0 takes part in the mean; it always does in the softmax.
      absent: `"score"` scores a class that an image's target does not hold like any other;
        `"skip"` leaves it out of the mean.
      reduction: `"mean"` over the classes of an image that take part, then over images (0 if
        nothing is valid), `"sum"` or `"none"`.
      axis_name: Mesh axis over which the mean (the sums, if pooled) is taken globally inside
        `shard_map` or `pmap`.

    Returns:
      A scalar; with `reduction="none"` shape `[B, C]` (less the background), `[C]` if pooled, `[B]`
      for `axis=None`. float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match, there is no pixel axis, an axis or option does not exist,
        a number is out of its range, the background is excluded from a single class, or
        `ignore_index` comes with float labels.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> labels = jnp.array([[[0, 0, 1], [0, 1, 1]]])
      >>> logits = 4.0 * jnp.array([[[1.0, 1.0, -1.0], [1.0, -1.0, 1.0]]])
      >>> logits = jnp.stack([logits, -logits], axis=-1)
      >>> print(jaxloss.dice(logits, labels).round(4))
      0.146

    Reference:
      Milletari, Navab and Ahmadi. V-Net. 3DV 2016. https://arxiv.org/abs/1606.04797
      Drozdzal et al. The Importance of Skip Connections in Biomedical Image Segmentation. 2016.
      https://arxiv.org/abs/1608.04117
    """
    name = "dice"
    pixels = confusion.read(
        name,
        logits,
        labels,
        activation=activation,
        axis=axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
        per_image=per_image,
        axis_name=axis_name,
    )
    return dice_of(
        name,
        pixels,
        smooth,
        squared,
        reduction,
        include_background=include_background,
        absent=absent,
    )


def jaccard(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    smooth: ArrayLike = 1.0,
    activation: str | None = "auto",
    axis: int | None = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    per_image: bool = True,
    include_background: bool = True,
    absent: str = "score",
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the soft Jaccard (intersection over union) loss of each image and class.

    With probabilities `p` and targets `y`, sums over an image's valid pixels::

        I       = sum p y
        Jaccard = 1 - (I + smooth) / (sum p + sum y - I + smooth)

    It is computed as wrong over right plus wrong, so it is exactly 0 for a perfect prediction and
    never negative. An image without the class scores `1 - smooth / (sum p + smooth)`; with
    `smooth=0` it costs 1, whatever the prediction. MONAI's `smooth` counts half.

    Args:
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
      smooth: Added to intersection and union, at least 0.
      activation: `"auto"` (softmax for ids, sigmoid for labels of the logits' shape), `"softmax"`,
        `"sigmoid"`, or None where `logits` already are probabilities. One-hot labels that are
        meant to compete need `"softmax"`.
      axis: The class axis; any axis works (1 for NCHW). None: binary masks without a class axis,
        labels of the logits' shape. The first remaining axis is the image, the others its pixels.
      where: Boolean mask of the pixels, the rank of the ids (sigmoid: or of the logits) with each
        dimension equal or 1. What is False reaches neither value nor gradient, not even as NaN.
      weights: Factors of the pixels in every sum, shaped like `where`.
      ignore_index: The integer label of pixels to leave out.
      class_weights: The weights of the mean over classes, shape `[C]`; they are normalised.
      per_image: Whether each image is scored by itself; False pools the batch.
      include_background: Whether class 0 takes part in the mean; it always does in the softmax.
      absent: `"score"` scores a class that an image's target does not hold like any other;
        `"skip"` leaves it out of the mean.
      reduction: `"mean"` over the classes of an image that take part, then over images (0 if
        nothing is valid), `"sum"` or `"none"`.
      axis_name: Mesh axis over which the mean (the sums, if pooled) is taken globally inside
        `shard_map` or `pmap`.

    Returns:
      A scalar; with `reduction="none"` shape `[B, C]` (less the background), `[C]` if pooled, `[B]`
      for `axis=None`. float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match, there is no pixel axis, an axis or option does not exist,
        a number is out of its range, the background is excluded from a single class, or
        `ignore_index` comes with float labels.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> p, y = jnp.array([[0.9, 0.8, 0.1]]), jnp.array([[1.0, 1.0, 0.0]])
      >>> print(jaxloss.jaccard(p, y, axis=None, activation=None, smooth=0).round(4))
      0.1905

    Reference:
      Rahman and Wang. Optimizing Intersection-Over-Union in Deep Neural Networks for Image
      Segmentation. ISVC 2016.
    """
    name = "jaccard"
    pixels = confusion.read(
        name,
        logits,
        labels,
        activation=activation,
        axis=axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
        per_image=per_image,
        axis_name=axis_name,
    )
    smooth = checks.number(name, "smooth", smooth, pixels.p.dtype, "[0, inf)")

    def loss(counts: confusion.Confusion, smooth: Array) -> Array:
        return confusion.complement(counts.fp + counts.fn, counts.tp + smooth)

    return confusion.score(
        name,
        loss,
        pixels,
        reduction,
        smooth,
        include_background=include_background,
        absent=absent,
    )


def tversky(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: ArrayLike = 0.5,
    beta: ArrayLike = 0.5,
    smooth: ArrayLike = 1.0,
    activation: str | None = "auto",
    axis: int | None = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_weights: ArrayLike | None = None,
    per_image: bool = True,
    include_background: bool = True,
    absent: str = "score",
    reduction: str = "mean",
    axis_name: AxisName | None = None,
) -> Array:
    """Computes the Tversky loss of each image and class: Dice with a price for each kind of error.

    With soft counts over an image's valid pixels::

        tp = sum p y    fp = sum p (1 - y)    fn = sum (1 - p) y
        Tversky = 1 - (tp + smooth) / (tp + alpha fp + beta fn + smooth)

    `alpha=beta=0.5` is Dice with twice the `smooth`, `alpha=beta=1` is Jaccard. A larger `beta`
    than `alpha` favours recall. `alpha` is the price of false positives, as in the paper; Abraham
    and Khan, and code that follows them, exchange the letters.

    It is computed as wrong over right plus wrong, so it is exactly 0 for a perfect prediction and
    never negative. With `smooth=0` an image without the class costs 1.

    Args:
      logits: Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.
      labels: Integer ids, shape `[B, ...]`, or labels of the logits' shape: float, boolean, or
        integer 0 and 1. An id outside `[0, C)` that is not ignored makes its image's loss and
        gradient NaN.
      alpha: Price of false positives, at least 0.
      beta: Price of false negatives, at least 0. The paper's best are 0.3 and 0.7.
      smooth: Added to numerator and denominator, at least 0.
      activation: `"auto"` (softmax for ids, sigmoid for labels of the logits' shape), `"softmax"`,
        `"sigmoid"`, or None where `logits` already are probabilities. One-hot labels that are
        meant to compete need `"softmax"`.
      axis: The class axis; any axis works (1 for NCHW). None: binary masks without a class axis,
        labels of the logits' shape. The first remaining axis is the image, the others its pixels.
      where: Boolean mask of the pixels, the rank of the ids (sigmoid: or of the logits) with each
        dimension equal or 1. What is False reaches neither value nor gradient, not even as NaN.
      weights: Factors of the pixels in every sum, shaped like `where`.
      ignore_index: The integer label of pixels to leave out.
      class_weights: The weights of the mean over classes, shape `[C]`; they are normalised.
      per_image: Whether each image is scored by itself; False pools the batch.
      include_background: Whether class 0 takes part in the mean; it always does in the softmax.
      absent: `"score"` scores a class that an image's target does not hold like any other;
        `"skip"` leaves it out of the mean.
      reduction: `"mean"` over the classes of an image that take part, then over images (0 if
        nothing is valid), `"sum"` or `"none"`.
      axis_name: Mesh axis over which the mean (the sums, if pooled) is taken globally inside
        `shard_map` or `pmap`.

    Returns:
      A scalar; with `reduction="none"` shape `[B, C]` (less the background), `[C]` if pooled, `[B]`
      for `axis=None`. float32 for half-precision input.

    Raises:
      TypeError: If `logits` is not floating or `where` not boolean.
      ValueError: If shapes do not match, there is no pixel axis, an axis or option does not exist,
        a number is out of its range, the background is excluded from a single class, or
        `ignore_index` comes with float labels.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> p, y = jnp.array([[0.9, 0.2, 0.1]]), jnp.array([[1.0, 1.0, 0.0]])
      >>> print(jaxloss.tversky(p, y, alpha=0.3, beta=0.7, axis=None, activation=None).round(4))
      0.2391

    Reference:
      Salehi, Erdogmus and Gholipour. Tversky Loss Function for Image Segmentation Using 3D Fully
      Convolutional Deep Networks. MLMI 2017. https://arxiv.org/abs/1706.05721
    """
    name = "tversky"
    pixels = confusion.read(
        name,
        logits,
        labels,
        activation=activation,
        axis=axis,
        where=where,
        weights=weights,
        ignore_index=ignore_index,
        class_weights=class_weights,
        per_image=per_image,
        axis_name=axis_name,
    )
    dtype = pixels.p.dtype
    alpha = checks.number(name, "alpha", alpha, dtype, "[0, inf)")
    beta = checks.number(name, "beta", beta, dtype, "[0, inf)")
    smooth = checks.number(name, "smooth", smooth, dtype, "[0, inf)")

    def loss(counts: confusion.Confusion, alpha: Array, beta: Array, smooth: Array) -> Array:
        return confusion.complement(alpha * counts.fp + beta * counts.fn, counts.tp + smooth)

    return confusion.score(
        name,
        loss,
        pixels,
        reduction,
        alpha,
        beta,
        smooth,
        include_background=include_background,
        absent=absent,
    )


def dice_of(
    function: str,
    pixels: confusion.Pixels,
    smooth: ArrayLike,
    squared: bool | str,
    reduction: str,
    *,
    include_background: bool | None,
    absent: str,
    beside: confusion.Beside | None = None,
) -> Array:
    """Returns the reduced Dice loss, and what is to be added to it."""
    smooth = checks.number(function, "smooth", smooth, pixels.p.dtype, "[0, inf)")
    checks.option(function, "squared", squared, (False, True, "counts"))

    def plain(counts: confusion.Confusion, smooth: Array) -> Array:
        return confusion.complement(counts.fp + counts.fn, 2 * counts.tp + smooth)

    def of_errors(counts: confusion.Confusion, smooth: Array) -> Array:
        return confusion.complement(counts.more[0], 2 * counts.tp + smooth)

    def of_squares(counts: confusion.Confusion, smooth: Array) -> Array:
        tp, fp, fn = counts.more
        return confusion.complement(fp + fn, 2 * tp + smooth)

    loss, more = {
        False: (plain, None),
        True: (of_errors, lambda p, y: ((p - y) ** 2,)),
        "counts": (
            of_squares,
            lambda p, y: ((p * y) ** 2, (p * (1 - y)) ** 2, ((1 - p) * y) ** 2),
        ),
    }[squared]
    return confusion.score(
        function,
        loss,
        pixels,
        reduction,
        smooth,
        more=more,
        include_background=include_background,
        absent=absent,
        beside=beside,
    )
