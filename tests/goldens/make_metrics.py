"""Golden numbers of the average precision: writes metrics.json beside this file.

Run by hand in an environment with `pycocotools==2.0.11`, from the root of the repository:

    python tests/goldens/make_metrics.py
"""

import contextlib
import importlib.metadata
import io
import json
import pathlib
import sys

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.detections import CLASSES, SEEDS, boxes_and_detections  # noqa: E402


def annotations(boxes, labels, valid, scores=None):
    """Records as COCO keeps them, in the order of pictures and slots."""
    found = []
    for picture, slot in np.argwhere(valid):
        x0, y0, x1, y1 = map(float, boxes[picture, slot])
        record = {
            "id": len(found) + 1,
            "image_id": int(picture),
            "category_id": int(labels[picture, slot]),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": (x1 - x0) * (y1 - y0),
            "iscrowd": 0,
        }
        found.append(record if scores is None else record | {"score": float(scores[picture, slot])})
    return found


def average_precision(seed):
    """COCO's precision at each threshold and class, the mean over recalls, -1 for no true box."""
    truth, found = boxes_and_detections(seed)
    coco = COCO()
    coco.dataset = {
        "images": [{"id": picture} for picture in range(len(truth["boxes"]))],
        "categories": [{"id": label} for label in range(CLASSES)],
        "annotations": annotations(**truth),
    }
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes(annotations(**found)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, 2].mean(1)  # all areas, 100 detections
    return {"precision": precision.tolist(), "stats": evaluation.stats[:2].tolist()}


if __name__ == "__main__":
    with contextlib.redirect_stdout(io.StringIO()):
        golden = {str(seed): average_precision(seed) for seed in SEEDS}
    golden["made_by"] = f"pycocotools {importlib.metadata.version('pycocotools')}"
    path = pathlib.Path(__file__).with_suffix("").with_name("metrics.json")
    path.write_text(json.dumps(golden) + "\n")
