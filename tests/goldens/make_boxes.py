"""Golden numbers of the losses on axis-aligned boxes: writes boxes.json beside this file.

Run by hand in the environment that peers.py describes, with `mmdet==3.3.0` installed beside it
without its dependencies:

    peers/bin/python tests/goldens/make_boxes.py

torchvision and the plain functions of mmdetection run themselves, with an epsilon of 0 where they
let one choose. Losses whose authors publish no code that may be run here are written anew in
PyTorch from their papers, over the IoU, the enclosing box and the centres, and differentiated by
it, with the factors detached that the papers hold constant.
"""

# ruff: noqa: B023 (`golden` calls every lambda at once)
import importlib
import math
import sys
import types

import numpy as np
import torch
from peers import REDUCTIONS, golden, seek, t, uniform, without_init, write

giou = importlib.import_module("torchvision.ops.giou_loss").generalized_box_iou_loss
diou = importlib.import_module("torchvision.ops.diou_loss").distance_box_iou_loss
ciou = importlib.import_module("torchvision.ops.ciou_loss").complete_box_iou_loss


def mmdetection():
    """Its file of box losses, which needs a registry and nothing else of the framework."""
    for package in ("mmdet", "mmdet.models", "mmdet.models.losses", "mmdet.structures.bbox"):
        if package.endswith("bbox"):
            sys.modules["mmdet.structures"] = types.ModuleType("mmdet.structures")
            location = sys.modules["mmdet"].__path__[0]
            sys.modules[package] = types.ModuleType(package)
            sys.modules[package].__path__ = [f"{location}/structures/bbox"]
        else:
            without_init(package)
    sys.modules["mmdet.registry"] = types.ModuleType("mmdet.registry")
    sys.modules["mmdet.registry"].MODELS = types.SimpleNamespace(
        register_module=lambda: lambda module: module
    )
    overlaps = importlib.import_module("mmdet.structures.bbox.bbox_overlaps")
    sys.modules["mmdet.structures.bbox"].bbox_overlaps = overlaps.bbox_overlaps
    return importlib.import_module("mmdet.models.losses.iou_loss")


mmdet = mmdetection()

# Overlapping little and much, one inside the other, disjoint in one axis and in both.
BOXES = np.array(
    [
        [0.0, 0.0, 4.0, 3.0],
        [1.0, 2.0, 6.5, 5.0],
        [2.0, 2.0, 3.0, 4.5],
        [0.25, 0.5, 7.0, 6.0],
        [0.0, 0.0, 1.0, 2.5],
        [8.0, 1.0, 9.5, 4.0],
    ]
)
TARGETS = np.array(
    [
        [2.5, 1.0, 6.0, 7.0],
        [1.25, 1.5, 6.0, 5.25],
        [1.0, 1.0, 5.0, 6.0],
        [1.0, 2.0, 4.0, 4.0],
        [2.0, 1.0, 5.0, 2.0],
        [3.0, 5.0, 7.0, 6.0],
    ]
)
PAIR = [BOXES, TARGETS]


def from_torchvision():
    for name, loss, options in (
        ("giou", giou, {"eps": 0.0}),
        ("diou", diou, {"eps": 0.0}),
        ("ciou", ciou, {}),  # does not pass its eps on: 1e-7 remains
    ):
        for reduction in REDUCTIONS:
            golden(
                name,
                f"torchvision {reduction}",
                f"torchvision.ops.{loss.__name__}",
                lambda x: loss(x, t(TARGETS), reduction=reduction, **options),
                PAIR,
                rtol=1e-9 if options else 1e-6,
                reduction=reduction,
            )


def from_mmdetection():
    plain = {"eps": 0.0, "reduction": "none"}
    rows = {
        ("iou", "linear"): ("iou_loss", {"mode": "linear", "eps": 1e-30}, {"form": "linear"}),
        ("iou", "log"): ("iou_loss", {"mode": "log", "eps": 1e-6}, {"form": "log"}),
        ("iou", "square"): ("iou_loss", {"mode": "square", "eps": 1e-30}, {"form": "square"}),
        ("giou", "mmdetection"): ("giou_loss", {}, {}),
        ("diou", "mmdetection"): ("diou_loss", {}, {}),
        ("ciou", "gated"): ("ciou_loss", {}, {"gate": 0.5}),
        ("bounded_iou", "default"): ("bounded_iou_loss", {}, {}),
        ("bounded_iou", "beta"): ("bounded_iou_loss", {"beta": 0.5}, {"beta": 0.5}),
        ("extended_iou", "default"): ("eiou_loss", {}, {}),
        ("extended_iou", "beta"): ("eiou_loss", {"smooth_point": 0.5}, {"beta": 0.5}),
        ("siou", "default"): ("siou_loss", {"neg_gamma": True}, {}),
    }
    for (name, case), (function, theirs, ours) in rows.items():
        original = getattr(mmdet, function)

        def loss(x):
            values = original(x, t(TARGETS), **plain | theirs)
            return values.sum(-1) if name == "bounded_iou" else values  # it returns four a box

        source = f"mmdet 3.3.0, mmdet.models.losses.iou_loss.{function}"
        golden(name, f"mmdetection {case}", source, loss, PAIR, reduction="none", **ours)


class Terms:
    """What the papers' formulas are made of."""

    def __init__(self, a, b):
        self.a, self.b = a, b
        self.size, self.target = a[:, 2:] - a[:, :2], b[:, 2:] - b[:, :2]
        shared = torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])
        shared = shared.clamp(min=0).prod(-1)
        self.union = self.size.prod(-1) + self.target.prod(-1) - shared
        self.iou = shared / self.union
        self.hull = torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])
        self.apart = (a[:, 2:] + a[:, :2] - b[:, 2:] - b[:, :2]) / 2
        self.vacancy = 1 - self.union / self.hull.prod(-1)
        self.offset = (self.apart**2).sum(-1) / (self.hull**2).sum(-1)

    def weighted_aspect(self):
        turn = torch.atan(self.size[:, 0] / self.size[:, 1])
        turn = turn - torch.atan(self.target[:, 0] / self.target[:, 1])
        v = 4 / math.pi**2 * turn**2
        return (v / (1 - self.iou + v)).detach() * v

    def penalties(self, base):
        return {
            "iou": [],
            "giou": [self.vacancy],
            "diou": [self.offset],
            "ciou": [self.offset, self.weighted_aspect()],
        }[base]


def eiou(p):
    return 1 - p.iou + p.offset + (((p.size - p.target) / p.hull) ** 2).sum(-1)


def inner(p, ratio, base):
    scaled = []
    for box, size in ((p.a, p.size), (p.b, p.target)):
        centre = (box[:, :2] + box[:, 2:]) / 2
        scaled.append(torch.cat([centre - ratio * size / 2, centre + ratio * size / 2], -1))
    return 1 - Terms(*scaled).iou + sum(p.penalties(base))


def from_papers():
    rows = [
        ("eiou", "Zhang et al. 2101.08158", "default", eiou, {}),
        (
            "focal_eiou",
            "Zhang et al. 2101.08158",
            "gamma",
            lambda p: p.iou.detach() ** 1.5 * eiou(p),
            {"gamma": 1.5},
        ),
        (
            "wiou",
            "Tong et al. 2301.10051",
            "version 1",
            lambda p: torch.exp((p.apart**2).sum(-1) / (p.hull**2).sum(-1).detach()) * (1 - p.iou),
            {},
        ),
        (
            "mpdiou",
            "Ma and Xu 2307.07662",
            "image 6 x 8",
            lambda p: 1 - p.iou + ((p.a - p.b) ** 2).sum(-1) / 100,
            {"image_size": np.array([6.0, 8.0])},
        ),
        (
            "nwd",
            "Wang et al. 2110.13389",
            "constant",
            lambda p: (
                1
                - torch.exp(
                    -torch.sqrt((p.apart**2).sum(-1) + ((p.size - p.target) ** 2).sum(-1) / 4) / 2.5
                )
            ),
            {"constant": 2.5},
        ),
        (
            "sqrt_size_l2",
            "Redmon et al. 1506.02640",
            "default",
            lambda p: (p.apart**2 + (p.size.sqrt() - p.target.sqrt()) ** 2).sum(-1),
            {},
        ),
        (
            "area_scaled_l2",
            "Redmon and Farhadi 1804.02767",
            "image 10 x 12",
            lambda p: (
                (2 - p.target.prod(-1) / 120) * (p.apart**2 + (p.size - p.target) ** 2).sum(-1)
            ),
            {"image_size": np.array([10.0, 12.0])},
        ),
    ]
    for base in ("iou", "giou", "diou", "ciou"):
        rows.append(
            (
                "alpha_iou",
                "He et al. 2110.13675",
                base,
                lambda p, base=base: 1 - p.iou**3 + sum(x**3 for x in p.penalties(base)),
                {"base": base},
            )
        )
        rows.append(
            (
                "inner_iou",
                "Zhang et al. 2311.02877",
                base,
                lambda p, base=base: inner(p, 0.7, base),
                {"base": base},
            )
        )
    for name, paper, case, loss, options in rows:
        golden(
            name,
            case,
            f"the formula of {paper}, in torch",
            lambda x: loss(Terms(x, t(TARGETS))),
            PAIR,
            reduction="none",
            **options,
        )


def in_pixels():
    # Boxes of 20 to 300 pixels: torchvision's 1e-7 in the union and in the diagonal is then below
    # 1e-9 of them. Where it can be passed, eps is 0. Overlapping, disjoint, one in the other.
    box = np.array(
        [
            [10.0, 20.0, 110.0, 80.0],
            [15.0, 30.0, 45.0, 190.0],
            [300.0, 40.0, 420.0, 90.0],
            [50.0, 60.0, 350.0, 260.0],
            [120.0, 110.0, 180.0, 140.0],
            [5.0, 7.0, 64.0, 301.0],
        ]
    )
    target = np.array(
        [
            [30.0, 10.0, 140.0, 95.0],
            [25.0, 20.0, 75.0, 150.0],
            [20.0, 200.0, 90.0, 240.0],
            [100.0, 90.0, 160.0, 240.0],
            [80.0, 70.0, 300.0, 200.0],
            [11.0, 3.0, 71.0, 290.0],
        ]
    )
    seek(256)
    box += uniform(6, 4)
    target += uniform(6, 4)

    def corners(b):
        return torch.cat([b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2], -1)

    def centres(b):
        return np.concatenate([(b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2]], -1)

    for name, source, peer in [
        ("giou", "torchvision.ops.generalized_box_iou_loss", giou),
        ("ciou", "torchvision.ops.complete_box_iou_loss", ciou),
    ]:
        for reduction in REDUCTIONS:
            golden(
                name,
                reduction,
                source,
                lambda b: peer(b, t(target), reduction, eps=0.0),
                [box, target],
                reduction=reduction,
            )
        golden(
            name,
            "cxcywh",
            source,
            lambda b: peer(corners(b), t(target), "mean", eps=0.0),
            [centres(box), centres(target)],
            format="cxcywh",
        )


from_torchvision()
from_mmdetection()
from_papers()
in_pixels()
write("boxes.json")
