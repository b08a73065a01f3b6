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
NOISE, INK = 1.0, 7
STEPS = 150


def scenes(rng, digits, count, size=40):
    """Returns noisy images of one small digit each, and its mask."""
    images = np.zeros((count, size, size), np.float32)
    for image in images:
        y, x = rng.integers(0, size - 8, 2)
        image[y : y + 8, x : x + 8] = digits[rng.integers(len(digits))] / 16
    masks = (images * 16 > INK).astype(np.float32)
    return images + NOISE * rng.normal(size=images.shape).astype(np.float32), masks


def apply(weights, images):
    """Three convolutions."""
    x = images[..., None]
    for i, (kernel, bias) in enumerate(weights):
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = x + bias if i == len(weights) - 1 else jax.nn.relu(x + bias)
    return x[..., 0]


def rates(alpha, seed):
    """Returns precision and recall on digits that were not trained on."""
    digits = sklearn.datasets.load_digits().images
    rng = np.random.default_rng(seed)
    images, masks = scenes(rng, digits[::2], 64)
    keys = jax.random.split(jax.random.key(seed), 3)
    make = jax.nn.initializers.he_normal(in_axis=(0, 1, 2), out_axis=3)
    sizes = (5, 5, 1, 8), (5, 5, 8, 8), (1, 1, 8, 1)
    weights = [(make(key, size), jnp.zeros(size[-1])) for key, size in zip(keys, sizes, strict=True)]
    optimizer = optax.adam(1e-2)

    def step(carry, _):
        weights, state = carry

        def loss(weights):
            logits = apply(weights, images)
            return jaxloss.tversky(logits, masks, alpha=alpha, beta=1 - alpha, axis=None)

        gradient = jax.grad(loss)(weights)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(weights, updates), state), None

    start = weights, optimizer.init(weights)
    weights = jax.jit(lambda start: jax.lax.scan(step, start, length=STEPS)[0][0])(start)
    images, masks = scenes(rng, digits[1::2], 64)
    found = np.asarray(apply(weights, images) > 0)
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
