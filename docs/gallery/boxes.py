"""The way of one box under each loss: 200 steps down the gradient to a box it does not meet."""

import figures
import jax
import jax.numpy as jnp
import matplotlib.patches
import numpy as np

import jaxloss

LOSSES = ("iou", "giou", "diou", "ciou", "eiou")
START = jnp.array([8.2, 11.5, 1.8, 0.6])  # centre and size
TARGET = jnp.array([10.0, 10.0, 0.8, 1.25])
RATES = np.repeat([0.1, 0.01, 0.001], [160, 20, 20])  # of each step


def way(loss):
    """Returns the box after every step, longer where boxes do not meet, as in the paper."""

    def step(box, rate):
        gradient = jax.grad(loss)(box, TARGET, format="cxcywh")
        missed = jaxloss.iou(box, TARGET, format="cxcywh")
        moved = box - rate * (1 + missed) * gradient
        return moved, moved

    return jax.lax.scan(step, START, jnp.asarray(RATES))[1]


def draw():
    """Draws the box at five moments for each loss."""
    fig, axes = figures.figure(1, len(LOSSES), size=(7.2, 1.9), sharex=True, sharey=True)
    for ax, name in zip(axes, LOSSES, strict=True):
        path = np.asarray(way(getattr(jaxloss, name)))
        overlap = 1 - jaxloss.iou(path[-1], TARGET, format="cxcywh")
        for i, shade in zip((0, 24, 49, 99, 199), np.linspace(0.25, 1, 5), strict=True):
            ax.add_patch(_rectangle(path[i], figures.COLOURS[0], shade))
        ax.add_patch(_rectangle(np.asarray(TARGET), figures.COLOURS[1], 1, "--"))
        ax.plot(path[:, 0], path[:, 1], color=figures.COLOURS[0], lw=0.8)
        ax.set(xlim=(6.8, 11.2), ylim=(8.6, 12.4), aspect="equal", xticks=[], yticks=[])
        ax.set_title(f"{name}: IoU {overlap:.2f}", fontsize=8)
    return fig


def _rectangle(box, colour, alpha, line="-"):
    x, y, w, h = box
    options = {"fill": False, "edgecolor": colour, "alpha": float(alpha), "linestyle": line}
    return matplotlib.patches.Rectangle((x - w / 2, y - h / 2), w, h, **options)
