"""Makes detection_anchors.json: heads and assigners on anchors and points by their originals.

RetinaNet and FCOS by torchvision, YOLOv5 by the package yolov5 (AGPL-3.0, run for its numbers),
ATSS and FCOS with centerness weights by mmdet, of which single modules are run with stand-ins for
its registry. Originals run in float64. Inputs are those of tests/detection/scenes.py and of the
rows.

Usage, from the root: python -m tests.goldens.make_detection_anchors
"""

import importlib.metadata
import importlib.util
import json
import math
import pathlib
import sys
import types
from types import SimpleNamespace

import numpy as np
import torch
import torchvision  # noqa: F401
from torchvision.models.detection import _utils as det_utils
from torchvision.models.detection import fcos, retinanet
from torchvision.ops import boxes as box_ops

from tests.detection.scenes import boxes, projections, waves

torch.set_default_dtype(torch.float64)
t = torch.tensor


def package(name):
    """Registers a package without running its __init__."""
    module = types.ModuleType(name)
    module.__path__ = list(importlib.util.find_spec(name).submodule_search_locations)
    sys.modules[name] = module


def stand_in(name, **attributes):
    """Registers a module that holds no more than these."""
    module = types.ModuleType(name)
    vars(module).update(attributes)
    sys.modules[name] = module


class Registry:
    """Registers nothing; builds what it is given by name."""

    found: dict = {}

    def register_module(self):
        return lambda cls: self.found.setdefault(cls.__name__, cls)

    def build(self, config):
        config = dict(config)
        return self.found[config.pop("type")](**config)


class Instances(SimpleNamespace):
    def __contains__(self, name):
        return hasattr(self, name)

    def __len__(self):
        return len(self.bboxes)


package("yolov5")
stand_in("matplotlib")
stand_in("matplotlib.pyplot")
sys.modules["matplotlib"].pyplot = sys.modules["matplotlib.pyplot"]
sys.modules["yolov5"].utils = types.ModuleType("yolov5.utils")
utils = pathlib.Path(sys.modules["yolov5"].__path__[0]) / "utils"
stand_in(
    "yolov5.utils", TryExcept=lambda *a: lambda f: f, threaded=lambda f: f, __path__=[str(utils)]
)
stand_in("yolov5.utils.torch_utils", de_parallel=lambda model: model)
from yolov5.utils.loss import ComputeLoss  # noqa: E402

for name in ("mmdet", "mmdet.models", "mmdet.models.task_modules"):
    package(name)
package("mmdet.models.task_modules.assigners")
package("mmdet.models.dense_heads")
package("mmdet.structures")
stand_in("mmengine")
stand_in("mmengine.structures", InstanceData=Instances)
stand_in("mmdet.registry", TASK_UTILS=Registry(), MODELS=Registry())
types_ = (
    "ConfigType",
    "InstanceList",
    "MultiConfig",
    "OptInstanceList",
    "RangeType",
    "reduce_mean",
)
stand_in(
    "mmdet.utils",
    **dict.fromkeys(types_),
)
sys.modules["mmdet.utils"].reduce_mean = lambda x: x
stand_in(
    "mmdet.models.utils",
    multi_apply=lambda f, *a, **k: tuple(
        map(list, zip(*(f(*x, **k) for x in zip(*a, strict=True)), strict=False))
    ),
)
stand_in("mmdet.models.layers", NormedConv2d=None)
stand_in("mmcv")
stand_in("mmcv.cnn", Scale=None)
stand_in("mmdet.models.dense_heads.anchor_free_head", AnchorFreeHead=object)
place = pathlib.Path(sys.modules["mmdet.structures"].__path__[0]) / "bbox"
stand_in("mmdet.structures.bbox", __path__=[str(place)], get_box_tensor=lambda x: x)
from mmdet.structures.bbox.bbox_overlaps import bbox_overlaps  # noqa: E402

sys.modules["mmdet.structures.bbox"].bbox_overlaps = bbox_overlaps
stand_in(
    "mmdet.models.task_modules.assigners.assign_result", AssignResult=lambda n, inds, *a, **k: inds
)
stand_in("mmdet.models.task_modules.assigners.base_assigner", BaseAssigner=object)
import mmdet.models.task_modules.assigners.iou2d_calculator  # noqa: E402, F401
from mmdet.models.dense_heads.fcos_head import FCOSHead  # noqa: E402
from mmdet.models.task_modules.assigners.atss_assigner import ATSSAssigner  # noqa: E402

ROWS = []


def row(function, case, source, inputs, parts=None, predictions=(), **rest):
    """Adds a row: the inputs, the parts, and projections of the total's gradients."""
    made = {"function": function, "case": case, "source": source, **inputs, **rest}
    if parts is not None:
        total = sum(parts.values())
        gradients = torch.autograd.grad(total, predictions)
        made["parts"] = {name: float(part) for name, part in parts.items()}
        made["gradient"] = projections([g.numpy() for g in gradients])
    ROWS.append(made)


def scene(images, slots, size, seed, counts, **options):
    box, label = boxes(images, slots, size, seed)
    return {"boxes": box.tolist(), "labels": label.tolist(), "counts": counts, **options}


def lists(inputs):
    """The boxes and labels of each image as torchvision has them."""
    return [
        {"boxes": t(b[:n]).reshape(-1, 4), "labels": t(y[:n], dtype=torch.long)}
        for b, y, n in zip(inputs["boxes"], inputs["labels"], inputs["counts"], strict=True)
    ]


# --- YOLOv5 ---

ANCHORS = [
    [[10, 13], [16, 30], [33, 23]],
    [[30, 61], [62, 45], [59, 119]],
    [[116, 90], [156, 198], [373, 326]],
]


def yolo_v5(case, inputs, classes=4, images=2, grids=((8, 12), (4, 6), (2, 3)), **hyper):
    levels = len(grids)
    options = {
        "box": 0.05,
        "obj": 1.0,
        "cls": 0.5,
        "cls_pw": 1,
        "obj_pw": 1,
        "anchor_t": 4.0,
        "fl_gamma": 0.0,
        "label_smoothing": 0.0,
    } | hyper
    strides = [8, 16, 32][:levels]
    head = SimpleNamespace(nl=levels, na=3, nc=classes, stride=strides)
    head.anchors = t(ANCHORS[:levels], dtype=torch.float64) / t(
        strides, dtype=torch.float64
    ).reshape(-1, 1, 1)
    model = SimpleNamespace(model=[head], hyp=options, parameters=lambda: iter([torch.zeros(1)]))
    loss = ComputeLoss(model)
    loss.sort_obj_iou = True
    loss.gr = hyper.get("gr", 1.0)
    shapes = [(images, 3, *grid, 5 + classes) for grid in grids]
    predictions = [t(waves(s, i), requires_grad=True) for i, s in enumerate(shapes)]
    size = t([grids[0][1] * 8.0, grids[0][0] * 8.0]).repeat(2)
    rows = []
    for image, target in enumerate(lists(inputs)):
        b = target["boxes"]
        centre = torch.cat([(b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2]], 1) / size
        ids = target["labels"].double()[:, None]
        rows.append(torch.cat([torch.full_like(ids, image), ids, centre], 1))
    total, parts = loss(predictions, torch.cat(rows))
    gradients = torch.autograd.grad(total.sum(), predictions)
    ROWS.append(
        {
            "function": "yolo_v5",
            "case": case,
            "source": YOLO,
            **inputs,
            "shapes": shapes,
            "anchors": ANCHORS[:levels],
            "strides": strides,
            "hyper": hyper,
            "parts": dict(
                zip(("box", "objectness", "classification"), (images * parts).tolist(), strict=True)
            ),
            "gradient": projections([g.numpy() for g in gradients]),
        }
    )


VERSIONS = {
    name: importlib.metadata.version(name)
    for name in ("torch", "torchvision", "yolov5", "mmdet", "numpy")
}
YOLO = f"yolov5 {VERSIONS['yolov5']} ComputeLoss, sort_obj_iou"
TORCH = f"torchvision {VERSIONS['torchvision']}"
MMDET = f"mmdet {VERSIONS['mmdet']}"

many = scene(2, 10, (64, 96), 1, [10, 6])
yolo_v5("three levels", many)
yolo_v5("focal, smoothing, ratio", many, fl_gamma=1.5, label_smoothing=0.1, gr=0.6)
yolo_v5(
    "one class, two levels",
    scene(2, 10, (64, 96), 2, [7, 0]) | {"labels": [[0] * 10] * 2},
    classes=1,
    grids=((8, 12), (4, 6)),
)
yolo_v5("no boxes", scene(2, 4, (64, 96), 3, [0, 0]))
# Centres on edges and corners of cells, at the rim, outside; one box twice; none that fits.
EDGES = [
    [8, 8, 24, 24],
    [0, 0, 16, 16],
    [4, 4, 20, 12],
    [80, 48, 96, 64],
    [10, 8, 24, 24],
    [10, 8, 24, 24],
    [-10, -6, 6, 10],
    [1, 1, 90, 2],
]
edges = {"boxes": [EDGES, EDGES[::-1]], "labels": [[0, 1, 2, 3, 0, 1, 2, 3]] * 2, "counts": [8, 5]}
yolo_v5("edges", edges)

# --- RetinaNet ---


def anchors_of(grids, strides, sizes, ratios=(0.5, 1.0, 2.0), scales=(1.0, 1.4)):
    """Anchors in the order level, row, column, anchor, corners rounded to whole pixels."""
    found = []
    for (rows, columns), stride, size in zip(grids, strides, sizes, strict=True):
        for i in range(rows):
            for j in range(columns):
                for ratio in ratios:
                    for scale in scales:
                        w, h = size * scale / math.sqrt(ratio), size * scale * math.sqrt(ratio)
                        x, y = j * stride, i * stride
                        found.append(
                            [round(x - w / 2), round(y - h / 2), round(x + w / 2), round(y + h / 2)]
                        )
    return found


GRIDS, STRIDES = ((8, 12), (4, 6)), (8, 16)
BOXES = anchors_of(GRIDS, STRIDES, (24, 48))


def matched(inputs, positive=0.5, negative=0.4, low_quality=True):
    matcher = det_utils.Matcher(positive, negative, allow_low_quality_matches=low_quality)
    anchors = t(BOXES, dtype=torch.float64)
    return [
        matcher(box_ops.box_iou(target["boxes"], anchors))
        if len(target["boxes"])
        else torch.full((len(anchors),), -1)
        for target in lists(inputs)
    ]


def retina(case, inputs, classes=4, loss="l1", weights=(1.0, 1.0, 1.0, 1.0), **matching):
    images, anchors = len(inputs["counts"]), t(BOXES, dtype=torch.float64)
    logits = t(waves((images, len(anchors), classes), 0) - 2, requires_grad=True)
    deltas = t(waves((images, len(anchors), 4), 1, 1.0), requires_grad=True)
    found = matched(inputs, **matching)
    self = SimpleNamespace(
        BETWEEN_THRESHOLDS=-2, _loss_type=loss, box_coder=det_utils.BoxCoder(weights)
    )
    outputs = {"cls_logits": logits, "bbox_regression": deltas}
    parts = {
        "classification": retinanet.RetinaNetClassificationHead.compute_loss(
            self, lists(inputs), outputs, found
        ),
        "box": retinanet.RetinaNetRegressionHead.compute_loss(
            self, lists(inputs), outputs, [anchors] * images, found
        ),
    }
    row(
        "retinanet",
        case,
        f"{TORCH} RetinaNetHead.compute_loss, Matcher",
        inputs,
        parts,
        (logits, deltas),
        anchors=BOXES,
        classes=classes,
        box_loss=loss,
        weights=weights,
        matching=matching,
        matches=[m.tolist() for m in found],
    )


several = scene(3, 7, (64, 96), 4, [7, 0, 4])
retina("l1", several)
retina(
    "smooth l1, no low quality",
    several,
    loss="smooth_l1",
    weights=(10.0, 10.0, 5.0, 5.0),
    low_quality=False,
)
retina("giou, other thresholds", several, loss="giou", positive=0.6, negative=0.3)
# Boxes in whole pixels: thresholds and ties are met exactly.
whole = scene(3, 7, (64, 96), 5, [7, 5, 1])
whole["boxes"] = (np.round(np.array(whole["boxes"]) / 4) * 4 + [0, 0, 4, 4]).tolist()
retina("whole pixels", whole)

# --- FCOS ---


def points_of(grids, strides):
    return [
        [(j + 0.5) * s, (i + 0.5) * s, s]
        for (rows, columns), s in zip(grids, strides, strict=True)
        for i in range(rows)
        for j in range(columns)
    ]


POINTS = points_of(((16, 24), (8, 12), (4, 6)), (8, 16, 32))
COUNTS = [16 * 24, 8 * 12, 4 * 6]


def fcos_by_torchvision(case, inputs, classes=4, radius=1.5):
    images, places = len(inputs["counts"]), t(POINTS, dtype=torch.float64)
    half = places[:, 2:] / 2
    anchors = torch.cat([places[:, :2] - half, places[:, :2] + half], 1)
    logits, distances, centerness = predictions = fcos_predictions(images, classes)
    head = SimpleNamespace(box_coder=det_utils.BoxLinearCoder(normalize_by_size=True))
    seen = {}

    def compute(targets, outputs, anchors, matches):
        seen["matches"] = [m.tolist() for m in matches]
        return fcos.FCOSHead.compute_loss(head, targets, outputs, anchors, matches)

    self = SimpleNamespace(
        center_sampling_radius=radius, head=SimpleNamespace(compute_loss=compute)
    )
    outputs = {
        "cls_logits": logits,
        "bbox_regression": distances,
        "bbox_ctrness": centerness[..., None],
    }
    found = fcos.FCOS.compute_loss(self, lists(inputs), outputs, [anchors] * images, COUNTS)
    parts = dict(zip(("classification", "box", "centerness"), found.values(), strict=True))
    row(
        "fcos",
        case,
        f"{TORCH} FCOS.compute_loss",
        inputs,
        parts,
        predictions,
        points=POINTS,
        classes=classes,
        matches=seen["matches"],
        options={"center_radius": radius, "box_loss": "giou", "box_weighting": "none"},
    )


def fcos_predictions(images, classes):
    logits = t(waves((images, len(POINTS), classes), 0) - 2, requires_grad=True)
    distances = t(np.exp(waves((images, len(POINTS), 4), 1, 1.0)), requires_grad=True)
    centerness = t(waves((images, len(POINTS)), 2), requires_grad=True)
    return logits, distances, centerness


def fcos_by_mmdet(case, inputs, kind, radius, classes=4):
    images, places = len(inputs["counts"]), t(POINTS, dtype=torch.float64)
    ranges = [(-1, 32), (32, 64), (64, 1e8)]
    per_point = torch.cat(
        [t([r], dtype=torch.float64).expand(n, 2) for r, n in zip(ranges, COUNTS, strict=True)]
    )
    predictions = fcos_predictions(images, classes)

    def by_level(x):
        x = x if x.ndim == 3 else x[..., None]
        sizes = ((16, 24), (8, 12), (4, 6))
        return [
            level.reshape(images, *size, -1).permute(0, 3, 1, 2)
            for level, size in zip(x.split(COUNTS, 1), sizes, strict=True)
        ]

    def classify(scores, labels, avg_factor):
        hot = torch.nn.functional.one_hot(labels, classes + 1)[:, :classes].to(scores.dtype)
        return fcos.sigmoid_focal_loss(scores, hot, reduction="sum") / avg_factor

    def regress(found, true, weight, avg_factor):
        mode = "giou" if kind == "giou" else "iou"
        overlap = bbox_overlaps(found, true, mode=mode, is_aligned=True)
        loss = -overlap.clamp(min=1e-6).log() if kind == "iou" else 1 - overlap
        return (loss * weight).sum() / avg_factor

    def centre(logits, true, avg_factor):
        return (
            torch.nn.functional.binary_cross_entropy_with_logits(logits, true, reduction="sum")
            / avg_factor
        )

    points = list(places[:, :2].split(COUNTS))
    strides = list(places[:, 2].split(COUNTS))

    class Head:
        num_classes = cls_out_channels = classes
        center_sampling, center_sample_radius = radius is not None, radius
        regress_ranges, norm_on_bbox = ranges, False
        prior_generator = SimpleNamespace(grid_priors=lambda *a, **k: points)
        bbox_coder = SimpleNamespace(decode=lambda p, d: torch.cat([p - d[:, :2], p + d[:, 2:]], 1))
        loss_cls, loss_bbox, loss_centerness = map(staticmethod, (classify, regress, centre))

    head = Head()
    head.strides = [8, 16, 32]
    for name in ("get_targets", "_get_targets_single", "centerness_target"):
        setattr(head, name, types.MethodType(getattr(FCOSHead, name), head))
    logits, distances, centerness = predictions
    pixels = distances * torch.cat(strides)[None, :, None]
    instances = [Instances(bboxes=x["boxes"], labels=x["labels"]) for x in lists(inputs)]
    found = FCOSHead.loss_by_feat(
        head, by_level(logits), by_level(pixels), by_level(centerness), instances, []
    )
    parts = {
        "classification": found["loss_cls"],
        "box": found["loss_bbox"],
        "centerness": found["loss_centerness"],
    }
    row(
        "fcos",
        case,
        f"{MMDET} FCOSHead.loss_by_feat",
        inputs,
        parts,
        predictions,
        points=POINTS,
        classes=classes,
        size_ranges=per_point.tolist(),
        options={"center_radius": radius, "box_loss": kind, "box_weighting": "centerness"},
    )


seen = scene(3, 7, (128, 192), 6, [7, 0, 4])
fcos_by_torchvision("torchvision", seen)
fcos_by_torchvision("torchvision, radius 0.7", seen, radius=0.7)
fcos_by_mmdet("giou", seen, "giou", 1.5)
fcos_by_mmdet("iou, whole box", seen, "iou", None)
fcos_by_mmdet("linear iou", seen, "linear_iou", 1.5)

# --- ATSS ---

SQUARES = anchors_of(((16, 24), (8, 12), (4, 6)), (8, 16, 32), (64, 128, 256), (1.0,), (1.0,))
for top_k in (9, 4):
    assigner = ATSSAssigner(topk=top_k)
    found = [
        assigner.assign(
            Instances(priors=t(SQUARES, dtype=torch.float64)),
            COUNTS,
            Instances(bboxes=x["boxes"], labels=x["labels"]),
        )
        for x in lists(seen)
    ]
    row(
        "assign_atss",
        f"top {top_k}",
        f"{MMDET} ATSSAssigner",
        seen,
        anchors=SQUARES,
        level_sizes=COUNTS,
        top_k=top_k,
        matches=[(f - 1).tolist() for f in found],
    )

if __name__ == "__main__":
    path = pathlib.Path(__file__).with_name("detection_anchors.json")
    path.write_text(
        json.dumps({"versions": VERSIONS, "detection": ROWS}, separators=(",", ":")) + "\n"
    )
    print(len(ROWS), "rows", path.stat().st_size, "bytes")
