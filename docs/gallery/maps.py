"""The maps that boundary losses are made of, of a real mask: a digit of scikit-learn."""

import figures
import matplotlib.ticker
import numpy as np
import sklearn.datasets

from jaxloss import distance


def digit(index=0, scale=8):
    """Returns the mask of a digit, its pixels repeated."""
    image = sklearn.datasets.load_digits().images[index]
    return np.kron(np.pad(image, 1) > 7, np.ones((scale, scale), bool))


def draw():
    """Draws a mask and four maps of it."""
    mask = digit()
    shown = {
        "mask": mask.astype(float),
        "signed_distance": distance.signed_distance(mask),
        "compute_sdf": distance.compute_sdf(mask, normalize=True),
        "penalty": distance.compute_edts_for_penalized_loss(mask),
        "Hausdorff": distance.compute_edts_for_hausdorff_loss(mask),
    }
    fig, axes = figures.figure(1, len(shown), size=(7.2, 2.2))
    for ax, (title, image) in zip(axes, shown.items(), strict=True):
        image = np.asarray(image)
        signed = image.min() < 0
        limit = np.abs(image).max()
        drawn = ax.imshow(
            image,
            cmap="RdBu_r" if signed else "viridis",
            vmin=-limit if signed else 0,
            vmax=limit,
        )
        ax.set_title(title, fontsize=7.5)
        ax.set_axis_off()
        fig.colorbar(
            drawn,
            ax=ax,
            orientation="horizontal",
            shrink=0.9,
            ticks=matplotlib.ticker.MaxNLocator(3),
        )
    return fig
