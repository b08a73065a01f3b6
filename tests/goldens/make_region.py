"""Golden numbers of region losses: writes region.json beside this file.

Run by hand in the environment that peers.py describes.
"""

# ruff: noqa: B023 (`golden` calls every lambda at once)
import importlib

import numpy as np
import torch
from kornia.losses import dice_loss
from monai.losses import GeneralizedDiceLoss, GeneralizedWassersteinDiceLoss
from monai.metrics.regression import MultiScaleSSIMMetric, SSIMMetric
from peers import (
    BINARY,
    MAP,
    MAP_IGNORING,
    MAP_WEIGHTS,
    MASK,
    MULTI_LABEL,
    PIXELS,
    PROBABILITIES,
    REDUCTIONS,
    SOFT_MAP,
    VOLUME,
    VOLUME_IDS,
    golden,
    one_hot,
    t,
    write,
)

smp = importlib.import_module("segmentation_models_pytorch.losses")

SINGLE = 1e-6
NARROW = MAP.copy()
NARROW[0][NARROW[0] == 2] = 1  # class 2 is absent from the first image
DISTANCES = np.array([[0.0, 1.0, 0.8], [0.9, 0.0, 0.5], [1.0, 0.4, 0.0]])


def generalized():
    """MONAI rounds the sizes of the classes, and with them the weights, to float32."""
    source = "monai.losses.GeneralizedDiceLoss"
    for weighting in ("square", "simple", "uniform"):
        for labels, which in ((MAP, "all"), (NARROW, "one absent")):
            loss = GeneralizedDiceLoss(softmax=True, w_type=weighting)
            golden(
                "generalized_dice",
                f"{weighting} {which}",
                source,
                lambda x: loss(x, t(one_hot(labels, 3))),
                [PIXELS, labels],
                axis=1,
                weighting=weighting,
                rtol=SINGLE,
            )
    for reduction in REDUCTIONS:
        loss = GeneralizedDiceLoss(sigmoid=True, reduction=reduction)
        golden(
            "generalized_dice",
            f"sigmoid {reduction}",
            source,
            lambda x: loss(x, t(MULTI_LABEL)).reshape(-1 if reduction == "none" else ()),
            [PIXELS, MULTI_LABEL],
            axis=1,
            reduction=reduction,
            rtol=SINGLE,
        )
    for options, ours in (
        ({"batch": True}, {"per_image": False}),
        ({"include_background": False}, {"include_background": False}),
        ({"smooth_nr": 0.5, "smooth_dr": 0.5}, {"smooth": 0.5}),
    ):
        loss = GeneralizedDiceLoss(softmax=True, **options)
        golden(
            "generalized_dice",
            " ".join(options),
            source,
            lambda x: loss(x, t(one_hot(MAP, 3))),
            [PIXELS, MAP],
            axis=1,
            rtol=SINGLE,
            **ours,
        )
    golden(
        "generalized_dice",
        "probabilities",
        source,
        lambda x: GeneralizedDiceLoss()(x, t(SOFT_MAP)),
        [PROBABILITIES, SOFT_MAP],
        axis=1,
        activation=None,
        rtol=SINGLE,
    )


def penalized():
    """1 - GD / (1 + k (1 - GD)) of the paper, around MONAI's score."""
    for labels, which in ((MAP, "all"), (NARROW, "one absent")):
        for k in (0.5, 2.5):
            plain = GeneralizedDiceLoss(softmax=True, reduction="none")

            def original(x):
                loss = plain(x, t(one_hot(labels, 3))).reshape(-1)
                return (1 - (1 - loss) / (1 + k * loss)).mean()

            golden(
                "penalty_generalized_dice",
                f"{which} k {k}",
                "the paper's formula around monai.losses.GeneralizedDiceLoss",
                original,
                [PIXELS, labels],
                axis=1,
                k=k,
                rtol=SINGLE,
            )


def wasserstein():
    for weighting in ("default", "GDL"):
        for name, x, labels in (("map", PIXELS, MAP), ("one absent", PIXELS, NARROW)):
            for reduction in REDUCTIONS:
                loss = GeneralizedWassersteinDiceLoss(
                    DISTANCES, weighting_mode=weighting, reduction=reduction
                )
                golden(
                    "generalized_wasserstein_dice",
                    f"{weighting} {name} {reduction}",
                    "monai.losses.GeneralizedWassersteinDiceLoss",
                    lambda x: loss(x, t(labels)),
                    [x, labels],
                    axis=1,
                    distances=DISTANCES,
                    weighting=weighting.lower(),
                    reduction=reduction,
                    rtol=SINGLE if weighting == "GDL" else 1e-9,  # its weights are float32
                )
    distances = np.array([[0.0, 3.0], [2.0, 0.0]])
    loss = GeneralizedWassersteinDiceLoss(distances, smooth_nr=0.5, smooth_dr=0.5)
    golden(
        "generalized_wasserstein_dice",
        "volume",
        "monai.losses.GeneralizedWassersteinDiceLoss",
        lambda x: loss(x, t(VOLUME_IDS)),
        [VOLUME, VOLUME_IDS],
        axis=1,
        distances=distances,
        smooth=0.5,
    )


def ratios():
    # smp pools the batch and raises the mean over the classes to the power: one class is the same.
    for gamma in (0.75, 1.5):
        loss = smp.TverskyLoss("binary", smooth=0.3, eps=0.0, alpha=0.3, beta=0.7, gamma=gamma)
        golden(
            "focal_tversky",
            f"binary gamma {gamma}",
            "segmentation_models_pytorch.losses.TverskyLoss",
            lambda x: loss(x[:, None], t(MASK)[:, None]),
            [BINARY, MASK],
            axis=None,
            gamma=gamma,
            smooth=0.3,
            per_image=False,
        )
    for labels, mode in ((MAP, "multiclass"), (MULTI_LABEL, "multilabel")):
        # Its smooth is added to half of the numerator. Its floor under the score is never reached.
        loss = smp.DiceLoss(mode, log_loss=True, smooth=0.5, eps=1e-7)
        golden(
            "log_dice",
            mode,
            "segmentation_models_pytorch.losses.DiceLoss(log_loss=True)",
            lambda x: loss(x, t(labels)),
            [PIXELS, labels],
            axis=1,
            smooth=1.0,
            per_image=False,
        )


def correlation():
    # smp adds eps to all four counts, ours to two of them, and takes probabilities.
    golden(
        "mcc",
        "no smooth",
        "segmentation_models_pytorch.losses.MCCLoss",
        lambda x: smp.MCCLoss(eps=0.0)(torch.sigmoid(x), t(MASK)),
        [BINARY, MASK],
        axis=None,
        smooth=0.0,
        per_image=False,
    )


def similarity():
    """Of images with smooth structure, so that no scale is unlike. MONAI computes in float32."""
    rng = np.random.default_rng(0)
    row, column = np.indices((26, 29)) / 5
    y = 0.5 + 0.3 * np.sin(row + column / 2) + 0.1 * np.cos(2 * column)
    p = np.clip(y + rng.normal(size=y.shape) * 0.1, 0, 1)[None].round(3)
    y = y[None].round(3)
    monai = {"kernel_sigma": 1.2, "data_range": 2.0, "k1": 0.02, "k2": 0.05}
    ours = {"sigma": 1.2, "data_range": 2.0, "k1": 0.02, "k2": 0.05}
    common = {"axis": None, "activation": None, "scale": -1.0, "shift": 1.0}
    for name, metric, size, extra in (
        ("ssim", SSIMMetric, (7, 7), {}),
        ("ssim", SSIMMetric, (5, 9), {}),
        ("ms_ssim", MultiScaleSSIMMetric, (5, 5), {"weights": (0.2, 0.3, 0.5)}),
        ("ms_ssim", MultiScaleSSIMMetric, (7, 5), {"weights": (0.4, 0.6)}),
    ):
        kernel = {"win_size" if name == "ssim" else "kernel_size": size}
        score = metric(2, **kernel, **monai, **extra)
        golden(
            name,
            f"window {size}",
            f"monai.metrics.{metric.__name__}",
            lambda p: score._compute_metric(p[:, None], t(y)[:, None]).squeeze(),
            [p, y],
            window=list(size),
            rtol=10 * SINGLE,
            **common,
            **ours,
            **{key: list(value) for key, value in extra.items()},
        )


def pooled():
    """One count of all classes, which kornia calls the micro average."""
    for name, labels, ours in (
        ("all classes at once", MAP, {}),
        ("ignoring", MAP_IGNORING, {"ignore_index": 255}),
        ("weighted", MAP, {"class_weights": MAP_WEIGHTS}),
    ):
        weight = t(ours["class_weights"]) if "class_weights" in ours else None
        golden(
            "dice",
            name,
            "kornia.losses.dice_loss(average='micro')",
            lambda x: dice_loss(
                x, t(labels), eps=0.0, weight=weight, ignore_index=ours.get("ignore_index", -100)
            ),
            [PIXELS, labels],
            axis=1,
            smooth=0.0,
            per_class=False,
            include_background=True,
            **{key: np.asarray(value).tolist() for key, value in ours.items()},
        )


generalized()
pooled()
penalized()
wasserstein()
ratios()
correlation()
similarity()
write("region.json", "kornia")
