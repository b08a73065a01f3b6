"""Golden numbers of the sigmoid-type losses: writes sigmoid.json beside this file.

Run by hand in the environment that peers.py describes:

    peers/bin/python tests/goldens/make_sigmoid.py

PyTorch, torchvision and segmentation-models-pytorch run themselves. The originals of quality_focal,
varifocal, gaussian_focal, distribution_focal, ghm and asymmetric need packages with compiled
operators, or are no package: their formulas are written anew here in PyTorch, with the constants
they add and the factors they detach, and differentiated by it.
"""

# ruff: noqa: B023 (`golden` calls every lambda at once)
import importlib

import numpy as np
import torch
import torch.nn.functional as F
from peers import (
    BITS,
    CLASS_WEIGHTS,
    IDS,
    IGNORING,
    POSITIVE,
    REDUCTIONS,
    UNIT,
    X,
    golden,
    normal,
    one_hot,
    t,
    uniform,
    write,
)

tv_sigmoid_focal = importlib.import_module("torchvision.ops.focal_loss").sigmoid_focal_loss
smp_reduced = importlib.import_module(
    "segmentation_models_pytorch.losses._functional"
).focal_loss_with_logits

QUALITY = np.where(BITS == 1, UNIT, 0.0)
HEATMAP = np.where(uniform(5, 4) < 0.3, 1.0, UNIT)
MASK = uniform(5, 4) < 0.7


def reduce(values, reduction):
    return {"mean": values.mean, "sum": values.sum, "none": lambda: values}[reduction]()


def balanced():
    """PyTorch's `pos_weight` is the weight of positives."""
    source = "torch.nn.functional.binary_cross_entropy_with_logits"
    rarity = (1 - BITS).sum() / BITS.sum()
    for reduction in REDUCTIONS:
        golden(
            "weighted_binary_cross_entropy",
            f"beta from the labels {reduction}",
            source,
            lambda x: F.binary_cross_entropy_with_logits(
                x, t(BITS), pos_weight=t(rarity), reduction=reduction
            ),
            [X, BITS],
            reduction=reduction,
        )
    golden(
        "weighted_binary_cross_entropy",
        "beta per class",
        source,
        lambda x: F.binary_cross_entropy_with_logits(x, t(UNIT), pos_weight=t(CLASS_WEIGHTS)),
        [X, UNIT],
        beta=CLASS_WEIGHTS,
    )
    # -(beta y log p + (1 - beta)(1 - y) log(1 - p)) is 1 - beta times a pos_weight of the odds.
    share = 1 - BITS.mean()
    golden(
        "balanced_binary_cross_entropy",
        "beta from the labels",
        source,
        lambda x: F.binary_cross_entropy_with_logits(
            x, t(BITS), pos_weight=t(share / (1 - share)), reduction="none"
        ),
        [X, BITS],
        scale=1 - share,
        reduction="none",
    )
    golden(
        "balanced_binary_cross_entropy",
        "masked",
        source,
        lambda x: F.binary_cross_entropy_with_logits(
            x[t(MASK)], t(BITS[MASK]), pos_weight=t((1 - BITS)[MASK].sum() / BITS[MASK].sum())
        ),
        [X, BITS],
        scale=BITS[MASK].mean(),
        where=MASK,
    )


def reduced_focal():
    """The sigmoid form of segmentation-models-pytorch, for hard targets."""
    for gamma, threshold in ((2.0, 0.5), (1.5, 0.3)):
        golden(
            "reduced_focal",
            f"gamma {gamma} threshold {threshold}",
            "segmentation_models_pytorch focal_loss_with_logits(reduced_threshold)",
            lambda x: smp_reduced(
                x,
                t(BITS),
                gamma=gamma,
                alpha=None,
                reduced_threshold=threshold,
                reduction="none",
                eps=0.0,
            ),
            [X, BITS],
            gamma=gamma,
            threshold=threshold,
            reduction="none",
        )


def asymmetric_loss(x, y, positive, negative, clip):
    """AsymmetricLoss of Alibaba-MIIL/ASL, its focal factors detached, before it sums.

    The logarithms' clamp at 1e-8 would never act on these inputs.
    """
    p = x.sigmoid()
    shifted = F.relu(p - clip)
    on, off = (1 - p).detach() ** positive, shifted.detach() ** negative
    return -torch.where(y == 1, on * torch.log(p), off * torch.log1p(-shifted))


def asymmetric():
    source = "the formula of ASL's AsymmetricLoss, in torch"
    for positive, negative, clip in ((1.0, 4.0, 0.05), (0.0, 2.0, 0.2), (2.0, 1.0, 0.0)):
        golden(
            "asymmetric",
            f"{positive} {negative} {clip}",
            source,
            lambda x: asymmetric_loss(x, t(BITS), positive, negative, clip),
            [X, BITS],
            gamma_positive=positive,
            gamma_negative=negative,
            clip=clip,
            reduction="none",
        )


def quality_focal():
    """mmdet scores the negatives of each class, then the positives at their quality."""

    def original(x, beta):
        p, q, positive = x.sigmoid(), t(QUALITY), t(QUALITY) > 0
        of_negatives = F.softplus(x) * p**beta
        of_positives = (q * F.softplus(-x) + (1 - q) * F.softplus(x)) * (q - p).abs() ** beta
        return torch.where(positive, of_positives, of_negatives)

    for beta in (2.0, 1.5):
        golden(
            "quality_focal",
            f"beta {beta}",
            "the formula of mmdet's quality_focal_loss, in torch",
            lambda x: original(x, beta),
            [X, QUALITY],
            beta=beta,
            reduction="none",
        )
    golden(
        "quality_focal",
        "hard targets",
        "torchvision.ops.sigmoid_focal_loss",
        lambda x: tv_sigmoid_focal(x, t(BITS), alpha=-1, gamma=2.0, reduction="none"),
        [X, BITS],
        reduction="none",
    )


def varifocal():
    """mmdet with iou_weighted=True."""

    def original(x, alpha, gamma):
        p, q = x.sigmoid(), t(QUALITY)
        entropy = q * F.softplus(-x) + (1 - q) * F.softplus(x)
        return torch.where(q > 0, q * entropy, alpha * (p - q).abs() ** gamma * entropy)

    for alpha, gamma in ((0.75, 2.0), (0.3, 1.5)):
        golden(
            "varifocal",
            f"alpha {alpha} gamma {gamma}",
            "the formula of mmdet's varifocal_loss, in torch",
            lambda x: original(x, alpha, gamma),
            [X, QUALITY],
            alpha=alpha,
            gamma=gamma,
            reduction="none",
        )


def gaussian_focal():
    """mmdet takes probabilities, and adds 1e-12 inside the logarithms: hence the rtol."""

    def original(p, alpha, beta):
        y, tiny = t(HEATMAP), 1e-12
        at_key_point = (1 - p) ** alpha * -torch.log(p + tiny)
        beside = (1 - y) ** beta * p**alpha * -torch.log(1 - p + tiny)
        return torch.where(y == 1, at_key_point, beside)

    for alpha, beta in ((2.0, 4.0), (1.5, 3.0)):
        source = "the formula of mmdet's gaussian_focal_loss, in torch"
        golden(
            "gaussian_focal",
            f"logits alpha {alpha} beta {beta}",
            source,
            lambda x: original(x.sigmoid(), alpha, beta),
            [X, HEATMAP],
            rtol=1e-8,
            alpha=alpha,
            beta=beta,
            reduction="none",
        )
        golden(
            "gaussian_focal",
            f"probabilities alpha {alpha} beta {beta}",
            source,
            lambda p: original(p, alpha, beta),
            [UNIT, HEATMAP],
            rtol=1e-8,
            alpha=alpha,
            beta=beta,
            activation=None,
            reduction="none",
        )


def distribution_focal():
    """mmdet reads beyond the end at the last bin, so the targets stay below."""
    bins = normal(6, 8)
    distance = np.array([0.0, 0.25, 3.0, 4.5, 6.875, 6.25])

    left = np.floor(distance).astype(int)

    def original(x):
        at_left, at_right = (F.cross_entropy(x, t(left + k), reduction="none") for k in (0, 1))
        return torch.lerp(at_left, at_right, t(distance - left))

    source = "the formula of mmdet's distribution_focal_loss, in torch"
    for reduction in REDUCTIONS:
        golden(
            "distribution_focal",
            reduction,
            source,
            lambda x: reduce(original(x), reduction),
            [bins, distance],
            reduction=reduction,
        )
    golden(
        "distribution_focal",
        "bins first",
        source,
        lambda x: original(x.T),
        [bins.T.copy(), distance],
        axis=0,
        reduction="none",
    )


def ghm_c(x, y, valid, bins, momentum=0.0):
    """The loss of GHMC's first call, whose accumulated counts start at 0.

    Its last edge is 1e-6 beyond 1, so that no length of a gradient falls outside.
    """
    length = (x.sigmoid() - y).abs().detach()
    at = (length * bins).floor().clamp(max=bins - 1).long()
    held = torch.bincount(at[valid], minlength=bins)
    density = (1 - momentum) * held[at] * (held > 0).sum() / valid.sum()
    entropy = y * F.softplus(-x) + (1 - y) * F.softplus(x)
    return (entropy[valid] / density[valid]).mean()


def ghm():
    source = "the formula of mmdet's GHMC, in torch"
    everywhere = torch.ones(5, 4, dtype=torch.bool)
    for bins in (10, 3):
        golden(
            "ghm",
            f"{bins} bins",
            source,
            lambda x: ghm_c(x, t(BITS), everywhere, bins),
            [X, BITS],
            bins=bins,
        )
    golden("ghm", "masked", source, lambda x: ghm_c(x, t(BITS), t(MASK), 10), [X, BITS], where=MASK)
    golden(
        "ghm",
        "first call with momentum",
        source,
        lambda x: ghm_c(x, t(BITS), everywhere, 10, 0.75),
        [X, BITS],
        momentum=0.75,
    )


def hinge():
    """A hinge is PyTorch's multi_margin_loss of two classes, which divides by their number."""
    pairs = np.stack([X[:, 0], X[:, 1]], -1)
    for power, name in ((1, "hinge"), (2, "squared_hinge")):
        golden(
            name,
            "as the margin of two classes",
            "torch.nn.functional.multi_margin_loss",
            lambda x: F.multi_margin_loss(
                torch.stack([torch.zeros(5), x], -1),
                t(BITS[:, 0]).long(),
                p=power,
                reduction="none",
            ),
            [X[:, 0], BITS[:, 0]],
            scale=2.0,
            axis=None,
            reduction="none",
        )
    for reduction in REDUCTIONS:
        golden(
            "multiclass_hinge",
            f"two classes {reduction}",
            "torch.nn.functional.multi_margin_loss",
            lambda x: F.multi_margin_loss(x, t(IDS % 2), reduction=reduction),
            [pairs, IDS % 2],
            scale=2.0,
            reduction=reduction,
        )
    # PyTorch adds up what all other classes miss; ours is the largest.
    kept = IGNORING != -100

    def crammer_singer(x, ids, weight):
        other = t(one_hot(ids, 4)) == 0
        rivals = x[other].reshape(len(ids), 3)
        target = x[~other]
        pairs = [
            F.multi_margin_loss(
                torch.stack([target, rivals[:, j]], -1),
                torch.zeros(len(ids), dtype=torch.long),
                reduction="none",
            )
            for j in range(3)
        ]
        values = 2 * torch.stack(pairs).max(0).values
        return (weight * values).sum() / weight.sum()

    source = "largest torch.nn.functional.multi_margin_loss of the target and one other class"
    golden(
        "multiclass_hinge",
        "ignored and weighted",
        source,
        lambda x: crammer_singer(
            x[t(kept)], IDS[kept], t(CLASS_WEIGHTS[IDS[kept]] * POSITIVE[kept, 0])
        ),
        [X, IGNORING],
        ignore_index=-100,
        class_weights=CLASS_WEIGHTS,
        weights=POSITIVE[:, 0].copy(),
    )


def main():
    balanced()
    reduced_focal()
    asymmetric()
    quality_focal()
    varifocal()
    gaussian_focal()
    distribution_focal()
    ghm()
    hinge()
    write("sigmoid.json")


if __name__ == "__main__":
    main()
