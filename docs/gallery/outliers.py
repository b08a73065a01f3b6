"""Patients of whom a share has a wrong number, far above all others: error on clean ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import sklearn.datasets
import trials

import jaxloss

SHARES = (0.0, 0.1, 0.2, 0.4)
SEEDS = 5
WRONG = 8.0  # standard deviations above the mean, where the largest true number has 2.5
LOSSES = {
    "l2": jaxloss.l2,
    "l1": jaxloss.l1,
    "huber": jaxloss.huber,
    "general_robust, alpha=0": functools.partial(jaxloss.general_robust, alpha=0.0),
    "general_robust, alpha=-2": functools.partial(jaxloss.general_robust, alpha=-2.0),
}


@functools.partial(jax.jit, static_argnames=("loss", "steps"))
def fit(loss, x, y, steps=1500):
    """Returns slopes and offset of a linear model after full-batch steps of Adam."""
    optimizer = optax.adam(1e-2)

    def step(carry, _):
        model, state = carry
        gradient = jax.grad(lambda model: loss(x @ model[0] + model[1], y))(model)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(model, updates), state), None

    model = jnp.zeros(x.shape[1]), jnp.zeros(())
    return jax.lax.scan(step, (model, optimizer.init(model)), length=steps)[0][0]


def table():
    """Returns the mean absolute error over the seeds, of each loss by shares."""
    x, y = sklearn.datasets.load_diabetes(return_X_y=True)
    x, y = ((a - a.mean(0)) / a.std(0) for a in (x.astype(np.float32), y.astype(np.float32)))
    found = np.zeros((len(LOSSES), len(SHARES), SEEDS))
    for j, share in enumerate(SHARES):
        for seed in range(SEEDS):
            rng = np.random.default_rng(seed)
            order = rng.permutation(len(y))
            train, test = order[::2], order[1::2]
            targets = np.where(rng.random(len(train)) < share, WRONG, y[train]).astype(np.float32)
            for i, loss in enumerate(LOSSES.values()):
                slopes, offset = fit(loss, x[train], targets)
                found[i, j, seed] = np.abs(x[test] @ slopes + offset - y[test]).mean()
    return dict(zip(LOSSES, found.mean(-1), strict=True))


def draw():
    """Draws the error by the share of wrong numbers."""
    labels = {"xlabel": "share of wrong numbers", "ylabel": "error on clean ones"}
    return trials.by_share(SHARES, table(), **labels)


if __name__ == "__main__":
    trials.show(table())
