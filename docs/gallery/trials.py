"""Small trainings on the digits of scikit-learn, which the trials of the gallery share."""

import functools

import figures
import jax
import jax.numpy as jnp
import numpy as np
import optax
import sklearn.datasets

CLASSES = 10
HIDDEN = 64


def digits():
    """Returns images and labels for training (even rows) and for the test (odd rows)."""
    found = sklearn.datasets.load_digits()
    x, y = found.data.astype(np.float32) / 16, found.target.astype(np.int32)
    return (x[::2], y[::2]), (x[1::2], y[1::2])


def network(seed):
    """Returns the weights of a network with one hidden layer."""
    keys = jax.random.split(jax.random.key(seed))
    sizes = (64, HIDDEN), (HIDDEN, CLASSES)
    make = jax.nn.initializers.glorot_normal()
    return [(make(key, size), jnp.zeros(size[1])) for key, size in zip(keys, sizes, strict=True)]


def apply(weights, x):
    """Returns the logits."""
    (first, bias), (second, offset) = weights
    return jax.nn.relu(x @ first + bias) @ second + offset


@functools.partial(jax.jit, static_argnames=("loss", "steps"))
def train(loss, x, y, seed, steps=600):
    """Returns the weights after full-batch steps of Adam on `loss(logits, labels)`."""
    optimizer = optax.adam(3e-3)

    def step(carry, _):
        weights, state = carry
        gradient = jax.grad(lambda weights: loss(apply(weights, x), y))(weights)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(weights, updates), state), None

    weights = network(seed)
    return jax.lax.scan(step, (weights, optimizer.init(weights)), length=steps)[0][0]


def accuracies(weights, x, y):
    """Returns the accuracy on each class."""
    right = np.asarray(apply(weights, x).argmax(-1) == y)
    return np.array([right[y == c].mean() for c in range(CLASSES)])


def by_share(shares, rows, **labels):
    """Draws a line for each named row of numbers, by the share of what is wrong."""
    fig, ax = figures.figure(size=(4.8, 2.6))
    for name, row in rows.items():
        ax.plot(shares, row, "o-", ms=3, label=name)
    ax.set(**labels)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def show(rows):
    """Prints the rows of a page's table."""
    for name, row in rows.items():
        print(f"| `{name}` | " + " | ".join(f"{value:.3f}" for value in row) + " |")
