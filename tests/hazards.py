"""Samples and helpers of the tests of hazards."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import jaxloss

INF, NAN = np.float32(np.inf), np.float32(np.nan)
HALVES = (np.dtype("float16"), jnp.dtype("bfloat16"))


def array(*values):
    return np.array(values, np.float32)


def one_hot(ids, classes):
    return np.eye(classes, dtype=np.float32)[ids]


def samples():
    """For each loss: the function, its prediction and target, and a mask of what takes part."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    logits, ids, labels = normal(6, 3), array(0, 1, 2, 2, 1, 0).astype(np.int32), normal(6, 3) > 0
    images, masks = normal(2, 4, 5, 3), rng.integers(3, size=(2, 4, 5)).astype(np.int32)
    corners = rng.uniform(size=(2, 6, 2)).astype(np.float32)
    sizes = rng.uniform(0.5, 1, size=(2, 6, 2)).astype(np.float32)
    boxes, others = np.concatenate([corners, corners + sizes], -1)
    rows, pixels = np.arange(6) % 3 > 0, np.arange(20).reshape(4, 5) % 3 > 0
    elements, pixels = (normal(6, 3) > -0.5), np.stack([pixels, pixels])
    position, element = (logits, ids, rows), (logits, labels.astype(np.float32), elements)
    region, pair = (images, masks, pixels), (boxes, others, rows)
    line = (logits[:, 0], logits[:, 1], rows)
    squared = functools.partial(jaxloss.dice, squared=True)
    counts = functools.partial(jaxloss.dice, squared="counts")
    return {
        "l2": (jaxloss.l2, *line),
        "huber": (jaxloss.huber, *line),
        "nll": (jaxloss.nll, *position),
        "cross_entropy": (jaxloss.cross_entropy, *position),
        "softmax_focal": (jaxloss.softmax_focal, *position),
        "binary_cross_entropy": (jaxloss.binary_cross_entropy, *element),
        "sigmoid_focal": (jaxloss.sigmoid_focal, *element),
        "dice": (jaxloss.dice, *region),
        "dice-squared": (squared, *region),
        "dice-counts": (counts, *region),
        "jaccard": (jaxloss.jaccard, *region),
        "tversky": (jaxloss.tversky, *region),
        "dice_cross_entropy": (jaxloss.dice_cross_entropy, *region),
        "boundary": (jaxloss.boundary, *region),
        "giou": (jaxloss.giou, *pair),
        "ciou": (jaxloss.ciou, *pair),
    }


SAMPLES = samples()
POSITION = ("nll", "cross_entropy", "softmax_focal")
ELEMENT = ("binary_cross_entropy", "sigmoid_focal")
LABELLED = (*POSITION, *ELEMENT)
REGION = ("dice", "dice-squared", "dice-counts", "jaccard", "tversky")
IMAGES = (*REGION, "dice_cross_entropy", "boundary")
BOXES = ("giou", "ciou")


def rows(loss, x, *others, forward=True):
    """Value, gradient and full forward-mode derivative of each row, from one compiled call."""

    def one(x, *others):
        value, gradient = jax.value_and_grad(loss)(x, *others)
        return value, gradient, jax.jacfwd(loss)(x, *others) if forward else gradient

    return jax.jit(jax.vmap(one))(x, *others)


def compiled(loss, x, *others, **options):
    """Value and gradient, compiled with the options and the other arguments as constants."""
    return jax.jit(jax.value_and_grad(lambda x: loss(x, *others, **options)))(x)


def assert_rows(results, value, gradient=0.0, rtol=1e-6):
    """Requires a value and a gradient of each row, the gradient in both modes."""
    np.testing.assert_allclose(results[0], value, rtol=rtol)
    expected = np.broadcast_to(gradient, results[1].shape)
    np.testing.assert_allclose(results[1], expected, rtol=rtol, atol=1e-7)
    np.testing.assert_allclose(results[2], expected, rtol=rtol, atol=1e-7)


def assert_finite(tree):
    for leaf in jax.tree.leaves(tree):
        assert np.isfinite(np.asarray(leaf, np.float64)).all()


def slots(mask, x):
    """The mask in the rank of the prediction."""
    return mask if mask.ndim == x.ndim else mask[..., None]


@functools.cache
def masked(name):
    """Value, gradient and directional derivative of seven ways to leave something out.

    The slots that the mask leaves out hold: themselves, NaN, inf, -inf; then nothing is valid and
    all is NaN, all weights are 0, and the mask is given as weights.
    """
    loss, x, y, where = SAMPLES[name]
    everything, ones = np.ones_like(where), np.ones(where.shape, np.float32)

    def filled(values, mask, filler):
        if values.dtype != np.float32:
            return values
        return np.where(slots(mask, values), values, np.float32(filler))

    cases = [(x, y, where, ones)]
    cases += [(filled(x, where, f), filled(y, where, f), where, ones) for f in (NAN, INF, -INF)]
    nothing = np.zeros_like(where)
    cases += [(filled(x, nothing, NAN), filled(y, nothing, NAN), nothing, ones)]
    cases += [(x, y, everything, 0 * ones), (x, y, everything, where.astype(np.float32))]

    def one(x, y, where, weights):
        def of(x):
            return loss(x, y, where=where, weights=weights)

        value, gradient = jax.value_and_grad(of)(x)
        return value, gradient, jax.jvp(of, (x,), (jnp.ones_like(x),))[1]

    stacked = [np.stack(column) for column in zip(*cases, strict=True)]
    return [np.asarray(leaf) for leaf in jax.jit(jax.vmap(one))(*stacked)]
