"""How `validate` is called: with names, functions and partials, and what it refuses."""

import doctest
import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

import jaxloss
from tests.registry import Helper
from tests.validation.arrays import IDS, NAN, UNIT, X

HELPERS = {"validate": Helper(None, (), ())}
ROOT = pathlib.Path(jaxloss.__file__).parent.parent


def test_throw_is_for_the_host():
    texts = []

    def run(*pair):
        report = jaxloss.validate("focal", *pair)
        texts.append(str(report))
        report.throw()

    with pytest.raises(TypeError, match=r"jaxloss.validate: `throw` is called while tracing, exp"):
        jax.eval_shape(run, X, IDS)
    assert texts == ["jaxloss.focal: not known while tracing"]


@pytest.mark.parametrize(
    "name, near",
    [
        ("focla", "'focal'"),
        ("crossentropy", "'cross_entropy'"),
        ("Dice", "'dice'"),
        ("smooth_labels", "expected the name of a loss"),
        ("?", "'cross_entropy' or 'dice'"),
    ],
)
def test_a_name_that_does_not_exist(name, near):
    with pytest.raises(
        ValueError, match=re.escape(f"jaxloss.validate: `loss` is {name!r}")
    ) as error:
        jaxloss.validate(name, X, IDS)
    assert near in str(error.value)


@pytest.mark.parametrize(
    "loss",
    [
        lambda logits, labels: 0.0,
        jaxloss.smooth_labels,
        jaxloss.weighted_sum({"dice": (1.0, jaxloss.dice)}),
        functools.partial(jnp.sum),
        3,
    ],
)
def test_what_is_no_loss_of_jaxloss(loss):
    with pytest.raises(
        TypeError, match=r"jaxloss.validate: `loss` is .*, expected a loss of jaxloss"
    ):
        jaxloss.validate(loss, X, IDS)


@pytest.mark.parametrize(
    "loss",
    [
        jaxloss.focal,
        functools.partial(jaxloss.focal, gamma=1.0),
        jax.jit(jaxloss.focal),
        jax.jit(functools.partial(jaxloss.focal, gamma=1.0), static_argnames="axis"),
    ],
)
def test_losses_given_as_functions(loss):
    assert str(jaxloss.validate(loss, X, IDS + 1)) == str(jaxloss.validate("focal", X, IDS + 1))


def test_options_of_a_partial_hold():
    ignoring = functools.partial(jaxloss.focal, ignore_index=4)
    assert jaxloss.validate(ignoring, X, IDS + 1).ok
    assert not jaxloss.validate(ignoring, X, IDS + 1, ignore_index=None).ok
    assert jaxloss.validate(functools.partial(jaxloss.focal, X), IDS).ok


@pytest.mark.parametrize(
    "call, options",
    [
        ((X, IDS[:1]), {}),
        ((X, IDS), {"gamma": -1.0}),
        ((X, IDS), {"weights": UNIT}),
        ((X, IDS), {"activation": "tanh"}),
        ((X, IDS), {"where": IDS}),
        ((X,), {}),
        ((X, IDS), {"bogus": 1}),
    ],
)
def test_structure_raises_as_in_the_loss(call, options):
    with pytest.raises((TypeError, ValueError)) as expected:
        jaxloss.focal(*call, **options)
    with pytest.raises(expected.type, match=re.escape(str(expected.value))):
        jaxloss.validate("focal", *call, **options)


def test_lists_and_scalars_are_taken():
    assert jaxloss.validate("focal", [[0.0, 1.0]], [1]).ok
    assert "`targets` is nan (1 bad value)" in str(jaxloss.validate("l2", 1.0, NAN))


def test_documentation():
    """Every line of docs/validation.md, the recipe with checkify among them."""
    path = str(ROOT / "docs" / "validation.md")
    results = doctest.testfile(
        path, module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert results.attempted > 20
    assert not results.failed
