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
    made = [waves((images, *grid, channels), phase + i, 1.5) + shift for i, grid in enumerate(GRIDS)]
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
    for image, (b, y, n) in enumerate(zip(inputs["boxes"], inputs["labels"], inputs["counts"])):
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
        angles = [t(waves((images, *grid), 5 + i, 1.0), requires_grad=True) for i, grid in enumerate(GRIDS)]
        preds["angle"] = columns([angle[..., None] for angle in angles])
        variables += angles
    total, _ = loss(preds, batch)
    counts = seen["scores"] > 0  # points of metric 0 are a matter of memory order there
    row(
        "yolo_v8_rotated" if rotated else "yolo_v8",
        case,
        f"{ULTRALYTICS} {make.__name__}",
        inputs,
        dict(zip(names, total)),
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

rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in ROWS)
text = f'{{"versions": {json.dumps(VERSIONS)},\n"rows": [\n{rows}\n]}}\n'
pathlib.Path(__file__).with_name("detection_sets.json").write_text(text)
print(len(ROWS), "rows,", len(text) // 1000, "kB")
