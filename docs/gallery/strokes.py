"""What a gap in a thin branch of a thick vessel costs: Dice sees its area, clDice the line."""

import figures
import numpy as np

import jaxloss

LENGTH, THICK, THIN = 96, 11, 3
OPTIONS = {"axis": None, "activation": None, "smooth": 0.0}
LOSSES = {
    "dice": lambda *images: jaxloss.dice(*images, **OPTIONS),
    "cldice": lambda *images: jaxloss.cldice(*images, iterations=6, **OPTIONS),
}


def vessels(gap=0, thick=THICK):
    """Returns an image of a thick line and of a thin one with a gap."""
    image = np.zeros((1, 48, 112), np.float32)
    image[:, 8 : 8 + thick, 8 : 8 + LENGTH] = 1
    image[:, 34 : 34 + THIN, 8 : 8 + LENGTH] = 1
    image[:, :, 54 : 54 + gap][:, 32:] = 0
    return image


def draw():
    """Draws both losses by the size of the gap, beside a thick line that is 2 pixels too thin."""
    gaps = np.arange(0, 41, 4)
    fig, ax = figures.figure(size=(4.6, 2.6))
    for name, loss in LOSSES.items():
        ax.plot(gaps, [loss(vessels(gap), vessels()) for gap in gaps], label=f"{name}, a gap")
        thin = float(loss(vessels(thick=THICK - 2), vessels()))
        colour = ax.lines[-1].get_color()
        ax.axhline(thin, color=colour, ls="--", lw=1, label=f"{name}, too thin")
    ax.set(xlabel=f"gap in the thin line of {LENGTH} pixels", ylabel="value")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig
