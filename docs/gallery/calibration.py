"""How sure networks are beside how often they are right, on digits with a fifth of wrong labels."""

import functools

import figures
import jax
import numpy as np
import trials

import jaxloss

SHARE = 0.2
LOSSES = {
    "cross_entropy": jaxloss.cross_entropy,
    "label smoothing 0.1": functools.partial(jaxloss.cross_entropy, label_smoothing=0.1),
    "focal": jaxloss.focal,
    "poly1": jaxloss.poly1,
}


def draw():
    """Draws accuracy by confidence, and the mean gap between them (ECE, 10 bins)."""
    (x, y), (clean, truth) = trials.digits()
    rng = np.random.default_rng(0)

    def spoilt(y):
        wrong = rng.random(len(y)) < SHARE
        return np.where(wrong, (y + rng.integers(1, 10, len(y))) % 10, y).astype(np.int32)

    labels, tested = spoilt(y), spoilt(truth)
    fig, axes = figures.figure(1, len(LOSSES), size=(7.2, 2.0), sharex=True, sharey=True)
    for ax, (name, loss) in zip(axes, LOSSES.items(), strict=True):
        weights = trials.train(loss, x, labels, seed=0, steps=200)
        p = np.asarray(jax.nn.softmax(trials.apply(weights, clean)))
        sure, right = p.max(-1), p.argmax(-1) == tested
        bins = np.minimum((sure * 10).astype(int), 9)
        held = [i for i in range(10) if (bins == i).any()]
        rates = np.array([right[bins == i].mean() for i in held])
        gaps = np.array([abs(right[bins == i].mean() - sure[bins == i].mean()) for i in held])
        ece = (gaps * [(bins == i).mean() for i in held]).sum()
        ax.bar(
            [(i + 0.5) / 10 for i in held], rates, width=0.09, color=figures.COLOURS[0], alpha=0.8
        )
        ax.plot([0, 1], [0, 1], color="#999999", lw=0.8)
        ax.set_title(f"{name}\nECE {ece:.3f}", fontsize=8)
        ax.set_xlabel("confidence")
    axes[0].set_ylabel("accuracy")
    return fig
