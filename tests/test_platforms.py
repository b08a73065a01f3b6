"""What a GPU or TPU, and a CPU from large arrays on, compute instead: the same, with its slope."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss._core import chunks, classes, lines

TPU_TOO = pytest.mark.parametrize("platform", ["cuda", "cpu", "tpu"], indirect=True)
CASES = {
    "cross_entropy": {},
    "softmax_focal": {"gamma": 1.5},
    "generalized_cross_entropy": {"q": 0.7},
    "symmetric_cross_entropy": {},
    "dice": {},
    "dice_cross_entropy": {},
}


@pytest.fixture(params=["cuda", "cpu"], autouse=True)
def platform(request, monkeypatch):
    """Takes the branch of a platform, from the smallest array on."""

    def chosen(*arrays, default, **others):
        return others.get(request.param, default)(*arrays)

    jax.clear_caches()
    monkeypatch.setattr(chunks, "CHUNKED_FROM", 0)
    monkeypatch.setattr(chunks, "CHUNK", 1)
    monkeypatch.setattr(classes, "PLANE", 0)
    monkeypatch.setattr(jax, "device_count", lambda: 1)  # classes that may be split stay together
    monkeypatch.setattr(jax.lax, "platform_dependent", chosen)
    yield
    jax.clear_caches()


def batch(classes, axis):
    """Confident and doubtful logits, one of them removed, and ids."""
    rng = np.random.default_rng(classes)
    logits = rng.normal(size=(3, 4, 6, classes)) * np.array([1, 10, 60]).reshape(3, 1, 1, 1)
    ids = rng.integers(0, classes, (3, 4, 6))
    logits[0, 0, :, 0] = np.where(ids[0, 0] == 0, 0, -np.inf)
    return jnp.asarray(np.moveaxis(logits, -1, axis), jnp.float32), jnp.asarray(ids)


def in_float64(loss, logits, ids):
    with jax.enable_x64(True):
        return jax.value_and_grad(loss)(jnp.asarray(np.asarray(logits), jnp.float64), ids)


def held_against_float64(loss, logits, labels, *, atol=0.0, of_largest=0.0):
    """Compares value and gradient with those in float64; returns that value.

    The slope may be off by `atol`, or by `of_largest` of the largest slope.
    """
    value, gradient = jax.value_and_grad(loss)(logits, labels)
    jax.clear_caches()
    expected, slope = in_float64(loss, logits, np.asarray(labels))
    np.testing.assert_allclose(value, expected, rtol=2e-6)
    atol = max(atol, of_largest * np.nanmax(np.abs(np.asarray(slope))))
    np.testing.assert_allclose(gradient, slope, rtol=2e-5, atol=atol)
    return expected


WEIGHTS = jnp.array([0.5, 1, 2]).reshape(3, 1, 1)
WHERE = jnp.ones((3, 4, 6), bool).at[1, 2, 3].set(False)
REGION = ["mcc", "sensitivity_specificity", "boundary_dou"]
HEADS = ["cross_entropy", "softmax_focal", "dice", "dice_cross_entropy"]
ROWS = [
    *((name, *case, {}) for name in HEADS for case in [(2, -1), (3, 1), (17, -1), (18, -1)]),
    *((name, *case, {}) for name in HEADS for case in [(18, 1), (40, -1), (40, 1)]),
    ("generalized_cross_entropy", 3, -1, {}),
    ("symmetric_cross_entropy", 17, -1, {}),
    *(("cross_entropy", classes, axis, {}) for classes, axis in [(2, 1), (5, 1)]),
    ("cross_entropy", 3, -1, {"ignore_index": 1, "class_weights": jnp.array([1.0, 2, 3])}),
    ("softmax_focal", 3, -1, {"ignore_index": 1, "weights": WEIGHTS}),
    *(("dice", 18, axis, {"ignore_index": 1, "weights": WEIGHTS}) for axis in (-1, 1)),
    ("dice", 40, -1, {"ignore_index": 1, "weights": WEIGHTS}),
    ("cross_entropy", 40, 1, {"ignore_index": 1, "weights": WEIGHTS}),
    ("dice", 3, 2, {"per_image": False}),
    *(("dice_cross_entropy", 18, axis, {"per_image": False}) for axis in (-1, 1)),
    ("dice_cross_entropy", 40, -1, {"per_image": False, "ignore_index": 1}),
    *((name, 9, -1, {}) for name in REGION),
    ("dice_cross_entropy", 3, 1, {"per_image": False}),
    *(("dice", classes, axis, {}) for classes, axis in [(2, 1), (4, -1), (8, 1)]),
    *(("dice", 4, axis, {"ignore_index": 1, "weights": WEIGHTS}) for axis in (-1, 1)),
    ("cross_entropy", 2, 1, {"ignore_index": 1, "weights": WEIGHTS}),
    ("softmax_focal", 17, 1, {"class_weights": jnp.arange(1.0, 18)}),
    ("dice_cross_entropy", 2, 1, {"ignore_index": 1, "weights": WEIGHTS}),
    ("dice_cross_entropy", 3, -1, {"ignore_index": 1, "class_weights": jnp.array([1.0, 2, 3])}),
    ("dice_cross_entropy", 8, 1, {"per_image": False, "reduction": "sum"}),
    ("dice_focal", 4, 1, {"ignore_index": 1, "weights": WEIGHTS}),
    ("exp_log", 3, -1, {}),
    ("noise_robust_dice", 3, -1, {"per_image": False}),
    ("unified_focal", 9, 1, {"ignore_index": 1, "include_background": False}),
    ("ssim", 3, -1, {"window": 3}),
    ("ssim", 2, 1, {"window": 3, "ignore_index": 1}),
]


@TPU_TOO
@pytest.mark.parametrize(("name", "classes", "axis", "options"), ROWS)
def test_value_and_gradient(name, classes, axis, options):
    logits, ids = batch(classes, axis)
    loss = functools.partial(
        getattr(jaxloss, name), labels=ids, axis=axis, **CASES.get(name, {}), **options
    )
    value, gradient = jax.value_and_grad(loss)(logits)
    jax.clear_caches()
    expected, slope = in_float64(lambda z, ids: loss(z), logits, ids)
    np.testing.assert_allclose(value, expected, rtol=2e-6)
    # The slope of a region's score is a difference of means, exact beside the largest of them.
    digits = 1e-6 if "dice" in name or name in (*REGION, "ssim") else 1e-9
    largest = np.abs(np.asarray(slope)).max()
    np.testing.assert_allclose(gradient, slope, rtol=2e-5, atol=digits * largest)


COUNTS = jnp.array([901.0, 37.3, 5.7])
OF_HALF = {
    "cross_entropy": {},
    "softmax_focal": {},
    "dice": {},
    "dice_cross_entropy": {},
    "logit_adjusted": {"priors": COUNTS},
    "ldam": {"class_counts": COUNTS},
    "cosface": {},
    "arcface": {},
    "binary_cross_entropy": {},
    "sigmoid_focal": {},
    "balanced_binary_cross_entropy": {},
}


@TPU_TOO
@pytest.mark.parametrize("name", OF_HALF)
def test_half_precision_is_read_and_nothing_rounded(name):
    """As of the same logits in float32, also where a loss computes others from them."""
    logits, ids = batch(3, -1)
    logits = jnp.tanh(logits) if name in ("cosface", "arcface") else logits
    logits = logits.astype(jnp.bfloat16)
    run = jax.value_and_grad(functools.partial(getattr(jaxloss, name), **OF_HALF[name]))
    value, gradient = run(logits, ids)
    expected, slope = run(logits.astype(jnp.float32), ids)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(gradient.astype(jnp.float32), slope, rtol=2**-8, atol=1e-9)


@TPU_TOO
@pytest.mark.parametrize("classes", [3, 9])
@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("smoothing", [0.1, None])
def test_soft_labels(classes, axis, smoothing):
    """Of ids smoothed, and of shares; masked, weighted, with removed classes and class weights."""
    logits, ids = batch(classes, axis)
    options = {"where": ids != 1, "weights": WEIGHTS, "class_weights": jnp.arange(1.0, classes + 1)}
    labels = ids
    if smoothing is None:
        labels = jax.nn.softmax(jnp.where(logits > -jnp.inf, logits / 9, logits), axis)
        if classes == 2:
            labels = jnp.round(labels * 2**16) / 2**16  # their sum is not rounded
    else:
        options["label_smoothing"] = smoothing
    loss = functools.partial(jaxloss.cross_entropy, axis=axis, **options)
    value, gradient = jax.value_and_grad(loss)(logits, labels)
    jax.clear_caches()
    expected, slope = in_float64(loss, logits, np.asarray(labels))
    np.testing.assert_allclose(value, expected, rtol=2e-6)
    largest = np.abs(np.asarray(slope)).max()
    np.testing.assert_allclose(gradient, slope, rtol=2e-5, atol=1e-7 * largest)


@TPU_TOO
@pytest.mark.parametrize(("name", "options"), [("softmax_focal", {"gamma": 1.5}), ("poly1", {})])
@pytest.mark.parametrize(("classes", "axis"), [(2, 1), (9, -1)])
@pytest.mark.parametrize("kind", ["shares", "smoothed ids", "a bad id"])
def test_costs_of_all_classes(name, options, classes, axis, kind):
    """The sum that is computed with its slope is that of the positions' costs, in 64 bits."""
    logits, labels = batch(classes, axis)
    options = {**options, "axis": axis, "where": labels != 1, "weights": WEIGHTS}
    if kind == "shares":
        labels = jax.nn.softmax(jnp.where(logits > -jnp.inf, logits / 9, logits), axis)
    else:
        options["label_smoothing"] = 0.1
    if kind == "a bad id":
        labels = labels.at[1, 1, 1].set(classes)
        options["where"] = options["where"].at[1, 1, 1].set(True)
    loss = functools.partial(getattr(jaxloss, name), **options)
    value, gradient = jax.value_and_grad(functools.partial(loss, reduction="sum"))(logits, labels)
    jax.clear_caches()

    def total(logits, labels):
        return loss(logits, labels, reduction="none").sum()

    expected, slope = in_float64(total, logits, np.asarray(labels))
    np.testing.assert_allclose(value, expected, rtol=2e-6)
    assert np.isnan(expected) == (kind == "a bad id")
    largest = np.nanmax(np.abs(np.asarray(slope)))
    np.testing.assert_allclose(gradient, slope, rtol=2e-5, atol=1e-7 * largest)


COUNTED = {"where": WHERE, "weights": WEIGHTS, "class_weights": jnp.arange(9.0)}


@pytest.mark.parametrize("kind", ["shares", "smoothed shares", "smoothed ids", "a bad id"])
@pytest.mark.parametrize("infinite", [True, False])
@pytest.mark.parametrize("options", [{}, COUNTED], ids=["plain", "counted"])
@pytest.mark.parametrize("axis", [-1, 1])
def test_many_soft_labels(axis, options, kind, infinite):
    """Of whole positions, where a CPU asks whether all logits are finite."""
    logits, labels = batch(9, axis)
    options = {**options, "axis": axis}
    if not infinite:
        logits = jnp.where(logits > -jnp.inf, logits, -80)
    if kind == "a bad id":
        labels = labels.at[0, 0, 0].set(9)
    elif "shares" in kind:
        labels = jax.nn.softmax(jnp.where(logits > -jnp.inf, logits / 9, logits), axis)
        if "where" in options:
            labels = jnp.where(jnp.expand_dims(WHERE, axis), labels, jnp.nan)
    elif "where" in options:
        labels = jnp.where(WHERE, labels, -1)
    if kind != "shares":
        options["label_smoothing"] = 0.1
    loss = functools.partial(jaxloss.cross_entropy, **options)
    # Weighted shares do not sum to 1: their slope is a difference.
    off = {"of_largest": 1e-7} if "class_weights" in options else {"atol": 1e-9}
    expected = held_against_float64(loss, logits, labels, **off)
    assert jnp.isnan(expected) == (kind == "a bad id")


INFINITE = {"none": None, "no cost": -jnp.inf, "a cost": jnp.inf, "NaN": jnp.nan}


@pytest.mark.parametrize("infinite", INFINITE)
@pytest.mark.parametrize("weighted", [False, True])
def test_elements(weighted, infinite):
    """Where a CPU sees from the sum whether a logit is infinite; the first target is 0."""
    logits, ids = batch(3, 1)
    logits = jnp.where(logits > -jnp.inf, logits, -80)
    targets = (jnp.arange(logits.size) % 4 / 3).reshape(logits.shape)
    if INFINITE[infinite] is not None:
        logits = logits.at[0, 0, 0, 0].set(INFINITE[infinite])
    options = {"pos_weight": [1.0, 2, 3], "weights": WEIGHTS, "label_smoothing": 0.1}
    loss = functools.partial(jaxloss.binary_cross_entropy, axis=1, **(options if weighted else {}))
    expected = held_against_float64(loss, logits, targets, atol=1e-9)
    costs = infinite == "a cost" or (infinite == "no cost" and weighted)
    assert np.isinf(expected) == costs
    assert np.isnan(expected) == (infinite == "NaN")


@pytest.mark.parametrize("name", ["dice", "dice_cross_entropy"])
@pytest.mark.parametrize("axis", [None, 1])
@pytest.mark.parametrize("kind", ["hard", "soft", "pooled", "masked", "a logit that is NaN"])
def test_masks(name, axis, kind, request):
    """Of which a CPU keeps both probabilities, beyond what 1 - p has digits for."""
    if "cuda" in request.node.name:
        pytest.skip("a GPU has no way of its own")
    rng = np.random.default_rng(0)
    scale = np.array([1, 10, 60]).reshape(3, 1, 1, 1)
    logits = jnp.asarray(rng.normal(size=(3, 2, 4, 2)) * scale, jnp.float32)
    targets = jnp.asarray(logits > rng.normal(size=logits.shape), jnp.float32)
    if kind == "soft":
        targets = 0.05 + 0.9 * targets
    logits = logits.at[0, 0, 0, 0].set(-jnp.inf).at[0, 0, 1, 0].set(jnp.inf)
    targets = targets.at[0, 0, 0, 0].set(0).at[0, 0, 1, 0].set(1)
    options = {"axis": axis, "activation": "sigmoid", "per_image": kind != "pooled"}
    if kind == "masked":
        options["where"] = jnp.ones_like(targets, bool).at[0, 1, 0].set(False)
        options["weights"] = jnp.where(jnp.isinf(logits), 2, jnp.abs(logits) % 3)
        logits = logits.at[0, 1, 0].set(jnp.nan)
    elif kind == "a logit that is NaN":
        logits = logits.at[1, 1, 1, 1].set(jnp.nan)
    loss = functools.partial(getattr(jaxloss, name), **options)
    expected = held_against_float64(loss, logits, targets, atol=1e-12)
    assert np.isnan(expected) == (kind == "a logit that is NaN")


def test_masks_that_are_met_cost_nothing():
    """Not even where the CPU's sums are of numbers that it kept."""
    targets = jnp.zeros((2, 8, 8)).at[:, 2:5].set(1)
    for far in (200.0, jnp.inf):
        logits = jnp.where(targets == 1, far, -far)
        assert jaxloss.dice(logits, targets, axis=None, activation="sigmoid") == 0


@TPU_TOO
@pytest.mark.parametrize("name", ["cross_entropy", "softmax_focal", "dice", "dice_focal"])
@pytest.mark.parametrize("axis", [-1, 1])
def test_bad_ids_and_masked_numbers(name, axis):
    logits, ids = batch(3, axis)
    loss = functools.partial(getattr(jaxloss, name), axis=axis)
    value, gradient = jax.value_and_grad(loss)(logits, ids.at[0, 1, 1].set(3))
    assert jnp.isnan(value)
    where = jnp.ones(ids.shape, bool).at[0, 1, 1].set(False)
    spoiled = logits.at[0, 1, 1].set(jnp.nan) if axis == -1 else logits.at[0, :, 1, 1].set(jnp.nan)
    masked = functools.partial(loss, where=where)
    clean = jax.value_and_grad(masked)(logits, ids)
    dirty = jax.value_and_grad(masked)(spoiled, ids.at[0, 1, 1].set(3))
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)


@TPU_TOO
@pytest.mark.parametrize("name", ["cross_entropy", "softmax_focal", "dice_cross_entropy"])
def test_second_order(name):
    logits, ids = batch(3, -1)
    loss = functools.partial(getattr(jaxloss, name), labels=ids)
    direction = jnp.cos(jnp.arange(logits.size, dtype=jnp.float32)).reshape(logits.shape)
    _, got = jax.jvp(jax.grad(loss), (logits,), (direction,))
    jax.clear_caches()
    with jax.enable_x64(True):
        primal, tangent = (jnp.asarray(np.asarray(x), jnp.float64) for x in (logits, direction))
        _, expected = jax.jvp(jax.grad(loss), (primal,), (tangent,))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "classes"), [("cross_entropy", 9), ("dice_focal", 9), ("dice_focal", 5), ("mcc", 5)]
)
def test_volumes_are_as_lines(name, classes):
    rng = np.random.default_rng(5)
    shape = (2, 4, 3, 16, classes)
    logits, ids = rng.normal(size=shape).astype(np.float32), rng.integers(0, classes, shape[:-1])

    def both(logits, ids, space):
        weights = np.array([1, 3], np.float32).reshape(2, *(1 for _ in space))
        options = {"ignore_index": 1, "weights": weights}
        loss = lambda z: getattr(jaxloss, name)(z, ids.reshape(2, *space), **options)
        return jax.value_and_grad(loss)(jnp.asarray(logits.reshape(2, *space, classes)))

    assert lines.pays(jnp.asarray(logits), 4)
    value, gradient = both(logits, ids, shape[1:-1])
    expected, slope = both(logits, ids, (192,))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient.reshape(slope.shape), slope, rtol=1e-5, atol=1e-9)


def test_where_lines_pay(monkeypatch):
    x = jnp.zeros((2, 8, 6, 3))
    assert lines.pays(x, 3)
    assert not lines.pays(x, 1), "classes are not last"
    assert not lines.pays(x[:, 0], 2), "there is one axis only"
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    assert not lines.pays(x, 3), "devices may have a part of the rows each"
    assert lines.pays(jnp.zeros((2, 7, 5, 3)), 3), "none of them can"
    assert lines.are_tiles(jnp.zeros((2, 3, 32, 4)))
    assert not lines.are_tiles(x)


def test_other_arrays_in_lines():
    x = jnp.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    seen = []

    def function(*arrays):
        seen.extend(arrays)
        return arrays[0].sum((1, 2)), arrays[0] * arrays[1]

    weights, ids = jnp.arange(3.0).reshape(1, 3, 1, 1), jnp.arange(8).reshape(2, 1, 4)
    few, number = jnp.ones((1, 1, 1, 5)), jnp.float32(2)
    sums, products = lines.in_lines(function)(x, weights, ids, None, few, number)
    np.testing.assert_array_equal(sums, x.sum((1, 2, 3)))
    np.testing.assert_array_equal(products, x * weights)
    shapes = [None if a is None else a.shape for a in seen]
    assert shapes == [(2, 12, 5), (1, 12, 1), (2, 12), None, (1, 1, 5), ()]
    np.testing.assert_array_equal(seen[2], jnp.broadcast_to(ids, (2, 3, 4)).reshape(2, 12))


@pytest.mark.parametrize(
    "axis, shapes",
    [
        (-1, [(2, 5, 12), (1, 1, 12), (2, 1, 12), (1, 5, 1), None, ()]),
        (1, [(2, 5, 3, 4), (1, 1, 3, 1), (2, 1, 3, 4), (1, 5, 1, 1), None, ()]),
    ],
)
def test_other_arrays_in_planes(axis, shapes):
    """Classes that come in planes stay, and so do the axes of their positions."""
    x = jnp.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    seen = []

    def function(*arrays):
        seen.extend(arrays)
        return arrays[0].sum(range(2, arrays[0].ndim)), arrays[0] * arrays[1]

    weights = jnp.arange(3.0).reshape(1, 3, 1, 1)
    ids, few = jnp.arange(24).reshape(2, 3, 4, 1), jnp.ones((1, 1, 1, 5))
    of_rank = [jnp.moveaxis(a, -1, axis) for a in (x, weights, ids, few)]
    sums, products = lines.in_planes(function, axis % 4)(*of_rank, None, jnp.float32(2))
    np.testing.assert_array_equal(sums, x.sum((1, 2)))
    np.testing.assert_array_equal(products, jnp.moveaxis(x * weights, -1, axis))
    assert [None if a is None else a.shape for a in seen] == shapes


def test_planes_of_rows_and_of_devices(monkeypatch):
    def shape(x, axis):
        found = []
        back = lines.in_planes(lambda x: found.append(x.shape) or x, axis)(x)
        np.testing.assert_array_equal(back, x)
        return found[0]

    assert shape(jnp.arange(12.0).reshape(4, 3), 1) == (1, 3, 4)
    x = jnp.arange(2 * 8 * 6 * 3.0).reshape(2, 8, 6, 3)
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    assert shape(x, 3) == (2, 3, 8, 6), "devices may have a part of the rows each"


def test_where_planes_pay(monkeypatch):
    x = jnp.zeros((2, 8, 6, lines.FEW))
    assert lines.planes_pay(x, 3)
    assert not lines.planes_pay(jnp.zeros((2, 8, 6, lines.FEW + 1)), 3)
    assert lines.planes_pay(x, 1)
    monkeypatch.setattr(classes, "PLANE", 2**13)
    assert not lines.planes_pay(x, 1), "they are small"
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    assert not lines.planes_pay(x, 3), "devices may have a part of the classes each"


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("classes", [2, 14])
def test_sums_of_large_images_keep_their_digits(classes, axis, request):
    """Of confident predictions: what is wrong is small."""
    if "cuda" in request.node.name:
        pytest.skip("a CPU makes the sums of that branch one by one")
    if jax.__version_info__ < (0, 10) and (classes, axis) == (2, 1):
        pytest.skip("a CPU of that JAX adds products of planes one by one")
    rng = np.random.default_rng(1)
    ids = jnp.asarray(rng.integers(0, classes, (1, 64, 96, 96)))
    logits = rng.normal(size=(*ids.shape, classes)) + 8 * np.eye(classes)[ids]
    logits = jnp.asarray(np.moveaxis(logits, -1, axis), jnp.float32)
    loss = functools.partial(jaxloss.dice, axis=axis)
    expected, slope = in_float64(loss, logits, ids)
    value, gradient = jax.value_and_grad(loss)(logits, ids)
    np.testing.assert_allclose(value, expected, rtol=3e-6)
    np.testing.assert_allclose(gradient, slope, rtol=3e-5, atol=1e-12)


@pytest.mark.parametrize("name", ["giou", "ciou", "siou", "probiou"])
def test_pairs_of_boxes(name):
    """A GPU's numbers see their box in another form."""
    rng = np.random.default_rng(0)
    numbers = 5 if name == "probiou" else 4
    boxes, targets = jnp.asarray(rng.uniform(1, 3, (2, 6, numbers)), jnp.float32)
    options = {} if name == "probiou" else {"format": "cxcywh"}
    loss = functools.partial(getattr(jaxloss, name), **options)
    held_against_float64(loss, boxes, targets, atol=1e-6)
    _, slopes = jax.value_and_grad(loss)(boxes.at[0, 2].set(jnp.nan), targets)
    assert jnp.isnan(slopes[0]).any()
    masked = functools.partial(loss, where=jnp.arange(6) > 0)
    value, slopes = jax.value_and_grad(masked)(boxes.at[0, 2].set(jnp.nan), targets)
    np.testing.assert_allclose(value, loss(boxes[1:], targets[1:]), rtol=1e-6)
    np.testing.assert_array_equal(slopes[0], 0)
    assert jnp.isfinite(slopes).all()
