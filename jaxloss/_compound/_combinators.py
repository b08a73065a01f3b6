"""Combinators: weighted sums of losses, deep supervision and learned weights."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxloss._core import checks, numerics

__all__ = ["deep_supervision", "uncertainty_weighted", "weighted_sum"]

Array = jax.Array
Loss = Callable[..., Any]
Weight = ArrayLike | Callable[[Any], Any]


@checks.named
def weighted_sum(terms: Mapping[str, tuple[Weight, Loss]]) -> Loss:
    """Makes one loss of several, each with a name and a weight.

    The result is called as `f(logits, labels, *, step=None, weights=None, **options)` and returns
    the sum and its unweighted parts by name::

        total = sum_k weight_k loss_k(logits, labels, **options)
        parts = {name_k: loss_k}

    which is what `jax.value_and_grad(f, has_aux=True)` expects. A weight is a number, which may be
    traced, or a schedule: a function of `step`, such as those of Optax. `weights` replaces weights
    by name for one call, so that they can be optimised or annealed without another compilation.
    The options go to every loss; what only one of them takes is bound with `functools.partial`, and
    so are the weights of pixels. A term of weight 0 and infinite value adds 0.

    Args:
      terms: For each name the weight and the loss, a function of two arguments and options that
        returns a scalar.

    Returns:
      The function, whose value is `(total, parts)`.

    Raises:
      TypeError: If `terms` (or, when called, `weights`) is not a mapping, or a loss not callable.
      ValueError: If there is no term or a term no pair; when called, if a name in `weights` does
        not exist, a schedule gets no `step`, or a loss or a weight is not a scalar.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> loss = jaxloss.weighted_sum({
      ...     "dice": (1.0, jaxloss.dice),
      ...     "boundary": (lambda step: 0.01 * step, jaxloss.boundary),
      ... })
      >>> logits = jnp.array([[[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]]])
      >>> total, parts = loss(logits, jnp.array([[0, 0, 1]]), step=10)
      >>> print(total.round(4), {name: part.round(4).item() for name, part in parts.items()})
      0.1059 {'dice': 0.094, 'boundary': 0.1192}

    Reference:
      Ma et al. Loss Odyssey in Medical Image Segmentation. Medical Image Analysis 2021.
      https://doi.org/10.1016/j.media.2021.102035
    """
    terms = _checked_terms(terms)

    @functools.partial(checks.named, name="weighted_sum")
    def total(
        logits: Any,
        labels: Any,
        *,
        step: ArrayLike | None = None,
        weights: Mapping[str, Weight] | None = None,
        **options: Any,
    ) -> tuple[Array, dict[str, Array]]:
        """Returns the weighted sum, and the unweighted losses by name."""
        replaced = _checked_weights(weights, terms)
        parts, weighted = {}, []
        for term, (own, loss) in terms.items():
            value = loss(logits, labels, **options)
            parts[term] = value = _scalar(f"the loss of {term!r}", value)
            weight = replaced.get(term, own)
            if callable(weight):
                if step is None:
                    checks.fail(ValueError, "step", None, f"the step of weight {term!r}")
                weight = weight(step)
            argument = f"the weight of {term!r}"
            factor = checks.number(argument, weight, value.dtype, "(-inf, inf)")
            weighted.append(numerics.product(_scalar(argument, factor), value))
        return sum(weighted[1:], weighted[0]), parts

    return total


@checks.named
def deep_supervision(loss: Loss, weights: Sequence[ArrayLike] | Array) -> Loss:
    """Makes a loss of several outputs of falling resolution, each held against the labels.

    The result is called as `f(outputs, labels, *, where=None, weights=None, **options)`, with the
    options of the loss, and returns::

        sum_i weights_i loss(outputs_i, labels resized to outputs_i)

    Labels, `where` and `weights` (those of pixels) are resized by nearest neighbour to the spatial
    size of each output. Pixel `j` of `m` takes the label of pixel `floor((j + 1/2) n / m)` of `n`,
    the one under its centre, in exact integer arithmetic: the rule of PyTorch's `nearest-exact`
    and of nnU-Net's label pyramids. Ids stay ids; soft labels are picked, not averaged. Batch and
    class axes are never resized, and a dimension of 1 of a mask stays 1.

    A list or tuple of arrays in place of labels, `where` or `weights` has one for each output, as
    nnU-Net's loader gives them; they are resized only where their sizes differ.

    The weights are used as they are; nnU-Net's are `2^-i`, the last 0, divided by their sum. A loss
    with parts, such as that of :func:`jaxloss.weighted_sum`, gives the weighted sums of all parts.

    Args:
      loss: A function of one output, labels and options. The class axis is the option `axis` of the
        call, else what the signature of `loss` says (`functools.partial(loss, axis=1)` counts). A
        loss of regression has none: there `axis` is that of the channels, or None, and tells only
        what is not resized.
      weights: One number for each output; they may be traced.

    Returns:
      The function, whose value has the form of the loss's.

    Raises:
      TypeError: If `loss` is not callable.
      ValueError: If `weights` does not hold one number or more in one axis; when called, if the
        number of outputs differs, they have not as many classes each, the class axis is not
        known, or ranks do not match.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> loss = jaxloss.deep_supervision(jaxloss.dice_cross_entropy, [2 / 3, 1 / 3])
      >>> labels = jnp.array([[0, 0, 1, 1]])
      >>> fine, coarse = jnp.zeros((1, 4, 2)), jnp.array([[[2.0, 0.0], [0.0, 2.0]]])
      >>> print(loss([fine, coarse], labels).round(4))
      0.7976

    Reference:
      Lee, Xie, Gallagher, Zhang and Tu. Deeply-Supervised Nets. AISTATS 2015.
      https://arxiv.org/abs/1409.5185
      Isensee et al. nnU-Net: a Self-Configuring Method for Deep Learning-Based Biomedical Image
      Segmentation. Nature Methods 2021. https://arxiv.org/abs/1809.10486
    """
    if not callable(loss):
        checks.fail(TypeError, "loss", repr(loss), "a loss function")
    if not isinstance(weights, Sequence) and np.ndim(weights) != 1 or not len(weights):
        checks.fail(ValueError, "weights", repr(weights), "one number or more")
    factors = list(weights)

    @functools.partial(checks.named, name="deep_supervision")
    def total(
        outputs: Sequence[ArrayLike],
        labels: ArrayLike | Sequence[Array],
        *,
        where: ArrayLike | Sequence[Array] | None = None,
        weights: ArrayLike | Sequence[Array] | None = None,
        **options: Any,
    ) -> Any:
        """Returns the weighted sum of the loss over the outputs."""
        if not isinstance(outputs, (list, tuple)):
            got = f"of type {type(outputs).__name__}"
            checks.fail(TypeError, "outputs", got, "a list of arrays, one for each weight")
        if len(outputs) != len(factors):
            got, expected = f"{len(outputs)} arrays", f"{len(factors)}, one for each weight"
            checks.fail(ValueError, "outputs", got, expected)
        class_axis = options["axis"] if "axis" in options else _axis_of(loss)
        if not _takes_axis(loss):
            options.pop("axis", None)
        arrays = [jnp.asarray(output) for output in outputs]
        axes = _class_axes(arrays, class_axis)
        given = {"labels": labels, "where": where, "weights": weights}
        pyramids = {
            key: _of_each(key, value, len(arrays))
            for key, value in given.items()
            if value is not None
        }
        values = []
        for i, (output, axis) in enumerate(zip(arrays, axes, strict=True)):
            resized = {
                key: _resized(key, pyramid[i], output.shape, axis)
                for key, pyramid in pyramids.items()
            }
            values.append(loss(output, resized.pop("labels"), **resized, **options))
        return jax.tree.map(lambda *each: _blend(factors, each), *values)

    return total


@checks.named
def uncertainty_weighted(
    losses: Mapping[str, ArrayLike] | Sequence[ArrayLike] | Array,
    log_variances: Mapping[str, ArrayLike] | Sequence[ArrayLike] | Array,
) -> Array:
    """Computes the sum of task losses weighted by learned uncertainties.

    With a trainable number `s_k` for each loss `L_k`, the logarithm of its task's variance::

        sum_k 1/2 (exp(-s_k) L_k + s_k)

    Its minimum over `s_k` is at `log L_k`: each loss is divided by its own size. The paper gives
    classification losses twice this weight; here all are alike, which moves the best `s_k` by
    `log 2` and changes nothing else. Initialise with 0 and let the optimiser train `s`.

    Args:
      losses: Scalars by name, or a sequence or an array of one axis.
      log_variances: `s`, in the same form.

    Returns:
      A scalar, which may be negative; float32 for half-precision input.

    Raises:
      TypeError: If a loss is not floating, or one argument has names and the other not.
      ValueError: If names or numbers differ, there is no loss, or one is not a scalar.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> losses = {"segmentation": 0.5, "depth": 4.0}
      >>> log_variances = {"segmentation": jnp.log(0.5), "depth": jnp.log(4.0)}
      >>> print(jaxloss.uncertainty_weighted(losses, log_variances).round(4))
      1.3466

    Reference:
      Kendall, Gal and Cipolla. Multi-Task Learning Using Uncertainty to Weigh Losses for Scene
      Geometry and Semantics. CVPR 2018. https://arxiv.org/abs/1705.07115
    """
    named = isinstance(losses, Mapping)
    if named != isinstance(log_variances, Mapping):
        got = f"of type {type(log_variances).__name__}"
        checks.fail(TypeError, "log_variances", got, "of the form of `losses`")
    keys, others = (_keys(*each) for each in (("losses", losses), ("log_variances", log_variances)))
    if keys != others:
        checks.fail(ValueError, "log_variances", f"for {others}", f"those of `losses`: {keys}")
    terms = []
    for key in keys:
        value = checks.floating("losses", losses[key])
        value = _scalar(f"losses[{key!r}]", value.astype(checks.compute_dtype(value)))
        s = checks.real("log_variances", log_variances[key], value.dtype)
        # Half of the exponent at a time: a small loss over a tiny variance need not overflow.
        largest = float(np.log(jnp.finfo(s.dtype).max)) - 1
        half = jnp.exp(jnp.minimum(-_scalar(f"log_variances[{key!r}]", s) / 2, largest))
        terms.append((half * (half * value) + s) / 2)
    return sum(terms[1:], terms[0])


def _checked_terms(terms: Any) -> dict[str, tuple[Weight, Loss]]:
    """Requires a mapping of names to pairs of a weight and a loss; copies it."""
    if not isinstance(terms, Mapping):
        got = f"of type {type(terms).__name__}"
        checks.fail(TypeError, "terms", got, "a mapping of names to (weight, loss)")
    if not terms:
        checks.fail(ValueError, "terms", "empty", "at least one name with (weight, loss)")
    for term, pair in terms.items():
        if not isinstance(pair, Sequence) or len(pair) != 2:
            checks.fail(ValueError, f"terms[{term!r}]", repr(pair), "a pair (weight, loss)")
        if not callable(pair[1]):
            checks.fail(TypeError, f"terms[{term!r}][1]", repr(pair[1]), "a loss function")
    return dict(terms)


def _checked_weights(
    weights: Mapping[str, Weight] | None, terms: Mapping[str, Any]
) -> Mapping[str, Weight]:
    """Requires weights of terms that exist."""
    if weights is None:
        return {}
    if not isinstance(weights, Mapping):
        got = f"of type {type(weights).__name__}"
        checks.fail(TypeError, "weights", got, "a mapping of names to weights")
    unknown = sorted(set(weights) - set(terms))
    if unknown:
        checks.fail(ValueError, "weights", unknown, f"names among {sorted(terms)}")
    return weights


def _keys(argument: str, values: Any) -> list[Any]:
    """Returns the sorted names of a mapping, or the indices of a sequence."""
    if not isinstance(values, (Mapping, Sequence)) and np.ndim(values) == 0:
        checks.fail(ValueError, argument, repr(values), "a mapping or a sequence")
    keys = sorted(values) if isinstance(values, Mapping) else list(range(len(values)))
    if not keys:
        checks.fail(ValueError, argument, "empty", "one number or more")
    return keys


def _scalar(argument: str, value: Any) -> Array:
    """Requires an array without axes."""
    if isinstance(value, (tuple, list, Mapping)):
        got = f"of type {type(value).__name__}"
        checks.fail(ValueError, argument, got, "a scalar")
    array = jnp.asarray(value)
    checks.shape(argument, array, (), "a scalar")
    return array


def _blend(weights: Sequence[Any], values: Sequence[Array]) -> Array:
    """Returns the weighted sum of one leaf over all outputs."""
    terms = []
    for weight, value in zip(weights, values, strict=True):
        factor = checks.number("weights", weight, value.dtype, "(-inf, inf)")
        terms.append(numerics.product(_scalar("weights", factor), value))
    return sum(terms[1:], terms[0])


def _axis_of(loss: Loss) -> Any:
    """Returns the class axis that the signature of a loss says it has."""
    parameter = inspect.signature(loss).parameters.get("axis")
    if parameter is None or parameter.default is parameter.empty:
        expected = "the class axis (or that of channels, or None): the loss's signature has none"
        checks.fail(ValueError, "axis", "not given", expected)
    return parameter.default


def _takes_axis(loss: Loss) -> bool:
    """Whether a loss has an option `axis`, as far as its signature tells."""
    parameters = inspect.signature(loss).parameters
    return "axis" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _class_axes(outputs: Sequence[Array], axis: int | None) -> list[int | None]:
    """Requires as many classes in each output; returns the class axis of each."""
    if axis is None:
        return [None] * len(outputs)
    axes = [checks.axis(axis, output.ndim) for output in outputs]
    sizes = [output.shape[i] for output, i in zip(outputs, axes, strict=True)]
    if len(set(sizes)) > 1:
        shapes = [output.shape for output in outputs]
        alike = [i for i, each in enumerate(zip(*shapes, strict=False)) if len(set(each)) == 1]
        advice = f"; did you mean axis={alike[1]}?" if len(alike) > 1 else ""
        expected = f"as many classes along axis {axis} in each{advice}"
        checks.fail(ValueError, "outputs", f"of shapes {shapes}", expected)
    return list(axes)


def _of_each(argument: str, value: Any, count: int) -> Sequence[Any]:
    """Returns an array for each output: those of a list of arrays, else the same for all."""
    is_array = lambda each: isinstance(each, (Array, np.ndarray)) and each.ndim
    if not isinstance(value, (list, tuple)) or not all(map(is_array, value)):
        return [value] * count
    if len(value) != count:
        expected = f"an array, or {count}, one for each output"
        checks.fail(ValueError, argument, f"{len(value)} arrays", expected)
    return value


def _resized(argument: str, value: ArrayLike, shape: tuple[int, ...], axis: int | None) -> Array:
    """Resizes the spatial axes of labels or of a mask by nearest neighbour, to those of `shape`."""
    array = jnp.asarray(value)
    image = 1 if axis == 0 else 0
    kept = {axis, image}
    if axis is not None and array.ndim == len(shape) - 1:
        shape = checks.without(shape, axis)
        kept = {0}
    if array.ndim != len(shape):
        expected = f"the rank of an output of shape {shape}, with or without the class axis"
        checks.fail(ValueError, argument, f"of shape {array.shape}", expected)
    for i, (n, m) in enumerate(zip(array.shape, shape, strict=True)):
        broadcasts = n == 1 and argument != "labels"
        if n == m or broadcasts or i in kept:
            continue
        if m and n % m == 0:
            stride = n // m
            array = jax.lax.slice_in_dim(array, stride // 2, n, stride, i)
        else:
            array = jnp.take(array, (2 * np.arange(m) + 1) * n // (2 * m), i, mode="clip")
    return array
