"""Every loss on the samples of its case: sound, and with a NaN."""

import functools
import inspect

import numpy as np
import pytest

import jaxloss
from tests.registry import collect
from tests.validation.arrays import NAN, compiled, put

LOSSES = [
    name
    for name in jaxloss.__all__
    if "reduction" in inspect.signature(getattr(jaxloss, name)).parameters
    and name in collect()  # the tests of others stand beside them
]

pytestmark = pytest.mark.xdist_group("validate")  # they share compiled programs


@functools.cache
def _samples(every):
    rows = {}
    for name, case in collect().items():
        for sample in case.samples if every else case.samples[:1]:
            target = sample.target.astype(np.int32) if sample.has_ids else sample.target
            rows[name, sample.name] = (name, (sample.prediction, target), sample.options)
    return rows


@functools.cache
def _program():
    return compiled(_samples(every=False))


@functools.cache
def _of_samples():
    return _program()(lambda arrays: arrays)


@functools.cache
def _of_broken_samples():
    def broken(arrays):
        return {
            key: ((put(args[0], (-1,) * args[0].ndim, NAN), *args[1:]), options)
            for key, (args, options) in arrays.items()
        }

    return _program()(broken)


def _of_name(reports, name):
    return next(report for (loss, _), report in reports.items() if loss == name)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_nothing_is_found_in_sound_data(name):
    report = _of_name(_of_samples(), name)
    lines = str(report).splitlines()
    assert (report.ok, lines[0]) == (True, f"jaxloss.{name}: all values are sound")
    assert len(lines) == 1 or name == "nll"  # whose samples are no logarithms, which gets a hint


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_a_nan_in_the_prediction_is_found(name):
    report = _of_name(_of_broken_samples(), name)
    first = report.findings[0]
    argument = next(iter(inspect.signature(getattr(jaxloss, name)).parameters))
    prediction = next(args[0] for loss, args, _ in _samples(False).values() if loss == name)
    assert (first.argument, first.count, report.count) == (argument, 1, 1)
    assert tuple(first.index + 1) == prediction.shape
    assert np.isnan(first.value)


@pytest.mark.slow
def test_nothing_is_found_in_any_sample():
    reports = compiled(_samples(every=True))(lambda arrays: arrays)
    assert not [key for key, report in reports.items() if not report.ok]
