"""Digits whose classes have 64 to 2 samples: accuracy on each class of a balanced test."""

import functools

import figures
import numpy as np
import trials

import jaxloss

COUNTS = np.geomspace(64, 2, trials.CLASSES).round().astype(int)
SEEDS = 3
WEIGHTS = jaxloss.inverse_frequency_weights(COUNTS.astype(np.float32))
PRIORS = COUNTS.astype(np.float32)
LOSSES = {
    "cross_entropy": jaxloss.cross_entropy,
    "cross_entropy, class_weights": functools.partial(jaxloss.cross_entropy, class_weights=WEIGHTS),
    "focal": jaxloss.focal,
    "logit_adjusted": functools.partial(jaxloss.logit_adjusted, priors=PRIORS),
    "ldam": functools.partial(jaxloss.ldam, class_counts=PRIORS, scale=1.0, max_margin=3.0),
}


def table():
    """Returns the mean accuracy of each class over the seeds, losses by classes."""
    (x, y), test = trials.digits()
    found = np.zeros((len(LOSSES), trials.CLASSES, SEEDS))
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        kept = [rng.permutation(np.flatnonzero(y == c))[:n] for c, n in enumerate(COUNTS)]
        kept = np.concatenate(kept)
        for i, loss in enumerate(LOSSES.values()):
            weights = trials.train(loss, x[kept], y[kept], seed)
            found[i, :, seed] = trials.accuracies(weights, *test)
    return found.mean(-1)


def draw():
    """Draws accuracy by the number of samples."""
    found = table()
    fig, ax = figures.figure(size=(6.4, 2.8))
    for name, row in zip(LOSSES, found, strict=True):
        ax.plot(row, "o-", ms=3, label=f"{name}\n(mean {row.mean():.3f})")
    ax.set(xlabel="training samples of the class", ylabel="accuracy on the class")
    ax.set_xticks(range(len(COUNTS)), COUNTS)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig


if __name__ == "__main__":
    for name, row in zip(LOSSES, table(), strict=True):
        few, many = row[-3:].mean(), row[:3].mean()
        print(f"| `{name}` | {row.mean():.3f} | {many:.3f} | {few:.3f} |")
