"""Precision and recall of faint digits in noise, by the price of false positives and negatives."""

import figures
import jax
import jax.numpy as jnp
import numpy as np
import optax
import sklearn.datasets

import jaxloss

ALPHAS = (0.1, 0.3, 0.5, 0.7, 0.9)
SEEDS = 3
NOISE, INK, SIZE = 0.5, 7, 32
REACH = 3  # pixels around the one that is judged
SIZES = ((2 * REACH + 1) ** 2, 24), (24, 1)
STEPS = 200
OPTIMIZER = optax.adam(1e-2)


def scenes(rng, digits, count=32):
    """Returns the surroundings of each pixel of noisy images, one digit in each, and the masks."""
    images = np.zeros((count, SIZE, SIZE), np.float32)
    for image in images:
        y, x = rng.integers(0, SIZE - 8, 2)
        image[y : y + 8, x : x + 8] = digits[rng.integers(len(digits))] / 16
    masks = (images * 16 > INK).astype(np.float32)
    images += NOISE * rng.normal(size=images.shape).astype(np.float32)
    padded = np.pad(images, ((0, 0), (REACH, REACH), (REACH, REACH)))
    side = 2 * REACH + 1
    near = np.lib.stride_tricks.sliding_window_view(padded, (side, side), (1, 2))
    return np.ascontiguousarray(near).reshape(*images.shape, -1), masks


def apply(weights, x):
    """A network of one hidden layer, on each pixel's surroundings."""
    (first, bias), (second, offset) = weights
    return (jax.nn.relu(x @ first + bias) @ second + offset)[..., 0]


@jax.jit
def train(weights, x, masks, alpha):
    """Returns the weights after full-batch steps of Adam."""

    def loss(weights):
        return jaxloss.tversky(apply(weights, x), masks, alpha=alpha, beta=1 - alpha, axis=None)

    def step(carry, _):
        weights, state = carry
        updates, state = OPTIMIZER.update(jax.grad(loss)(weights), state)
        return (optax.apply_updates(weights, updates), state), None

    return jax.lax.scan(step, (weights, OPTIMIZER.init(weights)), length=STEPS)[0][0]


def rates(alpha, seed):
    """Returns precision and recall on digits that were not trained on."""
    digits = sklearn.datasets.load_digits().images
    rng = np.random.default_rng(seed)
    make = jax.nn.initializers.he_normal()
    keys = jax.random.split(jax.random.key(seed))
    weights = [(make(key, size), jnp.zeros(size[1])) for key, size in zip(keys, SIZES, strict=True)]
    weights = train(weights, *scenes(rng, digits[::2]), alpha)
    x, masks = scenes(rng, digits[1::2])
    found = np.asarray(apply(weights, x) > 0)
    hits = (found * masks).sum()
    return hits / max(found.sum(), 1), hits / masks.sum()


def table():
    """Returns the mean precision and recall of each alpha."""
    return np.array([np.mean([rates(alpha, seed) for seed in range(SEEDS)], 0) for alpha in ALPHAS])


def draw():
    """Draws precision against recall, one point for each alpha."""
    found = table()
    fig, ax = figures.figure(size=(4.2, 2.8))
    ax.plot(found[:, 1], found[:, 0], "o-")
    for alpha, (precision, recall) in zip(ALPHAS, found, strict=True):
        ax.annotate(f"  alpha {alpha}", (recall, precision), fontsize=8)
    ax.set(xlabel="recall", ylabel="precision")
    ax.margins(x=0.2)
    return fig


if __name__ == "__main__":
    for alpha, (precision, recall) in zip(ALPHAS, table(), strict=True):
        print(f"| {alpha} | {precision:.3f} | {recall:.3f} |")
