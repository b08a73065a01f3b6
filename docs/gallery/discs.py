"""Region and boundary losses of a disc that shrinks and grows, and of one that moves."""

import figures
import plots

import jaxloss

LOSSES = ("dice", "jaccard", "tversky", "log_dice", "boundary_dou")
OPTIONS = {"tversky": {"alpha": 0.3, "beta": 0.7}}


def draw():
    """Draws five losses, each over its largest value."""
    fig, axes = figures.figure(1, 2, size=(6.4, 2.6), sharey=True)
    for name in LOSSES:
        for ax, view in zip(axes, plots.of_discs(name, getattr(jaxloss, name)), strict=True):
            line = view.lines[""](view.x.astype("float32"), **OPTIONS.get(name, {}))
            ax.plot(view.x, line / line.max(), label=name)
            ax.set_xlabel(view.label)
    axes[0].set_ylabel("value over its largest")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(LOSSES))
    return fig
