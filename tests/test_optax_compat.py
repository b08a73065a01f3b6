"""Optax's own tests on `jaxloss.optax_compat`, then what it promises beyond them."""

import functools
import importlib.util
import inspect
import pathlib
import types
import unittest

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import losses

import jaxloss
from jaxloss import optax_compat
from tests.compiling import quick_jit

NAMES = [name for name in vars(losses) if callable(getattr(losses, name))]
COMMON = sorted(set(NAMES) & set(optax_compat.__all__))
BUILT = [name for name in COMMON if getattr(optax_compat, name) is not getattr(losses, name)]
TESTED = optax.__version__ == "0.2.8"  # the version whose conventions these are

current = pytest.mark.skipif(not TESTED, reason="compares with the conventions of Optax 0.2.8")


@pytest.fixture(scope="module", autouse=True)
def _mixed_types():
    """Optax promotes ranks and types; the suite forbids it to jaxloss only."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


# Optax's own tests, as its wheel ships them

SLOW = {  # above a second; and what tests nothing of ours
    "CTCTest": None,
    "DiceLossTest": (
        "test_apply_softmax_flag",
        "test_binary_dice_loss_convenience",
        "test_class_weights",
        "test_dice_loss_shapes",
        "test_dice_loss_weighting_parameters",
        "test_generalized_dice_loss_ignore_background",
        "test_gradient_computation",
        "test_ignore_background_parameter",
        "test_improved_shape_handling",
        "test_loss_bounds",
        "test_multiclass_generalized_dice_loss",
        "test_probability_validation",
        *(f"test_smoothing_parameter{i}" for i in range(3)),
    ),
    "FenchelYoungTest": None,
    "NtxentTest": None,
    "RankingLossesTest": None,
    "SigmoidFocalLossTest": ("test_extreme_logits_finite_gradients",),
    "SoftmaxCrossEntropyWithIntegerLabelsTest": (
        "test_gradient",
        *(f"test_axes{i}" for i in range(8)),
    ),
    "SparsemaxTest": None,
    "TripletMarginLossTest": None,
}
EAGER = ("softmax_cross_entropy_with_integer_labels",)  # whose test_axes wants equal bits
SHIPPED = sorted(pathlib.Path(losses.__file__).parent.glob("*_test.py"))


def _compiling(name):
    """Our function as one program, unless its bits or its check by value are what is tested.

    Called eagerly it compiles every operation by itself, which takes twice as long.
    """
    function = getattr(optax_compat, name)
    plain = {"axis", "reduction", "ignore_background"}
    static = [key for key in inspect.signature(function).parameters if key in plain]
    compiled = jax.jit(function, static_argnames=static)

    @functools.wraps(function)
    def call(*data, **options):
        eager = name in EAGER or {"apply_softmax", "apply_sigmoid"} & set(options)
        return (function if eager else compiled)(*data, **options)

    return call


def _on_ours(path):
    """Loads a copy of a test module that finds our functions in Optax's modules."""
    name = path.stem.removesuffix("_test")
    theirs = getattr(losses, name)
    ours = types.ModuleType(name, theirs.__doc__)
    vars(ours).update({k: v for k, v in vars(theirs).items() if not k.startswith("__")})
    vars(ours).update({key: _compiling(key) for key in BUILT if hasattr(theirs, key)})
    spec = importlib.util.spec_from_file_location(f"optax{name}_on_jaxloss", path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, name, ours)
        spec.loader.exec_module(module)
    return module


def _suites(modules):
    """The test classes of modules, under names of their own, the long ones marked."""
    found = {}
    for module in modules:
        for key, suite in vars(module).items():
            if not (isinstance(suite, type) and issubclass(suite, unittest.TestCase)):
                continue
            assert f"Optax{key}" not in found
            found[f"Optax{key}"] = suite
            if SLOW.get(key, ()) is None:
                pytest.mark.slow(suite)
            for name in SLOW.get(key) or ():
                setattr(suite, name, pytest.mark.slow(getattr(suite, name)))
    return found


MODULES = [_on_ours(path) for path in SHIPPED] if TESTED else []
globals().update(_suites(MODULES))


@current
@pytest.mark.skipif(not SHIPPED, reason="this Optax comes without its tests")
def test_the_shipped_tests_run_on_our_functions():
    """179 with the doctest of the ranking module, which is Optax's own function."""
    loader = unittest.defaultTestLoader
    counts = [loader.loadTestsFromModule(module).countTestCases() for module in MODULES]
    assert sum(counts) == 179
    by_name = {module.__name__: module for module in MODULES}
    tested = by_name["optax_classification_on_jaxloss"]._classification
    assert tested.kl_divergence.__wrapped__ is optax_compat.kl_divergence
    ranking = by_name["optax_ranking_on_jaxloss"].load_tests(loader, unittest.TestSuite(), None)
    assert ranking.run(unittest.TestResult()).wasSuccessful()


# The same names and signatures


@current
def test_every_name_of_optax_is_there():
    assert set(NAMES) <= set(optax_compat.__all__)
    assert set(optax_compat.__all__) == set(NAMES) | {"per_example"}
    assert len(optax_compat.__all__) == len(set(optax_compat.__all__))


@current
@pytest.mark.parametrize("name", BUILT)
def test_signatures_are_those_of_optax(name):
    def form(function):
        parameters = inspect.signature(function).parameters.values()
        return [(p.name, p.kind, p.default) for p in parameters]

    ours = getattr(optax_compat, name)
    assert form(ours) == form(getattr(losses, name))
    text = inspect.getdoc(ours)
    assert all(f"\n  {key}: " in text for key, *_ in form(ours))
    assert ">>>" in text


# The same values, gradients and dtypes

RNG = np.random.default_rng(0)


def _rounded(x):
    """Numbers that bfloat16 holds too, so that one reference serves both dtypes."""
    return np.asarray(jnp.asarray(x, jnp.bfloat16).astype(jnp.float32))


def _softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


X, T = _rounded(2 * RNG.normal(size=(4, 3, 5))), _rounded(RNG.normal(size=(4, 3, 5)))
Y, LOG_P = _rounded(_softmax(T)), _rounded(np.log(_softmax(X)))
IDS, FLAT = RNG.integers(0, 5, (4, 3)), RNG.integers(0, 15, 4)
SIGNS = np.sign(T)
CLASSES = RNG.random((4, 3, 5)) < 0.5
CLASSES[0, 0], CLASSES[0, 1] = False, True
PLACES = RNG.random((4, 3)) < 0.5
HOT = np.eye(5, dtype=np.float32)[IDS]
ROW = _rounded(RNG.random(5))

CALLS = [
    ("sigmoid_binary_cross_entropy", (X, Y), {}),
    ("sigmoid_binary_cross_entropy", (X, ROW), {}),
    ("sigmoid_focal_loss", (X, Y), {"alpha": 0.3, "gamma": 1.5}),
    ("sigmoid_focal_loss", (X, Y), {"alpha": ROW}),
    ("softmax_cross_entropy", (X, Y), {}),
    ("softmax_cross_entropy", (X, ROW), {"axis": 2, "where": PLACES}),
    ("softmax_cross_entropy", (X, 2 * Y), {"axis": (2, 0), "where": CLASSES}),
    ("softmax_cross_entropy", (X, Y), {"axis": None}),
    ("safe_softmax_cross_entropy", (X, Y), {}),
    ("softmax_cross_entropy_with_integer_labels", (X, IDS), {}),
    ("softmax_cross_entropy_with_integer_labels", (X, IDS), {"where": PLACES}),
    ("softmax_cross_entropy_with_integer_labels", (X, IDS), {"where": CLASSES}),
    ("softmax_cross_entropy_with_integer_labels", (X, FLAT), {"axis": (2, 1), "where": CLASSES}),
    ("softmax_cross_entropy_with_integer_labels", (X[..., :1], 0 * IDS), {}),
    ("poly_loss_cross_entropy", (X, Y), {"epsilon": -1.0, "axis": 0}),
    ("poly_loss_cross_entropy", (X, Y), {"epsilon": T[..., 0], "where": CLASSES}),
    ("hinge_loss", (X, SIGNS), {}),
    ("hinge_loss", (X, SIGNS[0, 0]), {}),
    ("multiclass_hinge_loss", (X, IDS), {}),
    ("multiclass_hinge_loss", (X, IDS[0, 0]), {}),
    ("multiclass_perceptron_loss", (X, IDS), {}),
    ("kl_divergence", (LOG_P, Y), {}),
    ("kl_divergence", (LOG_P, ROW), {"axis": None, "where": CLASSES}),
    ("kl_divergence_with_log_targets", (LOG_P, T), {"axis": (0, 2), "where": CLASSES}),
    ("generalized_kl_divergence", (X, Y), {"axis": 1}),
    ("generalized_kl_divergence", (X, Y), {"where": CLASSES}),
    ("squared_error", (X, T), {}),
    ("squared_error", (X,), {}),
    ("l2_loss", (X, T), {}),
    ("huber_loss", (X, ROW), {"delta": 0.75}),
    ("huber_loss", (X,), {"delta": ROW}),
    ("log_cosh", (X, ROW), {}),
    ("log_cosh", (X,), {}),
    ("cosine_similarity", (X, T), {"axis": (0, 2)}),
    ("cosine_similarity", (X, T), {"epsilon": 4.0, "where": CLASSES | HOT.astype(bool)}),
    ("cosine_similarity", (X, ROW), {}),
    ("cosine_distance", (X, T), {"epsilon": 9.0}),
    ("cosine_distance", (X, T), {"axis": None}),
    ("dice_loss", (X, HOT), {}),
    ("dice_loss", (X, Y), {"alpha": 0.3, "beta": 0.75, "class_weights": ROW, "smooth": 0.5}),
    ("dice_loss", (X, HOT), {"axis": (0, 1), "reduction": "none", "ignore_background": True}),
    ("dice_loss", (T[..., :1], HOT[..., 0]), {"reduction": "sum"}),
    ("multiclass_generalized_dice_loss", (X, HOT), {"ignore_background": True}),
    ("binary_dice_loss", (X, HOT), {"smooth": 0.0}),
    ("smooth_labels", (HOT, 0.125), {"axis": (1, 2)}),
    ("smooth_labels", (HOT, 0.125), {"where": CLASSES}),
]


def _program(function, arguments, options):
    """Value and gradients by every float argument along fixed directions."""
    moving = [i for i, x in enumerate(arguments) if np.asarray(x).dtype.kind == "f"]

    def of(*floats):
        given = dict(zip(moving, floats, strict=True))
        return function(*(given.get(i, x) for i, x in enumerate(arguments)), **options)

    def run(*floats):
        value, pull = jax.vjp(of, *floats)
        cotangent = jnp.cos(jnp.arange(value.size, dtype=value.dtype)).reshape(value.shape)
        return value, pull(cotangent)

    return of, run, [jnp.asarray(arguments[i], jnp.float32) for i in moving]


@pytest.mark.rows(12)
@current
@pytest.mark.parametrize(
    "name, arguments, options",
    CALLS,
    ids=[f"{name}-{','.join(options) or 'plain'}" for name, _, options in CALLS],
)
def test_values_gradients_and_dtypes_are_those_of_optax(name, arguments, options):
    """In float32; in bfloat16 the float32 value rounded once, in the dtype that Optax returns."""
    ours, run_ours, floats = _program(getattr(optax_compat, name), arguments, options)
    theirs, run_theirs, _ = _program(getattr(losses, name), arguments, options)
    halves = [x.astype(jnp.bfloat16) for x in floats]
    run = quick_jit(lambda floats, halves: (run_ours(*floats), run_theirs(*floats), ours(*halves)))
    (value, gradients), (expected, slopes), half = run(floats, halves)
    _assert_equal_where_finite(value, expected, 1e-5)
    for gradient, slope in zip(gradients, slopes, strict=True):
        _assert_equal_where_finite(gradient, slope, 2e-5)
    assert value.dtype == expected.dtype
    assert half.dtype == jax.eval_shape(theirs, *halves).dtype
    np.testing.assert_allclose(half.astype(jnp.float32), value, rtol=2**-8, atol=1e-5)


def _assert_equal_where_finite(ours, theirs, tolerance):
    """Optax is NaN by the labels of classes that are left out, infinite where none is left."""
    assert np.isfinite(ours).all()
    theirs = np.where(np.isfinite(theirs), theirs, ours)
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=2e-6)


# Where Optax has no number, a wrong one or fewer digits

INF = np.inf
HAZARDS = {
    # pytorch/pytorch#49844; the same in Optax
    "infinite logit on its side": (
        "sigmoid_binary_cross_entropy",
        ([INF, -INF], [1.0, 0.0]),
        {},
        [0, 0],
    ),
    # google-deepmind/optax#896
    "removed class": ("softmax_cross_entropy", ([-INF, 0.0, 0.0], [0.0, 1.0, 0.0]), {}, np.log(2)),
    "removed class, poly": ("poly_loss_cross_entropy", ([-INF, 0.0], [0.0, 1.0]), {}, 0),
    "removed class, hinge": ("multiclass_hinge_loss", ([-INF, 0.0, 0.5], 2), {}, 0.5),
    "removed class, perceptron": ("multiclass_perceptron_loss", ([-INF, 3.0, 1.0], 2), {}, 2),
    # google-deepmind/optax#1786
    "no target and no prediction": ("kl_divergence", ([-INF, 0.0], [0.0, 1.0]), {}, 0),
    "no target by its logarithm": (
        "kl_divergence_with_log_targets",
        ([-INF, 0.0], [-INF, 0.0]),
        {},
        0,
    ),
    # google-deepmind/optax#946
    "no direction": ("cosine_similarity", ([0.0, 0.0], [3.0, 4.0]), {}, 0),
    "no direction, distance": ("cosine_distance", ([0.0, 0.0], [0.0, 0.0]), {}, 1),
    "length overflows": ("cosine_distance", ([1e30, 0.0], [3e30, 4e30]), {}, 0.4),
    "length underflows": ("cosine_distance", ([1e-30, 0.0], [3e-30, 4e-30]), {}, 0.4),
    "empty class": (
        "dice_loss",
        ([[[0.0, -INF], [0.0, -INF]]], [[[1.0, 0.0], [1.0, 0.0]]]),
        {"smooth": 0.0},
        [0.5],
    ),
}


@pytest.mark.parametrize("hazard", HAZARDS)
def test_is_right_where_optax_is_not(hazard):
    """The value, and its derivatives by every float argument, in both modes.

    Optax is NaN in one of them, or eagerly, or wrong.
    """
    name, arguments, options, expected = HAZARDS[hazard]
    if not hasattr(losses, name):
        pytest.skip("this Optax does not have the function")
    arguments = [jnp.asarray(x) for x in arguments]
    ours, run, floats = _program(getattr(optax_compat, name), arguments, options)
    theirs, run_theirs, _ = _program(getattr(losses, name), arguments, options)

    @quick_jit
    def both(*floats):
        forward = jax.jvp(ours, floats, tuple(jnp.ones_like(x) for x in floats))[1]
        return run(*floats), forward, run_theirs(*floats)

    (value, gradients), forward, reference = both(*floats)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-7)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((gradients, forward)))
    eager = theirs(*floats)
    right = all(np.isfinite(x).all() for x in jax.tree.leaves((eager, reference)))
    assert not (right and np.allclose(eager, expected))


def test_gradient_by_a_target_of_zero_is_finite():  # google-deepmind/optax#1786
    log_p, y = jnp.log(jnp.array([0.5, 0.5])), jnp.array([0.0, 1.0])
    for name in ("kl_divergence", "generalized_kl_divergence"):
        gradient = jax.grad(getattr(optax_compat, name), 1)(log_p, y)
        assert np.isfinite(gradient).all()
        assert gradient[0] == 0


def test_focal_gradient_by_a_hard_label():
    """Optax loses a part: the log-sum-exp in its weight drops the label's zero factor."""
    x, y = np.array([0.5, -1.0]), np.array([0.0, 1.0])
    p, inside = 1 / (1 + np.exp(-x)), np.array([1e-6, -1e-6])

    def oracle(y):
        return (y * (1 - p) + (1 - y) * p) ** 2 * -(y * np.log(p) + (1 - y) * np.log1p(-p))

    slope = (oracle(y + inside) - oracle(y)) / inside
    loss = optax_compat.sigmoid_focal_loss
    gradient = jax.grad(lambda y: loss(jnp.asarray(x), y).sum())(jnp.asarray(y))
    np.testing.assert_allclose(gradient, slope, rtol=1e-4)


@pytest.mark.parametrize("bad", [-1, 5, 255])
def test_a_bad_id_is_nan_at_its_position_only(bad):
    """In Optax -1 is the last class."""
    ids = np.where(IDS[0] == IDS[0, 0], bad, IDS[0])
    spoiled = np.broadcast_to(ids == bad, ids.shape)
    for name in (
        "softmax_cross_entropy_with_integer_labels",
        "multiclass_hinge_loss",
        "multiclass_perceptron_loss",
    ):
        run = quick_jit(_program(getattr(optax_compat, name), (X[0], ids), {})[1])
        value, (gradient,) = run(X[0])
        np.testing.assert_array_equal(np.isnan(value), spoiled)
        np.testing.assert_array_equal(np.isnan(gradient).any(-1), spoiled)


def test_a_confident_sample_keeps_its_digits():
    loss = optax_compat.softmax_cross_entropy_with_integer_labels(jnp.array([40.0, 0.0]), 0)
    np.testing.assert_allclose(loss, np.exp(-40.0), rtol=1e-6)
    np.testing.assert_allclose(optax_compat.log_cosh(jnp.array(1e-4)), 5e-9, rtol=1e-6)
    log_p, y = jnp.log(jnp.array([0.5])), jnp.array([0.5 + 2**-12])
    divergence = optax_compat.generalized_kl_divergence(log_p, y)
    np.testing.assert_allclose(divergence, 2.0**-24, rtol=2e-3)


def test_dice_of_half_precision_does_not_overflow():
    """A sum of 90,000 pixels is more than float16 holds."""
    ones = jnp.ones((1, 300, 300, 1), jnp.float16)
    loss = optax_compat.binary_dice_loss(20 * ones, ones)
    assert loss.dtype == jnp.float16
    np.testing.assert_allclose(loss, 0, atol=1e-3)


MASKED = {
    "softmax_cross_entropy": (Y, CLASSES, PLACES),
    "softmax_cross_entropy_with_integer_labels": (IDS, CLASSES, PLACES),
    "kl_divergence": (Y, CLASSES),
    "generalized_kl_divergence": (Y, CLASSES),
    "kl_divergence_with_log_targets": (LOG_P, CLASSES),
    "cosine_distance": (T, CLASSES),
}


@pytest.mark.parametrize("name", MASKED)
def test_what_is_masked_reaches_nothing(name):
    """NaN in the prediction, where that is masked, changes neither value nor gradient."""
    target, *masks = MASKED[name]
    for mask in masks:
        hidden = mask if mask.ndim == X.ndim else np.broadcast_to(mask[..., None], X.shape)
        if target is IDS and mask is CLASSES:  # a class that is left out may be the target
            hidden = hidden | HOT.astype(bool) & mask.any(-1, keepdims=True)
        run = quick_jit(_program(getattr(optax_compat, name), (X, target), {"where": mask})[1])
        clean, spoiled = run(X, *(() if target is IDS else (target,))), None
        spoiled = run(np.where(hidden, X, np.nan), *(() if target is IDS else (target,)))
        for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(spoiled), strict=True):
            np.testing.assert_array_equal(a, b)
        assert all((np.asarray(g)[~hidden] == 0).all() for g in spoiled[1])


def test_probabilities_are_checked_by_value_where_it_is_known():
    p, none = jnp.asarray(_softmax(X)), jnp.asarray(2 * _softmax(X))
    loss = functools.partial(optax_compat.dice_loss, apply_softmax=False)
    with pytest.raises(ValueError, match="dice_loss: `predictions`.*valid probability"):
        loss(none, HOT)
    expected = optax_compat.dice_loss(X, HOT)
    np.testing.assert_allclose(loss(p, HOT), expected, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(loss)(p, HOT), expected, rtol=1e-5)  # Optax cannot
    half = jax.nn.softmax(jnp.asarray(X, jnp.bfloat16))
    np.testing.assert_allclose(loss(half, HOT).astype(jnp.float32), expected, rtol=0.02)
    binary = functools.partial(optax_compat.binary_dice_loss, apply_sigmoid=False)
    with pytest.raises(ValueError, match=r"valid probabilities in \[0, 1\]"):
        binary(none, HOT)
    np.testing.assert_allclose(
        binary(jax.nn.sigmoid(X), HOT), optax_compat.binary_dice_loss(X, HOT), rtol=1e-5
    )


@pytest.mark.parametrize(
    "name, arguments, options, error",
    [
        ("squared_error", (X, ROW), {}, ValueError),
        ("l2_loss", (IDS, IDS), {}, TypeError),
        ("huber_loss", (X,), {"delta": -1.0}, ValueError),
        ("cosine_distance", (X, T), {"epsilon": -1.0}, ValueError),
        ("sigmoid_focal_loss", (X, Y), {"gamma": -1.0}, ValueError),
        ("sigmoid_focal_loss", (X, Y), {"alpha": 2.0}, ValueError),
        ("sigmoid_binary_cross_entropy", (IDS, IDS), {}, TypeError),
        ("softmax_cross_entropy", (X[..., :1], Y), {}, ValueError),
        ("softmax_cross_entropy", (X, Y), {"axis": 3}, ValueError),
        ("softmax_cross_entropy", (X, Y), {"where": X}, TypeError),
        ("softmax_cross_entropy_with_integer_labels", (X, X[..., 0]), {}, TypeError),
        ("softmax_cross_entropy_with_integer_labels", (X, IDS), {"axis": None}, ValueError),
        ("softmax_cross_entropy_with_integer_labels", (X[0], IDS), {}, ValueError),
        ("poly_loss_cross_entropy", (X, IDS), {}, TypeError),
        ("multiclass_hinge_loss", (IDS, IDS), {}, TypeError),
        ("kl_divergence", (X, IDS), {}, TypeError),
        ("dice_loss", (X, HOT[..., :3]), {}, ValueError),
        ("dice_loss", (X, HOT), {"reduction": "most"}, ValueError),
        ("dice_loss", (X, HOT), {"smooth": -1.0}, ValueError),
        ("dice_loss", (X, HOT), {"class_weights": 1.0}, ValueError),
        ("smooth_labels", (IDS, 0.1), {}, TypeError),
    ],
)
def test_errors_name_the_function(name, arguments, options, error):
    with pytest.raises(error, match=f"optax_compat.{name}: `"):
        getattr(optax_compat, name)(*arguments, **options)


# Any loss, one value for each example

IMAGES, TRUTH = RNG.normal(size=(3, 4, 4, 3)).astype(np.float32), RNG.integers(0, 3, (3, 4, 4))
VALID = RNG.random((3, 4, 4)) < 0.7
VALID[2] = False
SCALES = RNG.random((3, 4, 1)).astype(np.float32)
BOXES = np.sort(RNG.random((3, 5, 2, 2)), 2).reshape(3, 5, 4).astype(np.float32)
MAPS = RNG.normal(size=IMAGES.shape).astype(np.float32)
EXAMPLES = {
    "softmax": (jaxloss.cross_entropy, (IMAGES, TRUTH), {"where": VALID, "weights": SCALES}),
    "options of every example": (
        jaxloss.focal,
        (IMAGES, TRUTH),
        {"class_weights": SCALES[:, 0, 0], "where": VALID[:1]},
    ),
    "region": (jaxloss.dice, (IMAGES, TRUTH), {"where": VALID, "per_image": False}),
    "boundary": (jaxloss.boundary, (IMAGES, TRUTH), {"distance_map": MAPS}),
    "compound": (jaxloss.dice_cross_entropy, (IMAGES, TRUTH), {"ignore_index": 1}),
    "boxes": (jaxloss.giou, (BOXES, BOXES[::-1]), {"where": VALID[:, 0, :1], "reduction": "sum"}),
    "regression": (jaxloss.gaussian_nll, (MAPS, IMAGES, MAPS**2), {}),
    "points": (
        jaxloss.keypoint_similarity,
        (BOXES, BOXES[::-1], BOXES[:, 0, 3]),
        {"sigmas": 0.1},
    ),
    "one variance": (jaxloss.gaussian_nll, (MAPS, IMAGES), {"variance": 0.7}),
    "skeletons": (jaxloss.skeleton_recall, (IMAGES, TRUTH, VALID), {}),
    "scales": (
        functools.partial(jaxloss.ms_ssim, window=1),
        (IMAGES, TRUTH),
        {"weights": (0.5, 0.3, 0.2)},
    ),
    "constants by place": (jaxloss.ldam, (IMAGES[:, 0, 0], TRUTH[:, 0, 0], np.full(3, 9.0)), {}),
    "parts": (
        jaxloss.weighted_sum({"a": (1.0, jaxloss.dice), "b": (2.0, jaxloss.cross_entropy)}),
        (IMAGES, TRUTH),
        {"weights": {"b": 0.5}},
    ),
}
CUT = ("where", "weights", "distance_map")


@pytest.mark.parametrize("kind", EXAMPLES)
def test_per_example_is_the_loss_of_each_example(kind):
    loss, data, options = EXAMPLES[kind]
    found = quick_jit(lambda: optax_compat.per_example(loss)(*data, **options))()
    arrays = {k: v for k, v in options.items() if k in CUT and isinstance(v, np.ndarray)}
    fixed = {k: v for k, v in options.items() if k not in arrays}

    constants = data[2:] if loss is jaxloss.ldam else ()
    data = data[: len(data) - len(constants)]

    @quick_jit
    def run(data, arrays):
        return jax.tree.leaves(loss(*data, *constants, **arrays, **fixed))

    expected = [
        run(*jax.tree.map(lambda x, n=n: x[n : n + 1] if len(x) == 3 else x, (data, arrays)))
        for n in range(3)
    ]
    for a, *b in zip(jax.tree.leaves(found), *expected, strict=True):
        assert a.shape == (3,)
        np.testing.assert_allclose(a, np.stack(b), rtol=1e-6)


def test_per_example_beside_a_class_axis_that_is_the_first():
    channels, options = np.moveaxis(IMAGES, -1, 0), {"where": VALID}
    for loss in (jaxloss.dice, jaxloss.cross_entropy):
        expected = quick_jit(optax_compat.per_example(loss))(IMAGES, TRUTH, **options)
        first = optax_compat.per_example(functools.partial(loss, axis=0))
        found = quick_jit(first)(channels, TRUTH, **options)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert found[2] == 0  # nothing valid


def test_per_example_of_binary_masks():
    logits, masks = IMAGES[..., 0], TRUTH == 1
    found = quick_jit(optax_compat.per_example(functools.partial(jaxloss.dice, axis=None)))(
        logits, masks
    )
    np.testing.assert_allclose(
        found, jaxloss.dice(logits, masks, axis=None, reduction="none"), rtol=1e-6
    )


def test_the_mean_over_examples_is_the_batch():
    each = optax_compat.per_example(jaxloss.dice_cross_entropy)
    run = quick_jit(jax.value_and_grad(lambda x: each(x, TRUTH).mean()))
    value, gradient = run(IMAGES)
    expected, slope = quick_jit(jax.value_and_grad(jaxloss.dice_cross_entropy))(IMAGES, TRUTH)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: optax_compat.per_example("dice"), "`loss` is 'dice'"),
        (lambda: _each(IMAGES, TRUTH, reduction="none"), "`reduction` is 'none'"),
        (lambda: _each(IMAGES, TRUTH, axis_name="data"), "`axis_name` is 'data'"),
        (lambda: _each(IMAGES[0, 0, 0], TRUTH[0, 0, 0]), "a batch axis beside the class axis"),
        (lambda: _each(IMAGES, TRUTH[:1]), "expected 3 examples on axis 0"),
        (lambda: _each(IMAGES, TRUTH, where=VALID[:2]), "expected 3 examples on axis 0"),
    ],
)
def test_per_example_refuses(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def _each(*data, **options):
    return optax_compat.per_example(jaxloss.cross_entropy)(*data, **options)


# Under Optax's optimisers (lbfgs is in test_trainers.py)

PIXELS = RNG.normal(size=(2, 4, 4, 3)).astype(np.float32)
MASKS = (PIXELS.sum(-1) > 0).astype(np.int32)
START = {"w": np.full((3, 2), 0.1, np.float32), "b": np.zeros(2, np.float32)}


def _objective(params):
    return jaxloss.dice_focal(PIXELS @ params["w"] + params["b"], MASKS)


def _train(optimizer, steps):
    """The loss before each step and after the last, and what is left at the end."""
    optimizer = optax.with_extra_args_support(optimizer)

    @quick_jit
    def run():
        def step(carry, _):
            params, state = carry
            value, gradient = jax.value_and_grad(_objective)(params)
            updates, state = optimizer.update(gradient, state, params, value=value)
            return (optax.apply_updates(params, updates), state), value

        carry, values = jax.lax.scan(step, (START, optimizer.init(START)), length=steps)
        return values, _objective(carry[0]), carry

    values, last, carry = run()
    return np.append(values, last), carry


def test_under_reduce_on_plateau():
    plateau = optax.contrib.reduce_on_plateau(patience=2, rtol=1.0)
    values, (_, state) = _train(optax.chain(optax.sgd(0.1), plateau), 8)
    assert values[-1] < values[0]
    assert optax.tree_utils.tree_get(state, "scale") < 1  # nothing improves by all of itself


def test_under_polyak_sgd():
    values, _ = _train(optax.polyak_sgd(max_learning_rate=1.0), 5)
    assert values[-1] < values[0] / 2


def test_under_multi_steps():
    """Two equal gradients make one step with their mean."""
    values, _ = _train(optax.MultiSteps(optax.sgd(0.5), every_k_schedule=2), 6)
    np.testing.assert_array_equal(values[:6:2], values[1:6:2])
    assert (np.diff(values[::2]) < 0).all()
