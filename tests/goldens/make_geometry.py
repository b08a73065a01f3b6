"""Golden numbers of matrices of overlaps and of boxes of masks: geometry.json beside this file.

Run by hand in the environment that peers.py describes:

    peers/bin/python tests/goldens/make_geometry.py

torchvision runs itself, with an epsilon of 0. tests/boxes/test_geometry.py reads the rows.
"""

import functools
import importlib

import numpy as np
import torch
from peers import ROWS, encode, golden, rng, t, uniform, write

boxes = importlib.import_module("torchvision.ops.boxes")


def matrices():
    corner, size = uniform(9, 2, high=6.0), uniform(9, 2, low=0.5, high=5.0)
    both = np.concatenate([corner, corner + size], -1).round(3)
    first, second = both[:4], both[4:]
    peers = {
        "pairwise_iou": ("box_iou", {}),
        "pairwise_giou": ("generalized_box_iou", {}),
        "pairwise_diou": ("distance_box_iou", {"eps": 0.0}),
        "pairwise_ciou": ("complete_box_iou", {"eps": 0.0}),
    }
    for name, (original, exact) in peers.items():
        run = functools.partial(getattr(boxes, original), boxes2=t(second), **exact)
        golden(name, "4 by 5", f"torchvision.ops.{original}", run, [first, second])


def masks():
    """Its last pixel is ours less 1, but for an empty mask."""
    mask = rng.random((5, 6, 8)) < 0.1
    mask[0], mask[1], mask[2] = False, False, True
    mask[1, 3, 5] = True
    found = boxes.masks_to_boxes(torch.tensor(mask)).numpy()
    source = "torchvision.ops.masks_to_boxes"
    row = {"loss": "masks_to_boxes", "case": "5", "source": source, "args": [encode(mask)]}
    ROWS.append(row | {"value": encode(found)})


if __name__ == "__main__":
    matrices()
    masks()
    write("geometry.json")
