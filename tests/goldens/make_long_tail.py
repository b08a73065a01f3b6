"""Golden numbers for hard mining, long tails and margins: writes long_tail.json beside this file.

Run by hand in the environment that peers.py describes. Where an original is not in a package of
pure Python, its published formula is written here in torch, and the row's source says so.
"""

# ruff: noqa: B023 (`golden` calls every lambda at once)
import numpy as np
import torch
import torch.nn.functional as F
from peers import (
    CLASS_WEIGHTS,
    IDS,
    MAP,
    PIXELS,
    REDUCTIONS,
    ROWS,
    X,
    golden,
    one_hot,
    t,
    uniform,
    write,
)

COUNTS = np.array([900, 30, 250, 4])
MAP_COUNTS = np.array([700, 60, 9])


def golden_with_options(loss, case, source, original, args, **options):
    """A row whose loss may have an option of the name `scale`, which `golden` gives a sense."""
    scale = options.pop("scale", None)
    golden(loss, case, source, original, args, **options)
    if scale is not None:
        ROWS[-1]["kwargs"]["scale"] = scale


def hard_examples():
    """Online hard example mining with torch.topk, and the count rounded down."""
    source = "torch.topk of torch.nn.functional.cross_entropy"

    def hardest(x, labels, fraction, **options):
        each = F.cross_entropy(x, t(labels), reduction="none", **options).flatten()
        return torch.topk(each, max(1, int(fraction * each.numel()))).values

    for fraction in (0.1, 0.3, 0.5, 1.0):
        golden(
            "top_k_cross_entropy",
            f"fraction {fraction}",
            source,
            lambda x: hardest(x, MAP, fraction).mean(),
            [PIXELS, MAP],
            fraction=fraction,
            axis=1,
        )
    golden(
        "top_k_cross_entropy",
        "class weights, smoothing, sum",
        source,
        lambda x: hardest(x, IDS, 0.4, weight=t(CLASS_WEIGHTS), label_smoothing=0.1).sum(),
        [X, IDS],
        fraction=0.4,
        class_weights=CLASS_WEIGHTS,
        label_smoothing=0.1,
        reduction="sum",
    )


def ldam(x, labels, counts, max_margin=0.5, scale=30.0, **options):
    """The authors' LDAMLoss (github.com/kaidic/LDAM-DRW), channels in axis 1."""
    margins = 1.0 / np.sqrt(np.sqrt(counts))
    margins = t(margins * (max_margin / margins.max()))
    hits = t(one_hot(labels, len(counts))).bool()
    margins = margins[t(labels)].unsqueeze(1)
    return F.cross_entropy(scale * torch.where(hits, x - margins, x), t(labels), **options)


def seesaw(x, labels, counts, p=0.8, q=2.0, eps=0.01, **options):
    """The formula of mmdet 3.3's seesaw_ce_loss on (N, C), without its objectness column."""
    counts, target = t(counts, dtype=x.dtype), t(labels)
    hits = F.one_hot(target, len(counts))
    ratio = counts.clamp(min=1)[None, :] / counts.clamp(min=1)[:, None]
    smaller = (ratio < 1.0).to(x.dtype)
    weights = (ratio.pow(p) * smaller + (1 - smaller))[target]
    scores = F.softmax(x.detach(), dim=1)
    own = scores[torch.arange(len(scores)), target]
    relative = scores / own[:, None].clamp(min=eps)
    larger = (relative > 1.0).to(x.dtype)
    weights = weights * (relative.pow(q) * larger + (1 - larger))
    return F.cross_entropy(x + weights.log() * (1 - hits), target, **options)


def long_tail():
    settings = {
        "ldam": ({}, {"max_margin": 0.8, "scale": 5.0}),
        "seesaw": ({}, {"p": 0.3, "q": 1.0}, {"p": 0.0}, {"q": 0.0}),
    }
    originals = {"ldam": ldam, "seesaw": seesaw}
    sources = {
        "ldam": "formula of LDAM-DRW losses.py",
        "seesaw": "formula of mmdet 3.3 seesaw_ce_loss",
    }
    for name, options in settings.items():
        for option in options:
            case = ", ".join(f"{k} {v}" for k, v in option.items()) or "default"
            golden_with_options(
                name,
                case,
                sources[name],
                lambda x: originals[name](x, IDS, COUNTS, **option),
                [X, IDS, COUNTS],
                **option,
            )
        for reduction in REDUCTIONS[1:]:
            golden_with_options(
                name,
                reduction,
                sources[name],
                lambda x: originals[name](x, IDS, COUNTS, reduction=reduction),
                [X, IDS, COUNTS],
                reduction=reduction,
            )
        golden_with_options(
            name,
            "class weights",
            sources[name],
            lambda x: originals[name](x, IDS, COUNTS, weight=t(CLASS_WEIGHTS)),
            [X, IDS, COUNTS],
            class_weights=CLASS_WEIGHTS,
        )
    golden_with_options(
        "ldam",
        "pixels",
        sources["ldam"],
        lambda x: ldam(x, MAP, MAP_COUNTS, scale=2.0),
        [PIXELS, MAP, MAP_COUNTS],
        scale=2.0,
        axis=1,
    )
    for tau in (0.5, 1.0, 2.0):
        priors = COUNTS / COUNTS.sum()
        golden_with_options(
            "logit_adjusted",
            f"tau {tau}",
            "torch.nn.functional.cross_entropy, as in Menon et al. equation 10",
            lambda x: F.cross_entropy(x + tau * t(priors).log(), t(IDS)),
            [X, IDS, COUNTS],
            tau=tau,
        )
    golden_with_options(
        "logit_adjusted",
        "balanced softmax",
        "formula of BalancedMetaSoftmax BalancedSoftmaxLoss",
        lambda x: F.cross_entropy(x + t(COUNTS, dtype=x.dtype).log(), t(IDS)),
        [X, IDS, COUNTS],
    )


def margins():
    cosines = uniform(5, 4, low=-0.98, high=0.98)
    hits = t(one_hot(IDS, 4, axis=-1)).bool()

    def arcface(x, margin, scale):
        # With the derivative of the margin, which the release takes without a gradient.
        return F.cross_entropy(scale * torch.where(hits, (x.arccos() + margin).cos(), x), t(IDS))

    def cosface(x, margin, scale):
        return F.cross_entropy(scale * torch.where(hits, x - margin, x), t(IDS))

    for name, original, default in (("arcface", arcface, 0.5), ("cosface", cosface, 0.35)):
        for margin, scale in ((default, 64.0), (0.2, 8.0), (1.0, 3.0)):
            golden_with_options(
                name,
                f"margin {margin}, scale {scale}",
                "formula of insightface arcface_torch losses.py",
                lambda x: original(x, margin, scale),
                [cosines, IDS],
                margin=margin,
                scale=scale,
            )


def class_weights():
    """The class-balanced loss's weights, as in github.com/richardaecn/class-balanced-loss."""
    counts = COUNTS.astype(float)
    for beta in (0.9, 0.99, 0.999, 0.9999):
        weights = (1 - beta) / (1 - np.power(beta, counts))
        weights = weights / weights.sum() * len(counts)
        golden(
            "effective_number_weights",
            f"beta {beta}",
            "formula of class-balanced-loss",
            lambda x: t(weights) + 0 * x,
            [counts],
            gradient=False,
            beta=beta,
        )


hard_examples()
long_tail()
margins()
class_weights()
write("long_tail.json")
