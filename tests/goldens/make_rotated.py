"""Golden numbers of the losses on rotated boxes: writes rotated.json beside this file.

Run by hand in the environment that peers.py describes. mmrotate needs compiled operators, so its
formulas are written here in torch from their published description, matrices as it takes them: a
convention of theirs is undone by scale, shift or the order of the boxes, and a comment says which.
ProbIoU is written from the paper.
"""

import math

import numpy as np
import torch
from peers import golden, rng, t, write


def boxes(count, spread=3.0):
    columns = [
        rng.uniform(0, spread, (count, 2)),
        rng.uniform(1, 5, (count, 2)),
        rng.uniform(-4, 4, (count, 1)),
    ]
    return np.round(np.concatenate(columns, -1), 3)


A, B = boxes(6), boxes(6)
CONCENTRIC = np.concatenate([B[:, :2], A[:, 2:]], -1)


def normal(boxes):
    """mmrotate's mean and covariance."""
    c, s = torch.cos(boxes[:, 4]), torch.sin(boxes[:, 4])
    turn = torch.stack([c, -s, s, c], -1).reshape(-1, 2, 2)
    half = torch.diag_embed(boxes[:, 2:4] / 2)
    return boxes[:, :2], turn @ half @ half @ turn.mT


def trace(matrices):
    return matrices.diagonal(dim1=-2, dim2=-1).sum(-1)


def wasserstein(first, second):
    (m, p), (n, q) = normal(first), normal(second)
    root = (trace(p @ q) + 2 * (p.det() * q.det()).sqrt()).sqrt()
    return ((m - n) ** 2).sum(-1) + trace(p) + trace(q) - 2 * root


def divergence(first, second):
    """KL(first || second)."""
    (m, p), (n, q) = normal(first), normal(second)
    apart = (m - n)[..., None]
    mahalanobis = (apart.mT @ q.inverse() @ apart)[:, 0, 0]
    return (mahalanobis + trace(q.inverse() @ p) + (q.det() / p.det()).log()) / 2 - 1


def bhattacharyya_distance(first, second):
    (m, p), (n, q) = normal(first), normal(second)
    apart, mean = (m - n)[..., None], (p + q) / 2
    volume = (mean.det() / (p @ q).det().sqrt()).log()
    return volume / 2 + (apart.mT @ mean.inverse() @ apart)[:, 0, 0] / 8


def bounded(distance, tau):
    return (1 - 1 / (tau + distance)).mean()


def gwd():
    golden(
        "gwd",
        "v1 sqrt",
        "formula of mmrotate GDLoss_v1 gwd, its defaults",
        lambda x: bounded(wasserstein(x, t(B)).sqrt(), 2),
        [A, B],
        shift=-0.5,  # it keeps 1 - 1 / tau
        fun="sqrt",
        tau=2.0,
    )
    golden(
        "gwd",
        "v1 log1p",
        "formula of mmrotate GDLoss_v1 gwd",
        lambda x: bounded(wasserstein(x, t(B)).log1p(), 1),
        [A, B],
    )

    def normalized(x):
        (_, p), (_, q) = normal(x), normal(t(B))
        scale = 2 * (p.det() * q.det()) ** 0.125
        return bounded(wasserstein(x, t(B)).sqrt() / scale, 1)

    golden(
        "gwd",
        "normalized",
        "formula of mmrotate GDLoss gwd, fun none: of the distance, not its square",
        normalized,
        [A, B],
        fun="sqrt",
        normalize=True,
    )


def kld():
    # Its predictions are our targets: KL(target || prediction).
    golden(
        "kld",
        "exchanged sqrt",
        "formula of mmrotate GDLoss kld, fun none: of the divergence's root",
        lambda x: bounded(divergence(x, t(B)).sqrt(), 1),
        [A, B],
        fun="sqrt",
    )
    golden(
        "kld",
        "exchanged log1p",
        "formula of mmrotate GDLoss kld, sqrt False, tau 2",
        lambda x: bounded(divergence(x, t(B)).log1p(), 2),
        [A, B],
        shift=-0.5,
        tau=2.0,
    )


def bhattacharyya():
    for fun, function in (("log1p", torch.log1p), ("none", lambda d: d)):
        golden(
            "bhattacharyya",
            fun,
            "formula of mmrotate GDLoss_v1 bcd",
            lambda x, function=function: bounded(function(bhattacharyya_distance(x, t(B))), 1),
            [A, B],
            fun=fun,
        )


def uniform(boxes):
    """The paper's a, b and c of each box."""
    a, b = boxes[:, 2] ** 2 / 12, boxes[:, 3] ** 2 / 12
    c, s = torch.cos(boxes[:, 4]), torch.sin(boxes[:, 4])
    return a * c**2 + b * s**2, a * s**2 + b * c**2, (a - b) * c * s


def probiou():
    def distance(x, y):
        (a, b, c), (d, e, f) = uniform(x), uniform(y)
        dx, dy = (x - y)[:, 0], (x - y)[:, 1]
        det = (a + d) * (b + e) - (c + f) ** 2
        far = (a + d) * dy**2 + (b + e) * dx**2 - 2 * (c + f) * dx * dy
        product = 4 * ((a * b - c**2) * (d * e - f**2)).sqrt()
        return far / det / 4 + (det / product).log() / 2

    golden(
        "probiou",
        "hellinger",
        "formula of the ProbIoU paper, L1",
        lambda x: (1 - (-distance(x, t(B))).exp()).sqrt().mean(),
        [A, B],
    )
    golden(
        "probiou",
        "bhattacharyya",
        "formula of the ProbIoU paper, L2",
        lambda x: distance(x, t(B)).mean(),
        [A, B],
        mode="bhattacharyya",
    )


def kalman(x, y):
    (_, p), (_, q) = normal(x), normal(y)
    gain = p @ (p + q).inverse()
    shared = 4 * (p - gain @ p).det().sqrt()
    return shared / (4 * p.det().sqrt() + 4 * q.det().sqrt() - shared)


def kfiou():
    # On one centre, where the offsets cost nothing. K is at most 1/3.
    golden(
        "kfiou",
        "linear",
        "formula of mmrotate KFLoss, fun none",
        lambda x: (1 - kalman(x, t(B))).mean(),
        [CONCENTRIC, B],
        scale=3.0,
        shift=-2.0,
    )
    golden(
        "kfiou",
        "log",
        "formula of mmrotate KFLoss, fun ln",
        lambda x: -kalman(x, t(B)).log().mean(),
        [CONCENTRIC, B],
        shift=-math.log(3),
        fun="log",
    )

    def with_offsets(x):
        y = t(B)
        c, s = torch.cos(y[:, 4]), torch.sin(y[:, 4])
        dx, dy = (x - y)[:, 0], (x - y)[:, 1]
        encoded = torch.stack([c * dx + s * dy, c * dy - s * dx], -1) / y[:, 2:4]
        smooth = torch.nn.functional.smooth_l1_loss(
            encoded, torch.zeros_like(encoded), beta=1 / 9, reduction="none"
        )
        return (smooth.sum(-1) + torch.exp(1 - 3 * kalman(x, y)) - 1).mean()

    golden(
        "kfiou",
        "exp",
        "formula of mmrotate KFLoss, fun exp, of 3 K, offsets encoded in the target's axes",
        with_offsets,
        [A, B],
        fun="exp",
    )


def corners(box):
    c, s = torch.cos(box[4]), torch.sin(box[4])
    arms = t([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]) * box[2:4]
    return [box[:2] + torch.stack([c * u - s * v, s * u + c * v]) for u, v in arms]


def cross(u, v):
    return u[0] * v[1] - u[1] * v[0]


def shared(first, second):
    """The area of the first polygon clipped by the edges of the second."""
    for i in range(4):
        start, end = second[i], second[(i + 1) % 4]
        side = [cross(end - start, p - start) for p in first]
        kept = []
        for j, p in enumerate(first):
            q, a, b = first[(j + 1) % len(first)], side[j], side[(j + 1) % len(first)]
            kept += [p] if a >= 0 else []
            kept += [p + a / (a - b) * (q - p)] if a * b < 0 else []
        first = kept
    pairs = zip(first, first[1:] + first[:1], strict=True)
    return sum((cross(p, q) for p, q in pairs), t(0.0)) / 2


def rotated_iou():
    def iou(x):
        both = [shared(corners(a), corners(b)) for a, b in zip(x, t(B), strict=True)]
        area = x[:, 2] * x[:, 3] + t(B)[:, 2] * t(B)[:, 3]
        return torch.stack(both) / (area - torch.stack(both))

    forms = {"linear": lambda i: 1 - i, "square": lambda i: 1 - i**2, "log": lambda i: -i.log()}
    for form, function in forms.items():
        golden(
            "rotated_iou",
            form,
            "formula of mmrotate RotatedIoULoss, polygons clipped after Sutherland and Hodgman",
            lambda x, function=function: function(iou(x)).mean(),
            [A, B],
            form=form,
        )


gwd()
kld()
bhattacharyya()
probiou()
kfiou()
rotated_iou()
write("rotated.json")
