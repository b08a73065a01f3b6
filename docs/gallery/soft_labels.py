"""Where losses of one probability have their minimum when the label is 0.3."""

import figures
import jax.numpy as jnp
import numpy as np

import jaxloss

LABEL = 0.3
LOSSES = {
    "dice": {"smooth": 0.0},
    "dice, squared": {"smooth": 0.0, "squared": True},
    "jaccard": {"smooth": 0.0},
    "noise_robust_dice": {"smooth": 0.0},
    "binary_cross_entropy": {},
    "dice_semimetric": {"smooth": 0.0},
}
COLOURS = [*figures.COLOURS, "#c9a227"]


def draw():
    """Draws each loss over the probability of an image whose pixels all have that label."""
    p = np.linspace(0.01, 0.99, 99, dtype=np.float32)
    images = np.broadcast_to(p[:, None, None], (len(p), 4, 4))
    labels = np.full_like(images, LABEL)
    fig, ax = figures.figure(size=(4.6, 2.6))
    for (title, options), colour in zip(LOSSES.items(), COLOURS, strict=True):
        loss = getattr(jaxloss, title.split(",")[0])
        value = loss(images, labels, axis=None, activation=None, reduction="none", **options)
        value = jnp.reshape(value, (len(p), -1)).mean(-1)
        ax.plot(p, value / value.max(), label=title, color=colour)
        ax.plot(p[value.argmin()], value.min() / value.max(), "o", color=colour)
    ax.axvline(LABEL, color="#999999", lw=0.8, ls=":")
    ax.set(xlabel=f"probability, of the label {LABEL}", ylabel="value over its largest")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig
