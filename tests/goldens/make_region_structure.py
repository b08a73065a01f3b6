"""Golden numbers of Lovasz, clDice and SSIM: writes region_structure.json beside this file.

Run by hand in the environment that peers.py describes:

    peers/bin/python tests/goldens/make_region_structure.py
"""

# ruff: noqa: B023 (`golden` calls every lambda at once)
import importlib

import numpy as np
import torch
import torch.nn.functional as F
from monai.losses.cldice import soft_skel
from peers import (
    BINARY,
    MAP,
    MAP_IGNORING,
    MASK,
    MASK_IGNORING,
    MULTI_LABEL,
    PIXELS,
    PROBABILITIES,
    golden,
    normal,
    one_hot,
    t,
    uniform,
    write,
)

Lovasz = importlib.import_module("segmentation_models_pytorch.losses").LovaszLoss


def lovasz():
    # It mixes its own float32 with the input's dtype, and so runs in float32 only.
    source = "segmentation_models_pytorch.losses.LovaszLoss (the authors' code), in float32"
    for per_image in (False, True):
        for labels, ignore in ((MAP, None), (MAP_IGNORING, 255)):
            name = f"{'images' if per_image else 'pooled'}{' ignoring' if ignore else ''}"
            options = {"ignore_index": ignore} if ignore else {}
            golden(
                "lovasz_softmax",
                name,
                source,
                lambda x: Lovasz("multiclass", per_image, ignore)(x.float(), t(labels)),
                [PIXELS, labels],
                rtol=2e-6,
                axis=1,
                per_image=per_image,
                **options,
            )
        for labels, ignore in ((MASK, None), (MASK_IGNORING, 255)):
            name = f"{'images' if per_image else 'pooled'}{' ignoring' if ignore else ''}"
            options = {"ignore_index": ignore} if ignore else {}
            golden(
                "lovasz_hinge",
                name,
                source,
                lambda x: Lovasz("binary", per_image, ignore)(x.float(), t(labels)),
                [BINARY, labels],
                rtol=2e-6,
                axis=None,
                per_image=per_image,
                absent="score",
                **options,
            )
    # Theirs sorts all classes of a multi-label target together, ours each class by itself.
    golden(
        "lovasz_hinge",
        "multi-label",
        source,
        lambda x: (
            sum(
                Lovasz("binary")(x[:, c].float(), t(MULTI_LABEL[:, c]))
                for c in range(MULTI_LABEL.shape[1])
            )
            / MULTI_LABEL.shape[1]
        ),
        [PIXELS, MULTI_LABEL],
        rtol=2e-6,
        axis=1,
        absent="score",
    )


def cldice():
    source = "clDice formula of the authors (2003.07311) on monai.losses.cldice.soft_skel"

    def loss(p, y, iterations=3, smooth=1.0, axes=(2, 3)):
        of_p, of_y = soft_skel(p, iterations), soft_skel(y, iterations)
        precision = ((of_p * y).sum(axes) + smooth) / (of_p.sum(axes) + smooth)
        sensitivity = ((of_y * p).sum(axes) + smooth) / (of_y.sum(axes) + smooth)
        return (1 - 2 * precision * sensitivity / (precision + sensitivity)).mean()

    logits = normal(2, 3, 7, 8)
    ids = np.zeros((2, 7, 8), int)
    ids[0, 2:5, :] = 1
    ids[0, :, 6] = 2
    ids[1, 1:6, 1:4] = 1
    ids[1, 3, 3:] = 2
    golden(
        "cldice",
        "ids",
        source,
        lambda x: loss(x.softmax(1), t(one_hot(ids, 3))),
        [logits, ids],
        axis=1,
    )
    golden(
        "cldice",
        "sigmoid",
        source,
        lambda x: loss(x.sigmoid(), t(one_hot(ids, 3)), iterations=1, smooth=0.1),
        [logits, one_hot(ids, 3)],
        axis=1,
        iterations=1,
        smooth=0.1,
    )
    golden(
        "cldice",
        "soft labels",
        source,
        lambda x: loss(x, t(PROBABILITIES[::-1].copy())),
        [PROBABILITIES, PROBABILITIES[::-1].copy()],
        axis=1,
        activation=None,
    )
    volume = np.zeros((1, 1, 5, 6, 5))
    volume[:, :, 1:4, :, 1:4] = 1
    golden(
        "cldice",
        "volume",
        source,
        lambda x: loss(x.sigmoid(), t(volume), axes=(2, 3, 4)),
        [normal(1, 1, 5, 6, 5), volume],
        axis=1,
    )


def ssim():
    source = "SSIM of Wang et al. by torch convolutions without padding (as pytorch-msssim)"

    def loss(p, y, window=11, sigma=1.5):
        offset = torch.arange(window) - window // 2
        line = torch.exp(-(offset.to(p.dtype) ** 2) / (2 * sigma**2))
        line = line / line.sum()
        kernel = torch.outer(line, line)[None, None]

        def mean(x):
            return F.conv2d(x.reshape(-1, 1, *x.shape[2:]), kernel)

        m_p, m_y = mean(p), mean(y)
        s_p, s_y, s_py = mean(p * p) - m_p**2, mean(y * y) - m_y**2, mean(p * y) - m_p * m_y
        luminance = (2 * m_p * m_y + 0.01**2) / (m_p**2 + m_y**2 + 0.01**2)
        return (1 - luminance * (2 * s_py + 0.03**2) / (s_p + s_y + 0.03**2)).mean()

    image, truth = uniform(1, 1, 12, 13), (uniform(1, 1, 12, 13) > 0.5).astype(float)
    golden(
        "ssim",
        "defaults",
        source,
        lambda x: loss(x, t(truth)),
        [image, truth],
        axis=1,
        activation=None,
    )
    golden(
        "ssim",
        "softmax",
        source,
        lambda x: loss(x.softmax(1), t(one_hot(MAP, 3)), 3, 0.8),
        [PIXELS, MAP],
        axis=1,
        window=3,
        sigma=0.8,
    )


def main():
    lovasz()
    cldice()
    ssim()
    write("region_structure.json")


if __name__ == "__main__":
    main()
