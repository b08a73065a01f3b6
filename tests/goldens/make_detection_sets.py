"""Makes detection_sets.json: heads whose assignment depends on the predictions, by their originals.

YOLOv8 and its rotated form by ultralytics (AGPL-3.0, run for its numbers), DETR and its kin and
Mask2Former by transformers, SimOTA by mmdet, of which a single module is run with stand-ins for its
registry. Originals run in float64. Inputs are those of tests/detection/scenes.py and of the rows.

Usage, from the root: python -m tests.goldens.make_detection_sets
"""

import importlib.metadata
import importlib.util
import json
import pathlib
import sys
import types
from types import SimpleNamespace

import numpy as np
import torch

from tests.detection.scenes import boxes, projections, waves

torch.set_default_dtype(torch.float64)
t = torch.tensor
VERSIONS = {
    name: importlib.metadata.version(name)
    for name in ("torch", "ultralytics", "transformers", "mmdet", "scipy", "numpy")
}
ROWS = []


def row(function, case, source, inputs, parts=None, predictions=(), **rest):
    """Adds a row: the inputs, the parts, and projections of the total's gradients."""
    made = {"function": function, "case": case, "source": source, **inputs, **rest}
    if parts is not None:
        gradients = torch.autograd.grad(sum(parts.values()), predictions)
        made["parts"] = {name: float(part) for name, part in parts.items()}
        made["gradient"] = projections([g.numpy() for g in gradients])
    ROWS.append(made)


def scene(images, slots, size, seed, counts):
    box, label = boxes(images, slots, size, seed)
    return {"boxes": box.tolist(), "labels": label.tolist(), "counts": counts}


# --- YOLOv8 ---

from ultralytics.utils import loss as yolo  # noqa: E402

SIZE, STRIDES = (64, 96), (8, 16, 32)
GRIDS = [(SIZE[0] // s, SIZE[1] // s) for s in STRIDES]
ULTRALYTICS = f"ultralytics {VERSIONS['ultralytics']}"


class _Model(torch.nn.Module):
    """What ultralytics' losses read of a model."""

    def __init__(self, classes, reg_max):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        head = SimpleNamespace(
            stride=t(STRIDES, dtype=torch.float64), nc=classes, reg_max=reg_max, no=0
        )
        self.model = [head]
        self.args = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5, angle=1.0)


def levels(images, channels, phase, shift=0.0):
    """Predictions [B, H, W, channels] of each level."""
    made = [
        waves((images, *grid, channels), phase + i, 1.5) + shift for i, grid in enumerate(GRIDS)
    ]
    return [t(level, requires_grad=True) for level in made]


def columns(predicted):
    """All levels as [B, channels, N]."""
    return torch.cat([x.reshape(x.shape[0], -1, x.shape[-1]) for x in predicted], 1).swapaxes(1, 2)


def yolo_v8(case, inputs, classes=4, reg_max=16, rotated=False):
    images = len(inputs["counts"])
    predicted = levels(images, 4 * reg_max + classes, 0, 1.0 if reg_max == 1 else 0.0)
    joined = columns(predicted)
    feats = [torch.zeros(images, 1, *grid) for grid in GRIDS]
    preds = {"boxes": joined[:, : 4 * reg_max], "scores": joined[:, 4 * reg_max :], "feats": feats}
    size = t([SIZE[1], SIZE[0]], dtype=torch.float64)
    batch = {"batch_idx": [], "cls": [], "bboxes": []}
    for image, (b, y, n) in enumerate(
        zip(inputs["boxes"], inputs["labels"], inputs["counts"], strict=True)
    ):
        b = t(b[:n], dtype=torch.float64).reshape(n, 5 if rotated else 4)
        if not rotated:
            b = torch.cat([(b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2]], 1)
        batch["bboxes"].append(torch.cat([b[:, :4] / size.repeat(2), b[:, 4:]], 1))
        batch["cls"].append(t(y[:n], dtype=torch.float64))
        batch["batch_idx"].append(torch.full((n,), float(image)))
    batch = {name: torch.cat(parts) for name, parts in batch.items()}

    make = yolo.v8OBBLoss if rotated else yolo.v8DetectionLoss
    loss = make(_Model(classes, reg_max))
    seen = {}
    assign = loss.assigner.forward

    def watched(*args, **kwargs):
        found = assign(*args, **kwargs)
        seen.update(scores=found[2].sum(-1), foreground=found[3], index=found[4])
        return found

    loss.assigner.forward = watched
    names = ["box", "classification", "distribution"]
    variables = list(predicted)
    if rotated:
        names.append("angle")
        angles = [
            t(waves((images, *grid), 5 + i, 1.0), requires_grad=True)
            for i, grid in enumerate(GRIDS)
        ]
        preds["angle"] = columns([angle[..., None] for angle in angles])
        variables += angles
    total, _ = loss(preds, batch)
    counts = seen["scores"] > 0  # points of metric 0 are a matter of memory order there
    row(
        "yolo_v8_rotated" if rotated else "yolo_v8",
        case,
        f"{ULTRALYTICS} {make.__name__}",
        inputs,
        dict(zip(names, total, strict=True)),
        variables,
        classes=classes,
        reg_max=reg_max,
        index=torch.where(counts, seen["index"], -1).tolist(),
        weight=torch.where(counts, seen["scores"], 0).tolist(),
    )


many = scene(2, 10, SIZE, 1, [10, 6])
yolo_v8("three levels", many)
yolo_v8("no bins", many, reg_max=1)
yolo_v8("small boxes, one image empty", scene(2, 8, (12, 12), 2, [8, 0]), classes=5)
yolo_v8("no boxes", scene(2, 4, SIZE, 3, [0, 0]))


def turned(images, slots, seed, counts):
    """Boxes cxcywh and an angle."""
    made = scene(images, slots, SIZE, seed, counts)
    b = np.array(made["boxes"])
    angle = waves((images, slots, 1), 9, 1.5).round(3)
    made["boxes"] = np.concatenate(
        [(b[..., :2] + b[..., 2:]) / 2, b[..., 2:] - b[..., :2], angle], -1
    ).tolist()
    return made


rotated = turned(2, 10, 1, [10, 6])
rotated["boxes"][0][9][2:4] = [12.0, 1.5]  # too small
yolo_v8("rotated", rotated, rotated=True)
yolo_v8("rotated, no bins", rotated, reg_max=1, rotated=True)
yolo_v8("rotated, one image empty", turned(2, 8, 2, [8, 0]), classes=5, rotated=True)

# --- DETR and its kin ---

from transformers.loss import loss_deformable_detr as deformable  # noqa: E402
from transformers.loss import loss_deimv2 as deim  # noqa: E402
from transformers.loss import loss_for_object_detection as original  # noqa: E402
from transformers.loss import loss_lw_detr as lw  # noqa: E402
from transformers.loss import loss_rt_detr as rt  # noqa: E402

TRANSFORMERS = f"transformers {VERSIONS['transformers']}"
NAMES = {"classification": ("ce", "vfl", "mal"), "l1": ("bbox",), "giou": ("giou",)}
GAINS = {"ce": 1.0, "vfl": 1.0, "mal": 1.0, "bbox": 5.0, "giou": 2.0}
CONFIG = SimpleNamespace(
    matcher_class_cost=2.0,
    matcher_bbox_cost=5.0,
    matcher_giou_cost=2.0,
    use_focal_loss=True,
    matcher_alpha=0.25,
    matcher_gamma=2.0,
    num_labels=4,
    eos_coefficient=0.1,
    weight_loss_vfl=1.0,
    weight_loss_bbox=5.0,
    weight_loss_giou=2.0,
    focal_loss_alpha=0.75,
    focal_loss_gamma=2.0,
)


def relative(inputs):
    """Boxes cxcywh over the image's sides, and labels, of each image."""
    size = t([SIZE[1], SIZE[0]], dtype=torch.float64)
    found = []
    for b, y, n in zip(inputs["boxes"], inputs["labels"], inputs["counts"], strict=True):
        b = t(b[:n], dtype=torch.float64).reshape(n, 4)
        b = torch.cat([(b[:, :2] + b[:, 2:]) / 2 / size, (b[:, 2:] - b[:, :2]) / size], 1)
        found.append({"boxes": b, "class_labels": t(y[:n], dtype=torch.long)})
    return found


def queries(images, count, classes):
    """Logits, and boxes cxcywh that reach over most of the image.

    Each meets every true box: where the IoU is 0 the classes' losses are not transformers'.
    """
    logits = t(waves((images, count, classes), 0), requires_grad=True)
    wide = np.array([0.5, 0.5, 1.0, 1.0]) + waves((images, count, 4), 1, 0.1)
    return logits, t(wide, requires_grad=True)


def by_name(losses, gains=GAINS):
    """Parts under our names, with gains; losses of several layers are added."""
    parts = dict.fromkeys(NAMES, 0.0)
    for name, value in losses.items():
        for ours, theirs in NAMES.items():
            for kind in theirs:
                if name.startswith(f"loss_{kind}"):
                    parts[ours] = parts[ours] + gains[kind] * value
    return parts


def slots(indices, images, count):
    """The slot of each query, -1 for none."""
    found = torch.full((images, count), -1)
    for image, (i, j) in enumerate(indices):
        found[image, i] = j
    return found.tolist()


def detr(case, inputs, make, source, gains=GAINS, count=14, classes=4, **options):
    """`make` returns the matcher and the losses of outputs and targets."""
    images = len(inputs["counts"])
    logits, predicted = queries(images, count, classes + (case == "softmax"))
    outputs = {"logits": logits, "pred_boxes": predicted}
    matcher, losses = make(outputs, relative(inputs))
    row(
        "detr",
        case,
        f"{TRANSFORMERS} {source}",
        inputs,
        by_name(losses, gains),
        (logits, predicted),
        shape=(images, count, classes + (case == "softmax")),
        index=slots(matcher, images, count),
        options={"classification": case, **options},
    )


def softmax(outputs, targets):
    matcher = original.HungarianMatcher(1, 5, 2)
    loss = original.ImageLoss(matcher, 4, 0.1, ["labels", "boxes"])
    return matcher(outputs, targets), loss(outputs, targets)


def focal(outputs, targets):
    matcher = deformable.DeformableDetrHungarianMatcher(2, 5, 2)
    loss = deformable.DeformableDetrImageLoss(matcher, 4, 0.25, ["labels", "boxes"])
    return matcher(outputs, targets), loss(outputs, targets)


def varifocal(outputs, targets):
    loss = rt.RTDetrLoss(CONFIG)
    return loss.matcher(outputs, targets), loss(outputs, targets)


def matchability(outputs, targets):
    loss = rt.RTDetrLoss(CONFIG)
    loss.gamma, loss.mal_alpha = 1.5, None
    found = loss.matcher(outputs, targets)
    n = sum(len(x["boxes"]) for x in targets)
    mal = deim.Deimv2Loss.loss_labels_mal(loss, outputs, targets, found, n)
    return found, mal | loss.loss_boxes(outputs, targets, found, n)


sets = scene(3, 7, SIZE, 4, [7, 0, 4])
RAW = dict.fromkeys(GAINS, 1.0)
detr("softmax", sets, softmax, "ImageLoss, HungarianMatcher")
detr(
    "focal",
    sets,
    focal,
    "DeformableDetrImageLoss",
    GAINS | {"ce": 2.0},
    cost_class=2.0,
    class_gain=2.0,
)
detr("varifocal", sets, varifocal, "RTDetrLoss", RAW, cost_class=2.0)
detr("matchability_aware", sets, matchability, "Deimv2Loss.loss_labels_mal", cost_class=2.0)


def groups(case, inputs, count=24, number=3, classes=4):
    """Group DETR, focal."""
    images = len(inputs["counts"])
    logits, predicted = queries(images, count, classes)
    outputs, targets = {"logits": logits, "pred_boxes": predicted}, relative(inputs)
    found = lw.LwDetrHungarianMatcher(2, 5, 2)(outputs, targets, number)
    loss = deformable.DeformableDetrImageLoss(None, classes, 0.25, [])
    n = number * sum(inputs["counts"])
    losses = loss.loss_labels(outputs, targets, found, n) | loss.loss_boxes(
        outputs, targets, found, n
    )
    row(
        "detr",
        case,
        f"{TRANSFORMERS} LwDetrHungarianMatcher, DeformableDetrImageLoss",
        inputs,
        by_name(losses),
        (logits, predicted),
        shape=(images, count, classes),
        index=slots(found, images, count),
        options={"classification": "focal", "cost_class": 2.0, "groups": number},
    )


groups("three groups", sets)


def denoising(case, inputs, count=14, known=16, classes=4):
    """Two groups of noised boxes in front: 4 positives each, then 4 negatives."""
    images = len(inputs["counts"])
    logits, predicted = queries(images, known + count, classes)
    positive = [torch.cat([torch.arange(n), 8 + torch.arange(n)]) for n in inputs["counts"]]
    meta = {
        "dn_positive_idx": positive,
        "dn_num_group": 2,
        "dn_num_split": [known, count],
    }
    split = [x.split(meta["dn_num_split"], 1) for x in (logits, predicted)]
    outputs = {
        "logits": split[0][1],
        "pred_boxes": split[1][1],
        "dn_auxiliary_outputs": [{"logits": split[0][0], "pred_boxes": split[1][0]}],
        "denoising_meta_values": meta,
    }
    losses = rt.RTDetrLoss(CONFIG)(outputs, relative(inputs))
    row(
        "detr",
        case,
        f"{TRANSFORMERS} RTDetrLoss with denoising queries",
        inputs,
        by_name(losses, RAW),
        (logits, predicted),
        shape=(images, known + count, classes),
        known=known,
        options={"classification": "varifocal", "cost_class": 2.0},
    )


denoising("denoising", scene(3, 4, SIZE, 7, [4, 2, 3]))

# --- Mask2Former ---

from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss  # noqa: E402


def spots(count):
    """Points that depend on nothing but their number."""
    return 0.5 + 0.5 * np.sin(waves((count, 2), count, 40.0))


def mask_set(case, counts, queries=6, slots=4, classes=4, size=(12, 10), pixels=(24, 20)):
    images, points = len(counts), 40
    config = SimpleNamespace(
        num_labels=classes,
        no_object_weight=0.1,
        train_num_points=points,
        oversample_ratio=3.0,
        importance_sample_ratio=0.75,
        class_weight=2.0,
        mask_weight=5.0,
        dice_weight=5.0,
    )
    logits = t(waves((images, queries, classes + 1), 0), requires_grad=True)
    maps = t(waves((images, queries, *size), 1, 3.0), requires_grad=True)
    masks = waves((images, slots, *pixels), 2) > 0.5
    labels = np.arange(images * slots).reshape(images, slots) * 7 % classes
    true = [t(m[:n], dtype=torch.float64) for m, n in zip(masks, counts, strict=True)]
    ids = [t(y[:n]) for y, n in zip(labels, counts, strict=True)]
    rand = torch.rand
    torch.rand = lambda images, count, two, device: (
        t(spots(count)).expand(images, count, two).clone()
    )
    loss = Mask2FormerLoss(config, {})
    found = loss.matcher(maps, logits, true, ids)
    losses = loss(maps, logits, true, ids)
    torch.rand = rand
    row(
        "mask_set",
        case,
        f"{TRANSFORMERS} Mask2FormerLoss, points of `spots`",
        {"labels": labels.tolist(), "counts": counts},
        {
            "classification": 2.0 * losses["loss_cross_entropy"],
            "mask": 5.0 * losses["loss_mask"],
            "dice": 5.0 * losses["loss_dice"],
        },
        (logits, maps),
        shapes=[[images, queries, classes + 1], [images, queries, *size], [images, slots, *pixels]],
        points=points,
        index=slots_of(found, images, queries),
    )


slots_of = slots
mask_set("coarser maps", [4, 2])
mask_set("one image empty, maps of odd size", [3, 0, 4], size=(7, 9), pixels=(16, 16))

# --- SimOTA ---


class Registry:
    """Registers nothing; the one thing that is built of it is the IoU."""

    def register_module(self):
        return lambda cls: cls

    def build(self, config):
        return lambda found, true: torchvision_iou(found, true)


def torchvision_iou(found, true):
    low = torch.maximum(found[:, None, :2], true[None, :, :2])
    high = torch.minimum(found[:, None, 2:], true[None, :, 2:])
    both = (high - low).clamp(min=0).prod(-1)
    area = [(b[:, 2:] - b[:, :2]).prod(-1) for b in (found, true)]
    return both / (area[0][:, None] + area[1][None] - both)


def stand_in(name, **attributes):
    module = types.ModuleType(name)
    vars(module).update(attributes)
    sys.modules[name] = module


where = pathlib.Path(importlib.util.find_spec("mmdet").submodule_search_locations[0])
for name in ("mmdet", "mmdet.models", "mmdet.models.task_modules"):
    stand_in(name, __path__=[])
folder = where / "models" / "task_modules" / "assigners"
stand_in("mmdet.models.task_modules.assigners", __path__=[str(folder)])
stand_in("mmengine")
stand_in("mmengine.structures", InstanceData=SimpleNamespace)
stand_in("mmdet.registry", TASK_UTILS=Registry())
stand_in("mmdet.utils", ConfigType=dict)
stand_in(
    "mmdet.models.task_modules.assigners.assign_result",
    AssignResult=lambda count, slot, overlap, labels: (slot - 1, overlap),
)
stand_in("mmdet.models.task_modules.assigners.base_assigner", BaseAssigner=object)
from mmdet.models.task_modules.assigners.sim_ota_assigner import SimOTAAssigner  # noqa: E402


class Assigner(SimOTAAssigner):
    """Stores its overlaps in single precision."""

    def dynamic_k_matching(self, *data):
        overlap, slot = super().dynamic_k_matching(*data)
        return overlap.float(), slot


def sim_ota(case, inputs, classes=4, **options):
    images, predicted, scores = len(inputs["counts"]), [], []
    priors = [
        [(j + 0.5) * s, (i + 0.5) * s, s, s]
        for s, (rows, columns) in zip(STRIDES, GRIDS, strict=True)
        for i in range(rows)
        for j in range(columns)
    ]
    priors = t(priors, dtype=torch.float64)
    sides = np.exp(waves((images, len(priors), 4), 1, 0.6)) * 1.5
    sides = t(sides) * priors[:, 2:3]
    scores = t(1 / (1 + np.exp(-waves((images, len(priors), classes), 0))))
    predicted = torch.cat([priors[:, :2] - sides[..., :2], priors[:, :2] + sides[..., 2:]], -1)
    found = []
    for image, (b, y, n) in enumerate(
        zip(inputs["boxes"], inputs["labels"], inputs["counts"], strict=True)
    ):
        prediction = SimpleNamespace(priors=priors, bboxes=predicted[image], scores=scores[image])
        true = SimpleNamespace(
            bboxes=t(b[:n], dtype=torch.float64).reshape(n, 4), labels=t(y[:n], dtype=torch.long)
        )
        found.append(Assigner(**options).assign(prediction, true))
    row(
        "assign_sim_ota",
        case,
        f"mmdet {VERSIONS['mmdet']} SimOTAAssigner, the IoU without epsilon",
        inputs,
        classes=classes,
        index=[slot.tolist() for slot, _ in found],
        weight=[np.where(s >= 0, o, 0).tolist() for s, o in found],
        options=options,
    )


sim_ota("three levels", many)
sim_ota("one image empty", scene(2, 8, SIZE, 8, [8, 0]), classes=5)
sim_ota("other numbers", many, center_radius=1.5, candidate_topk=6, iou_weight=2.0)

rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in ROWS)
text = f'{{"versions": {json.dumps(VERSIONS)},\n"rows": [\n{rows}\n]}}\n'
pathlib.Path(__file__).with_name("detection_sets.json").write_text(text)
print(len(ROWS), "rows,", len(text) // 1000, "kB")
