"""What a gap in a thin stroke costs: Dice sees its area, clDice the broken line."""

import figures
import numpy as np

import jaxloss

WIDTH, LENGTH = 3, 96


def losses(gap):
    """Returns Dice and clDice of a stroke that is predicted but for `gap` pixels of its length."""
    stroke = np.zeros((1, 32, 112), np.float32)
    stroke[:, 14 : 14 + WIDTH, 8 : 8 + LENGTH] = 1
    broken = stroke.copy()
    broken[:, :, 54 : 54 + gap] = 0
    thin = stroke.copy()
    thin[:, 14, : 8 + LENGTH] = 0  # whole, but a row of pixels thinner
    options = {"axis": None, "activation": None, "smooth": 0.0}
    return [
        [float(loss(image, stroke, **options)) for loss in (jaxloss.dice, jaxloss.cldice)]
        for image in (broken, thin)
    ]


def draw():
    """Draws both losses by the size of the gap, beside those of a stroke that is too thin."""
    gaps = np.arange(0, 33, 2)
    found = np.array([losses(gap) for gap in gaps])
    fig, ax = figures.figure(size=(4.6, 2.6))
    for i, name in enumerate(("dice", "cldice")):
        ax.plot(gaps, found[:, 0, i], label=f"{name}, a gap")
        colour = ax.lines[-1].get_color()
        ax.axhline(found[0, 1, i], color=colour, ls="--", lw=1, label=f"{name}, a third too thin")
    ax.set(xlabel=f"gap in a stroke of {WIDTH} x {LENGTH}, pixels", ylabel="value")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig
