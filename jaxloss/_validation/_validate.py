"""`validate`, and what options of numbers should hold."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxloss._core import checks
from jaxloss._validation._call import HEADS, LOSSES, Call, resolve, structure
from jaxloss._validation._data import read
from jaxloss._validation._heads import report_of_head
from jaxloss._validation._hints import hints
from jaxloss._validation._numbers import AT_LEAST_0, FINITE, POSITIVE, numbers
from jaxloss._validation._report import Report, look

Array = jax.Array


class _Rule(NamedTuple):
    """What an option of numbers should hold.

    Attributes:
      interval: Where the numbers lie.
      per_position: Whether there is one for each position, so that masks count.
      some: Whether one of them must be above 0.
    """

    interval: str
    per_position: bool = False
    some: bool = False


_RULES = {
    "bias": _Rule("[-inf, inf)"),  # -inf removes a class
    "class_counts": _Rule(AT_LEAST_0, some=True),
    "class_weights": _Rule(AT_LEAST_0),
    "counts": _Rule(AT_LEAST_0),
    "distance_map": _Rule(FINITE, per_position=True),
    "distances": _Rule(AT_LEAST_0),
    "kernel": _Rule(FINITE),
    "pos_weight": _Rule(AT_LEAST_0),
    "priors": _Rule(AT_LEAST_0, some=True),
    "variance": _Rule(POSITIVE, per_position=True),
    "weights": _Rule(AT_LEAST_0, per_position=True),
}
_OTHERWISE = {"ms_ssim": {"weights": _Rule(AT_LEAST_0, some=True)}}  # the powers of its scales


@checks.named
def validate(loss: str | Callable[..., Any], /, *args: Any, **options: Any) -> Report:
    """Checks the values that a call of a loss would read, and returns what it found as a pytree.

    `validate("focal", logits, labels, gamma=2)` looks at what `focal(logits, labels, gamma=2)`
    would read; the report leaves `jit`, `vmap`, `scan` or `shard_map` as any other result, and
    `report.throw()` raises on the host. What is expected:

    ==============================  ================================================================
    logits, log-probabilities       finite, or -inf for a class without target mass
    cosines                         the same, in `[-1, 1]` up to rounding
    probabilities                   in `[0, 1]`
    ids                             in `[0, C)`, or the `ignore_index`
    targets of the logits' shape    in `[0, 1]`; where classes compete, with a sum of 1 within 0.001
                                    (0.008 for bfloat16)
    regression                      finite; counts and rates of `poisson_nll` at least 0
    boxes                           finite, sizes at least 0
    of a head of `detection`        in valid slots: labels in `[0, C)`, boxes finite, with an area,
                                    inside the image (where the head knows its size)
    weights, class weights, counts  finite, at least 0
    variance, areas                 finite, above 0
    distance maps                   finite
    features, kernels, small logits finite; a bias may be -inf
    ==============================  ================================================================

    More lines of `str(report)` may be hints, which count as nothing bad: where every row of labels
    of the logits' shape adds up to 1 and no `activation` is given, so that a sigmoid scores each
    class by itself; where a softmax has one class; where an axis of images of three axes that is
    about as long as the other is taken for classes; where what looks like one image, as `vmap`
    leaves it, is taken for images of one row; where logits look like probabilities (rows add up
    to 1, or all lie in [0, 1]) and log-probabilities are above 0; where angles are beyond a full
    turn, depths are not above 0 and so left out, or all boxes of a head lie in [0, 1], as they are
    pixels.

    What `where` or `ignore_index` leaves out is not looked at. A weight of 0 hides nothing, here as
    in a loss. Shapes, dtypes, options and concrete hyper-parameters raise as they do in the loss,
    while tracing; a traced hyper-parameter out of its range makes the loss NaN and is not reported.

    On a CPU sound values cost one reduction of each array, and bad ones, a removed class included,
    one more; under `vmap` both. Under `shard_map` a report is that of one shard. With the loss's
    own `axis_name` its counts are global, and the first bad value is that of the first shard that
    has one, at its index in that shard.

    Args:
      loss: A loss of `jaxloss`, a head of `jaxloss.detection`, a `functools.partial` of one, a
        jitted one, or its name.
      args: The positional arguments of the loss.
      options: The options of the loss.

    Returns:
      A `jaxloss.Report`. `report.ok` is a boolean array, `report.count` the number of bad values;
      `report.findings` holds, for each check, count, first index and value.

    Raises:
      TypeError: If `loss` is no loss of `jaxloss`, or as the loss does.
      ValueError: If there is no loss of that name, or as the loss does.

    Example:
      >>> import jax, jax.numpy as jnp, jaxloss
      >>> logits, labels = jnp.zeros((2, 3, 21)), jnp.array([[0, 5, 20], [1, 255, 3]])
      >>> report = jax.jit(lambda *pair: jaxloss.validate("focal", *pair))(logits, labels)
      >>> print(report.ok, report.count)
      False 1
      >>> print(jaxloss.validate("focal", logits, labels, ignore_index=255).ok)
      True
      >>> report.throw()
      Traceback (most recent call last):
      ValueError: jaxloss.focal: `labels` is 255 at index (1, 1) (1 bad value), expected an id in
      [0, 21), or its number as `ignore_index`

    Reference:
      JAX's checkify, which carries errors out of compiled programs as values too:
      https://docs.jax.dev/en/latest/debugging/checkify_guide.html
    """
    name, args, options = resolve(loss, args, options)
    function = LOSSES[name]
    jax.eval_shape(lambda: function(*args, **options))  # raises what the loss raises
    bound = inspect.signature(function).bind(*args, **options)
    bound.apply_defaults()
    given = bound.arguments
    if name in HEADS:
        return report_of_head(name, given)
    call = structure(name, given)
    read = (call.prediction, call.target, "where", "areas", *_RULES)
    arrays = {key: jnp.asarray(given[key]) for key in read if given.get(key) is not None}
    return _report(arrays, call)


@functools.partial(jax.jit, static_argnames="call")
def _report(arrays: dict[str, Array], call: Call) -> Report:
    """Runs the checks of a call."""
    kept, of_data = read(call, arrays)
    findings = [look(check, call.axis_name, shared=False) for check in of_data]
    for name, rule in (_RULES | _OTHERWISE.get(call.function, {})).items():
        if name in arrays:
            x = arrays[name]
            of_option = numbers(name, x, kept.of(x) if rule.per_position else None, rule.interval)
            if rule.some:
                of_option += numbers(f"{name}.sum()", x.sum(), None, POSITIVE)
            shared = not rule.per_position
            findings += [look(check, call.axis_name, shared) for check in of_option]
    return Report(tuple(findings), tuple(hints(call, arrays, kept)), call.function)
