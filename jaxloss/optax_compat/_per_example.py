"""Any loss of jaxloss, one value for each example."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxloss._core import checks

__all__ = ["per_example"]

Array = jax.Array

# What holds one entry for each example, beside the prediction and its target.
_DATA = ("areas", "distance_map", "skeleton", "variance", "weights", "where")


@checks.named
def per_example(loss: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a loss Optax's convention: no reduction over the batch.

    The result is called like the loss. With `B` examples it returns `B` values, each that of the
    loss on a batch of this one example, with the loss's own mean over its positions, classes and
    weights::

        per_example(loss)(logits, labels, where=mask)[b]
            = loss(logits[b:b+1], labels[b:b+1], where=mask[b:b+1])

    The batch is the first axis, or the second where the class axis is the first. `where`,
    `weights`, `distance_map` and the third argument of `gaussian_nll`, `keypoint_similarity` and
    `skeleton_recall` are cut in the same way (unless their size there is 1, or they are one
    number); all other options and arguments are those of every example, as the `weights` of
    `ms_ssim` are, which are of its scales. An example in which nothing is valid costs 0. The mean
    of the values is the loss of the batch where all examples weigh the same; pooled losses
    (`per_image=False`) and those that choose among positions (`top_k_cross_entropy`) see one
    example at a time.

    It works for every loss that has no state, and for what `jaxloss.weighted_sum` and
    `jaxloss.deep_supervision` make: each array that they return gets the batch axis in front.

    Args:
      loss: A loss of jaxloss, or a function of the same form. The class axis is the option `axis`
        of the call, else what the signature says (`functools.partial(loss, axis=1)` counts); None
        where there is none.

    Returns:
      The function. It takes `reduction="mean"` (within the example) and `"sum"`, and no
      `axis_name`: reduce its values as you like.

    Raises:
      TypeError: If `loss` is not callable.
      ValueError: When called, if there is no batch axis beside the class axis, the arrays differ in
        its size, or `reduction="none"` or `axis_name` is given.

    Example:
      >>> import jax.numpy as jnp, jaxloss
      >>> from jaxloss import optax_compat as losses
      >>> logits, labels = jnp.zeros((2, 3, 2)), jnp.array([[0, 0, 1], [1, 1, 1]])
      >>> mask = jnp.array([[True, True, False], [False, False, False]])
      >>> print(losses.per_example(jaxloss.cross_entropy)(logits, labels, where=mask).round(4))
      [0.6931 0.    ]
      >>> print(losses.per_example(jaxloss.dice)(logits, labels))
      [0.381  0.4364]
    """
    if not callable(loss):
        checks.fail(TypeError, "loss", repr(loss), "a loss function")
    parameters = inspect.signature(loss).parameters

    @functools.partial(checks.named, name="optax_compat.per_example")
    def of_examples(prediction: Any, target: Any, *more: Any, **options: Any) -> Any:
        """Returns the loss of each example."""
        checks.option("reduction", options.get("reduction", "mean"), ("mean", "sum"))
        if options.get("axis_name") is not None:
            checks.fail(ValueError, "axis_name", repr(options["axis_name"]), "None")
        prediction = jax.tree.map(jnp.asarray, prediction)
        leaf = jax.tree.leaves(prediction)[0]
        at = _batch_axis(leaf, options.get("axis", _default(parameters, "axis")))
        size = leaf.shape[at]
        extra = dict(zip(list(parameters)[2:], more, strict=False))

        def own(key: str, value: Any) -> bool:
            if key not in _DATA or value is None or isinstance(value, Mapping):
                return False
            return np.ndim(value) > 0 and not isinstance(_default(parameters, key), tuple)

        given = {**extra, **options}
        cut = {key: jnp.asarray(value) for key, value in given.items() if own(key, value)}
        tree = jax.tree.map(jnp.asarray, (prediction, target, cut))
        places = jax.tree.map(lambda x: at if x.ndim == leaf.ndim else 0, tree)
        examples = tuple(
            jax.tree.map(lambda x, i, s=shared: _examples(x, i, size, s), part, place)
            for part, place, shared in zip(tree, places, (False, False, True), strict=True)
        )

        def of_one(tree: Any) -> Any:
            prediction, target, cut = jax.tree.map(
                lambda x, i, e: x if e == _EVERY else jnp.expand_dims(x, i), tree, places, examples
            )
            rest = [cut.get(key, value) for key, value in extra.items()]
            given = {key: cut.get(key, value) for key, value in options.items()}
            return loss(prediction, target, *rest, **given)

        axes = jax.tree.map(lambda e: None if e == _EVERY else e, examples)
        return jax.vmap(of_one, in_axes=(axes,), axis_size=size)(tree)

    return of_examples


_EVERY = -1  # stands for an array of every example, as None is no leaf of a tree


def _examples(x: Array, axis: int, size: int, shared: bool) -> int:
    """The axis that holds the examples; one alone may be every example's."""
    got = x.shape[axis] if axis < x.ndim else None
    if got == size:
        return axis
    if got == 1 and shared:
        return _EVERY
    expected = f"{size} examples on axis {axis}, as the prediction has"
    checks.fail(ValueError, "an argument", f"of shape {x.shape}", expected)


def _default(parameters: Mapping[str, inspect.Parameter], name: str) -> Any:
    parameter = parameters.get(name)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


def _batch_axis(prediction: Array, class_axis: int | None) -> int:
    """The first axis that is not the class axis."""
    at = 0
    if class_axis is not None and prediction.ndim > 0:
        at = 1 if checks.axis(class_axis, prediction.ndim) == 0 else 0
    if prediction.ndim <= at:
        expected = "a batch axis beside the class axis (axis=None if there are no classes)"
        checks.fail(ValueError, "prediction", f"of shape {prediction.shape}", expected)
    return at
