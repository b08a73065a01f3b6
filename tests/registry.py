"""The case registry: for every public name what it is, what it should give, and where it may break.

A case lives in the test file of its family; the contract tests run over all of them.
"""

import importlib
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Sample(NamedTuple):
    """Arguments of one call.

    Attributes:
      name: Shown in the test's id.
      prediction: float64.
      target: Ids or float64.
      options: Keyword arguments, which the oracle understands too.
      positions: The shape of a full `where` mask.
      axis: The class axis of the prediction, if there is one.
      inner: How many trailing axes of the prediction are one position (boxes: 1).
    """

    name: str
    prediction: np.ndarray
    target: np.ndarray
    options: dict[str, Any]
    positions: tuple[int, ...]
    axis: int | None = None
    inner: int = 0

    @property
    def has_ids(self) -> bool:
        return self.target.dtype.kind == "i"


class Invalid(NamedTuple):
    """A call that must raise `error` with a message that matches all of `words`."""

    arguments: tuple[Any, ...]
    options: dict[str, Any]
    error: type[Exception]
    words: tuple[str, ...]


class Case(NamedTuple):
    """What the contract tests need to know of a loss.

    Attributes:
      oracle: `oracle(prediction, target, where, weights, class_weights, reduction, **options)`, in
        float64 NumPy, from the paper.
      samples: Ordinary calls, away from kinks.
      invalid: Calls that must raise.
      parameters: Numeric options with an inner value and a value out of range (None: none is).
      derivative: `"smooth"`, `"kinked"` (order 1 only) or `"detached"` (a factor is constant).
      temporary: Bound of the compiled program's temporary memory on a CPU, over the prediction's.
      gradient: For a detached loss, the oracle's gradient with respect to the prediction.
    """

    oracle: Callable[..., np.ndarray]
    samples: tuple[Sample, ...]
    invalid: tuple[Invalid, ...]
    parameters: dict[str, tuple[float, float | None]]
    derivative: str
    temporary: float
    gradient: Callable[..., np.ndarray] | None = None


class Helper(NamedTuple):
    """A public function that is no loss.

    Attributes:
      oracle: The same function in float64 NumPy; `None` where a test of its own says more.
      calls: Positional arguments and options of calls to compare.
      invalid: Calls that must raise.
    """

    oracle: Callable[..., Any] | None
    calls: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...]
    invalid: tuple[Invalid, ...]


SHAPE = (4, 3, 2, 3)


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def values(name: str = "values", seed: int = 0, **options: Any) -> Sample:
    """A regression of any shape."""
    prediction, target = _rng(seed).normal(size=(2, *SHAPE)) * 2
    return Sample(name, prediction, target, options, SHAPE)


def ids(name: str = "ids", seed: int = 0, axis: int = -1, **options: Any) -> Sample:
    """Logits and integer labels: classes compete."""
    rng = _rng(seed)
    logits, labels = rng.normal(size=SHAPE) * 2, rng.integers(0, SHAPE[-1], SHAPE[:-1])
    labels[:, 0, 0], labels[:, 0, 1], labels[:, 1, 0] = 0, 1, 2  # every image holds every class
    at = axis % len(SHAPE)
    return Sample(
        name,
        np.moveaxis(logits, -1, at),
        labels.astype(np.int32),
        options | {"axis": axis},
        SHAPE[:-1],
        at,
    )


def soft(name: str = "soft", seed: int = 0, **options: Any) -> Sample:
    """Logits and a distribution over the classes of each position."""
    rng = _rng(seed)
    labels = rng.dirichlet(np.ones(SHAPE[-1]), SHAPE[:-1])
    return Sample(name, rng.normal(size=SHAPE) * 2, labels, options, SHAPE[:-1], 3)


def elements(name: str = "elements", seed: int = 0, **options: Any) -> Sample:
    """Logits and a soft target for each of them."""
    rng = _rng(seed)
    return Sample(
        name, rng.normal(size=SHAPE) * 2, rng.uniform(0.05, 0.95, SHAPE), options, SHAPE, 3
    )


def binary(name: str = "binary", seed: int = 0, **options: Any) -> Sample:
    """Binary segmentation: no class axis, hard float targets."""
    rng = _rng(seed)
    shape = SHAPE[:-1]
    labels = (rng.random(shape) < 0.5).astype(float)
    labels[:, 0, 0], labels[:, 0, 1] = 0, 1
    return Sample(name, rng.normal(size=shape) * 2, labels, options | {"axis": None}, shape)


def probabilities(name: str = "probabilities", seed: int = 0, **options: Any) -> Sample:
    """Probabilities and a soft target for each of them."""
    rng = _rng(seed)
    p, y = rng.uniform(0.2, 0.8, (2, *SHAPE))
    return Sample(name, p, y, options | {"activation": None}, SHAPE, 3)


def box_pairs(name: str = "boxes", seed: int = 0, **options: Any) -> Sample:
    """Pairs of boxes that overlap, lie apart and contain one another, of unequal aspect."""
    rng = _rng(seed)

    def boxes() -> np.ndarray:
        corner, size = rng.uniform(0, 6, (8, 2)), rng.uniform(1, 5, (8, 2))
        return np.concatenate([corner, corner + size], -1)

    return Sample(name, boxes(), boxes(), options, (8,), inner=1)


def dense(sample_target: np.ndarray, prediction: np.ndarray, axis: int | None) -> np.ndarray:
    """Labels in the shape of the prediction: ids as one-hot."""
    if axis is None or sample_target.shape == prediction.shape:
        return sample_target.astype(float)
    classes = np.arange(prediction.shape[axis]).reshape(
        [-1 if i == axis % prediction.ndim else 1 for i in range(prediction.ndim)]
    )
    return (np.expand_dims(sample_target, axis) == classes).astype(float)


def reduced(
    values: np.ndarray,
    reduction: str,
    where: np.ndarray | None,
    weights: np.ndarray | None,
    normalizer: np.ndarray | float = 1.0,
) -> np.ndarray:
    """The reduction as `mean = sum(v l) / sum(v)`, in NumPy."""
    v = np.ones(values.shape)
    v = v if where is None else v * where
    v = v if weights is None else v * weights
    total = np.where(v != 0, v * values, 0)
    if reduction == "none":
        return total
    if reduction == "sum":
        return total.sum()
    count = (v * normalizer).sum()
    return total.sum() / count if count else np.float64(0)


def collect(kind: str = "CASES") -> dict[str, Any]:
    """The cases of all test files, or their `HELPERS`, by public name."""
    files = sorted(pathlib.Path(__file__).parent.glob("*/test_*.py"))
    modules = [importlib.import_module(f"tests.{file.parent.name}.{file.stem}") for file in files]
    return {name: case for module in modules for name, case in getattr(module, kind, {}).items()}
