"""Golden numbers of the boundary losses: writes boundary.json beside this file.

Run by hand in the environment that peers.py describes. MONAI's HausdorffDTLoss is run where it is
right (a float target, neither mask empty or full). The formulas of SegLoss, of Kervadec et al. and
of the authors of the boundary DoU loss are written here in torch and SciPy from their published
description; what they get wrong is not repeated.
"""

import importlib

import numpy as np
import torch
from peers import BINARY, MAP, MASK, PIXELS, golden, normal, one_hot, seek, t, uniform, write
from scipy.ndimage import distance_transform_edt as edt

monai = importlib.import_module("monai.losses.hausdorff_loss")

WIDE = normal(2, 6, 7)
WIDE_MASK = np.zeros((2, 6, 7))
WIDE_MASK[0, 1:4, 2:6] = WIDE_MASK[1, 3:, :4] = WIDE_MASK[1, 0, 5] = 1
VOLUME = normal(1, 4, 5, 5)
VOLUME_MASK = np.zeros((1, 4, 5, 5))
VOLUME_MASK[0, 1:3, 1:4, 1:5] = 1
OUR = {"axis": None}


def hausdorff():
    for alpha in (2.0, 1.0):
        golden(
            "hausdorff_dt",
            f"monai binary alpha {alpha}",
            "monai HausdorffDTLoss",
            lambda x, alpha=alpha: monai.HausdorffDTLoss(
                alpha=alpha, include_background=True, sigmoid=True
            )(x[:, None], t(WIDE_MASK)[:, None]),
            [WIDE, WIDE_MASK],
            alpha=alpha,
            rtol=1e-5,  # its distances are float32
            **OUR,
        )
    golden(
        "hausdorff_dt",
        "monai softmax",
        "monai HausdorffDTLoss",
        lambda x: monai.HausdorffDTLoss(softmax=True)(x, t(one_hot(MAP, 3))),
        [3 * PIXELS, MAP],
        axis=1,
        rtol=1e-5,
    )
    golden(
        "hausdorff_dt",
        "monai volume",
        "monai HausdorffDTLoss",
        lambda x: monai.HausdorffDTLoss(include_background=True, sigmoid=True)(
            x[:, None], t(VOLUME_MASK)[:, None]
        ),
        [VOLUME, VOLUME_MASK],
        rtol=1e-5,
        **OUR,
    )


def sides(mask):
    """The distances inside and outside of each mask, each 0 on the other side."""
    return np.stack([edt(m) for m in mask]), np.stack([edt(1 - m) for m in mask])


def penalty(mask):
    """SegLoss compute_edts_forPenalizedLoss, for masks with two sides of several distances."""
    found = np.zeros(mask.shape)
    for side, d in zip((mask > 0, mask == 0), sides(mask), strict=True):
        for n in range(len(mask)):
            inside = side[n]
            found[n][inside] = (d[n].max() - d[n])[inside]
            found[n][inside] /= found[n][inside].max()
    return found


def segloss():
    phi = t(penalty(WIDE_MASK))
    y = t(WIDE_MASK)

    def dice(x):
        p = torch.sigmoid(x)
        both, size = (p * y * (1 + phi)).sum((1, 2)), (p + y).sum((1, 2))
        return 1 - ((2 * both + 1e-5) / (size + 1e-5)).mean()

    golden(
        "distance_penalized_dice",
        "segloss",
        "formula of SegLoss DistBinaryDiceLoss, plus 1",
        dice,
        [WIDE, WIDE_MASK],
        normalized=False,
        **OUR,
    )
    golden(
        "distance_penalized_cross_entropy",
        "segloss",
        "formula of SegLoss DisPenalizedCE, with its map",
        lambda x: (
            (1 + phi) * torch.nn.functional.cross_entropy(x, y.long(), reduction="none")
        ).mean(),
        [np.stack([WIDE, -WIDE], 1), WIDE_MASK.astype(int)],
        axis=1,
    )
    inside, outside = sides(WIDE_MASK)
    high = lambda d: d.max((1, 2), keepdims=True)
    sdf = t(outside / high(outside) - inside / high(inside))

    def regression(f):
        both = (f * sdf).sum((1, 2)) + 1e-5
        rest = (f**2).sum((1, 2)) + (sdf**2).sum((1, 2))
        return ((f - sdf).abs().mean((1, 2)) - both / (both + rest)).mean()

    golden(
        "signed_distance_regression",
        "aaai",
        "formula of AAAI 2020, on its map without the forced rim",
        regression,
        [uniform(2, 6, 7, low=-1.0, high=1.0), WIDE_MASK],
    )
    kervadec = t(outside - (inside - 1) * WIDE_MASK)
    golden(
        "boundary",
        "kervadec",
        "formula of LIVIAETS SurfaceLoss, its map not rounded",
        lambda x: (torch.sigmoid(x) * kervadec).mean(),
        [WIDE, WIDE_MASK],
        **OUR,
    )


def erosion():
    cross = t([[0.0, 1, 0], [1, 1, 1], [0, 1, 0]])[None, None] / 5

    def original(x, y):
        bound = (torch.sigmoid(x) - t(y))[:, None] ** 2
        total = torch.zeros_like(bound)
        for k in range(1, 5):
            bound = torch.relu(torch.nn.functional.conv2d(bound, cross, padding=1) - 0.5)
            low, high = bound.amin((2, 3), keepdim=True), bound.amax((2, 3), keepdim=True)
            scaled = (bound - low) / torch.where(high > low, high - low, 1)
            bound = torch.where(high > low, scaled, bound)
            total = total + k**2 * bound
        return total.mean()

    golden(
        "hausdorff_erosion",
        "kornia",
        "formula of kornia HausdorffERLoss, k from 1 to 4",
        lambda x: original(x, WIDE_MASK),
        [3 - 8 * WIDE_MASK + 0.2 * WIDE, WIDE_MASK],
        erosions=4,
        **OUR,
    )


def boundary_dou():
    cross = t([[0.0, 1, 0], [1, 1, 1], [0, 1, 0]])[None, None]

    def original(x, mask):
        losses = []
        for one, y in zip(torch.sigmoid(x), t(mask), strict=True):
            near = torch.nn.functional.conv2d(y[None, None], cross, padding=1)[0, 0] * y
            near[near == 5] = 0
            size = y.sum()
            alpha = min(2 * (1 - torch.count_nonzero(near) / size) - 1, t(0.8))
            both, squares = (one * y).sum(), (one * one).sum()
            top = squares + size - 2 * both
            losses.append(top / (squares + size - (1 + alpha) * both + 1e-5))
        return torch.stack(losses).mean()

    for name, x, mask in (("wide", WIDE, WIDE_MASK), ("small", BINARY, MASK)):
        golden(
            "boundary_dou",
            name,
            "formula of the authors' BoundaryDoULoss, without smooth in the numerator or the ratio",
            lambda x, mask=mask: original(x, mask),
            [x, mask],
            **OUR,
        )


def signed_distance(mask):
    """Kervadec's map: outside +d, inside -(d - 1); 0 where the mask is empty or full.

    The authors' one_hot2dist writes the distances into an integer array, as its data loader
    hands it an integer one-hot, and so truncates them; theirs are meant to be floats, as here.
    """
    if mask.all() or not mask.any():
        return np.zeros(mask.shape)
    return np.where(mask, 1 - edt(mask), edt(~mask))


def boundary():
    source = "mean of phi * p (1812.07032), phi by scipy.ndimage.distance_transform_edt"
    seek(304)
    logits = normal(2, 3, 6, 7)
    ids = np.zeros((2, 6, 7), int)
    ids[0, 1:5, 1:4] = 1
    ids[0, 3:, 5:] = 2
    ids[1, :4, 2:] = 2  # class 1 is absent from this image: its map is 0
    classes = one_hot(ids, 3)
    overlapping = classes.copy()
    overlapping[:, 1, 2:4, 3:6] = 1
    overlapping[1, 0] = 1  # a full mask: its map is 0
    phi = np.stack([[signed_distance(c == 1) for c in image] for image in classes])
    phi_overlapping = np.stack([[signed_distance(c == 1) for c in image] for image in overlapping])
    given = normal(2, 3, 6, 7)

    golden(
        "boundary",
        "ids",
        source,
        lambda x: (t(phi) * x.softmax(1))[:, 1:].mean(),
        [logits, ids],
        axis=1,
    )
    golden(
        "boundary",
        "ids none",
        source,
        lambda x: (t(phi) * x.softmax(1))[:, 1:].mean((2, 3)),
        [logits, ids],
        axis=1,
        reduction="none",
    )
    golden(
        "boundary",
        "ids with background",
        source,
        lambda x: (t(phi) * x.softmax(1)).mean(),
        [logits, ids],
        axis=1,
        include_background=True,
    )
    golden(
        "boundary",
        "one-hot softmax",
        source,
        lambda x: (t(phi) * x.softmax(1))[:, 1:].mean(),
        [logits, classes],
        axis=1,
        activation="softmax",
    )
    golden(
        "boundary",
        "sigmoid",
        source,
        lambda x: (t(phi_overlapping) * x.sigmoid()).mean(),
        [logits, overlapping],
        axis=1,
    )
    golden(
        "boundary",
        "probabilities",
        source,
        lambda p: (t(phi_overlapping) * p).mean(),
        [uniform(*logits.shape), overlapping],
        axis=1,
        activation=None,
        include_background=True,
    )
    golden(
        "boundary",
        "no class axis",
        source,
        lambda x: (t(phi[:, 1]) * x.sigmoid()).mean(),
        [logits[:, 1], classes[:, 1]],
        axis=None,
    )
    golden(
        "boundary",
        "given map",
        "mean of phi * p (1812.07032)",
        lambda x: (t(given) * x.softmax(1))[:, 1:].mean(),
        [logits, ids],
        axis=1,
        distance_map=given,
    )
    volume = np.zeros((1, 4, 4, 5))
    volume[0, 1:4, 1:3, 1:4] = 1
    golden(
        "boundary",
        "volume",
        source,
        lambda x: (t(signed_distance(volume[0] == 1)) * x.sigmoid()).mean(),
        [normal(*volume.shape), volume],
        axis=None,
    )


hausdorff()
segloss()
erosion()
boundary_dou()
boundary()
write("boundary.json")
