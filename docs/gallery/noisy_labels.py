"""Digits of which a share has a wrong label: accuracy on clean ones."""

import functools

import numpy as np
import trials

import jaxloss

SHARES = (0.0, 0.2, 0.4, 0.6)
SEEDS = 3
LOSSES = {
    "cross_entropy": jaxloss.cross_entropy,
    "focal": jaxloss.focal,
    "generalized_cross_entropy": jaxloss.generalized_cross_entropy,
    "symmetric_cross_entropy": jaxloss.symmetric_cross_entropy,
    "bi_tempered": functools.partial(jaxloss.bi_tempered, t1=0.5, t2=2.0),
}


def table():
    """Returns the mean accuracy over the seeds, of each loss by shares."""
    (x, y), test = trials.digits()
    found = np.zeros((len(LOSSES), len(SHARES), SEEDS))
    for j, share in enumerate(SHARES):
        for seed in range(SEEDS):
            rng = np.random.default_rng(seed)
            wrong = rng.random(len(y)) < share
            labels = np.where(wrong, (y + rng.integers(1, 10, len(y))) % 10, y).astype(np.int32)
            for i, loss in enumerate(LOSSES.values()):
                weights = trials.train(loss, x, labels, seed)
                found[i, j, seed] = trials.accuracies(weights, *test).mean()
    return dict(zip(LOSSES, found.mean(-1), strict=True))


def draw():
    """Draws accuracy by the share of wrong labels."""
    labels = {"xlabel": "share of wrong labels", "ylabel": "accuracy on clean digits"}
    return trials.by_share(SHARES, table(), **labels)


if __name__ == "__main__":
    trials.show(table())
