"""Golden numbers of noise-robust losses and divergences: writes softmax.json beside this file.

Run by hand in the environment that peers.py describes:

    peers/bin/python tests/goldens/make_softmax.py

PyTorch has `kl_div` only. The others are their papers' formulas in PyTorch, with its automatic
derivatives: straightforward, differentiated through every iteration, and good for float64 at
ordinary logits.
"""

# ruff: noqa: B023 (`golden` calls every lambda at once)
import torch
import torch.nn.functional as F
from peers import CLASS_WEIGHTS, IDS, PIXELS, REDUCTIONS, SOFT, X, golden, normal, one_hot, t, write

WIDE = normal(3, 30, scale=3.0)
WIDE_IDS = WIDE.argsort(-1)[:, 12]


def reduced(loss, reduction):
    return {"mean": loss.mean, "sum": loss.sum, "none": lambda: loss}[reduction]()


def divergences():
    for reduction in REDUCTIONS:

        def kl(x, reduction=reduction):
            each = F.kl_div(F.log_softmax(x, -1), t(SOFT), reduction="none").sum(-1)
            return reduced(each, reduction)

        golden("kl_divergence", reduction, "torch.kl_div", kl, [X, SOFT], reduction=reduction)

    golden(
        "kl_divergence",
        "batchmean",
        "torch.nn.functional.kl_div",
        lambda x: F.kl_div(F.log_softmax(x, -1), t(SOFT), reduction="batchmean"),
        [X, SOFT],
    )
    maps = torch.softmax(t(normal(*PIXELS.shape)), 1).numpy().round(3)
    maps[:, -1] = (1 - maps[:, :-1].sum(1)).round(3)  # again a distribution
    golden(
        "kl_divergence",
        "maps",
        "torch.nn.functional.kl_div",
        lambda x: F.kl_div(F.log_softmax(x, 1), t(maps), reduction="none").sum(1),
        [PIXELS, maps],
        axis=1,
        reduction="none",
    )

    def js(x):
        p, y = torch.softmax(x, -1), t(SOFT)
        m = ((p + y) / 2).log()
        each = F.kl_div(m, y, reduction="none") + F.kl_div(m, p, reduction="none")
        return each.sum(-1) / 2

    source = "Lin 1991: two torch.nn.functional.kl_div"
    golden("js_divergence", "none", source, js, [X, SOFT], reduction="none")


def targets(labels):
    return t(labels) if labels.ndim == 2 else t(one_hot(labels, X.shape[-1], -1))


def noise_robust():
    for form, labels in (("ids", IDS), ("soft", SOFT)):
        y = targets(labels)
        for q in (0.3, 0.7, 1.0):
            golden(
                "generalized_cross_entropy",
                f"{form} q {q}",
                "Zhang and Sabuncu 2018",
                lambda x, y=y, q=q: (1 - (y * torch.softmax(x, -1)).sum(-1) ** q) / q,
                [X, labels],
                q=q,
                reduction="none",
            )
        for alpha, beta, log_zero in ((0.1, 1.0, -4.0), (6.0, 0.1, -9.21)):

            def symmetric(x, y=y, alpha=alpha, beta=beta, log_zero=log_zero):
                log_p = F.log_softmax(x, -1)
                surprise = -y.log().clamp(min=log_zero)
                return -alpha * (y * log_p).sum(-1) + beta * (log_p.exp() * surprise).sum(-1)

            golden(
                "symmetric_cross_entropy",
                f"{form} alpha {alpha}",
                "Wang et al. 2019",
                symmetric,
                [X, labels],
                alpha=alpha,
                beta=beta,
                log_zero=log_zero,
                reduction="none",
            )

        def poly(x, y=y):
            return F.cross_entropy(x, y, reduction="none") + 2 * (
                y * (1 - torch.softmax(x, -1))
            ).sum(-1)

        source = "Leng et al. 2022, on torch.nn.functional.cross_entropy"
        golden("poly1", form, source, poly, [X, labels], reduction="none")

    def weighted_poly(x):
        entropy = F.cross_entropy(x, t(IDS), weight=t(CLASS_WEIGHTS), label_smoothing=0.1)
        w, p = t(CLASS_WEIGHTS), torch.softmax(x, -1)
        share = 0.9 * targets(IDS) + 0.1 / 4
        return entropy + 2 * (w * share * (1 - p)).sum() / w[t(IDS)].sum()

    golden(
        "poly1",
        "class weights and smoothing",
        source,
        weighted_poly,
        [X, IDS],
        class_weights=CLASS_WEIGHTS,
        label_smoothing=0.1,
    )


def log_t(u, temperature):
    if temperature == 1:
        return u.log()
    return (u ** (1 - temperature) - 1) / (1 - temperature)


def exp_t(u, temperature):
    if temperature == 1:
        return u.exp()
    return (1 + (1 - temperature) * u).clamp(min=0) ** (1 / (1 - temperature))


def tempered_softmax(x, t2):
    """The paper's appendix: a fixed point for t2 > 1, here to convergence; bisection below."""
    if t2 == 1:
        return torch.softmax(x, -1)
    top = x.max(-1, keepdim=True).values
    a0 = x - top
    if t2 > 1:
        a = a0
        for _ in range(300):
            a = a0 * exp_t(a, t2).sum(-1, keepdim=True) ** (1 - t2)
        z = exp_t(a, t2).sum(-1, keepdim=True)
        normaliser = -log_t(1 / z, t2) + top
        return exp_t(x - normaliser, t2)
    low, high = top.detach(), top.detach() - log_t(t(1 / x.shape[-1]), t2)
    for _ in range(100):
        middle = (low + high) / 2
        above = exp_t(x.detach() - middle, t2).sum(-1, keepdim=True) > 1
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    # One step of Newton's method at the root: no change in value, the implicit derivative.
    p = exp_t(x - low, t2)
    slope = (p.detach() ** t2).sum(-1, keepdim=True)
    return exp_t(x - low - (p.sum(-1, keepdim=True) - 1) / slope, t2)


def tempered(x, y, t1, t2):
    p = tempered_softmax(x, t2)
    held = torch.where(y > 0, y, 1.0)
    cost = torch.where(y > 0, y * (log_t(held, t1) - log_t(p, t1)), 0.0)
    return (cost - (y ** (2 - t1) - p ** (2 - t1)) / (2 - t1)).sum(-1)


def bi_tempered():
    source = "Amid et al. 2019"
    temperatures = ((0.8, 1.2), (0.2, 4.0), (0.5, 1.0), (1.0, 1.5), (0.7, 0.9), (1.0, 1.0))
    for t1, t2 in temperatures:
        for form, labels in (("ids", IDS), ("soft", SOFT)):
            golden(
                "bi_tempered",
                f"{form} {t1} {t2}",
                source,
                lambda x: tempered(x, targets(labels), t1, t2),
                [X, labels],
                rtol=1e-8,
                t1=t1,
                t2=t2,
                reduction="none",
            )
    smooth = 0.1 / 3 + (1 - 0.1 * 4 / 3) * targets(IDS)  # over the other classes
    golden(
        "bi_tempered",
        "smoothed",
        source,
        lambda x: tempered(x, smooth, 0.8, 1.2),
        [X, IDS],
        rtol=1e-8,
        label_smoothing=0.1,
        reduction="none",
    )
    golden(
        "bi_tempered",
        "thirty classes",
        source,
        lambda x: tempered(x, t(one_hot(WIDE_IDS, 30, -1)), 0.8, 1.2),
        [WIDE, WIDE_IDS],
        rtol=1e-8,
        reduction="none",
    )


divergences()
noise_robust()
bi_tempered()
write("softmax.json")
