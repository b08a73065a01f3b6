"""Golden numbers of metrics as losses: soft_metrics.json beside this file.

Run by hand in the environment that peers.py describes, with the checkouts of what no package holds:

    peers/bin/python tests/goldens/make_soft_metrics.py JDTLOSSES SKELETON_RECALL

github.com/zifuwanggg/JDTLosses at 68ce8ac and github.com/MIC-DKFZ/Skeleton-Recall, a fork of
nnU-Net, at f259f63. Both originals run themselves.
"""

import importlib.util
import pathlib
import sys

import numpy as np
from peers import MAP, MAP_IGNORING, PIXELS, SOFT_MAP, VOLUME, VOLUME_IDS, golden, t, write

SHARES = SOFT_MAP / SOFT_MAP.sum(1, keepdims=True)
ONE_ABSENT = np.where(MAP == 2, 1, MAP)
SKELETON = np.arange(MAP.size).reshape(MAP.shape) % 3 > 0
SKELETON_MAP = np.where(SKELETON, MAP, 0)


def module(checkout, *path):
    """The module of one file of a checkout."""
    file = pathlib.Path(checkout, *path)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def metrics(JDTLoss):
    """Their counts are half of ours, hence `smooth` twice; `mIoUD` pools, `mIoUI` does not."""
    ids, soft, volume = (PIXELS, MAP), (PIXELS, SHARES), (VOLUME, VOLUME_IDS)
    absent, ignoring = (PIXELS, ONE_ABSENT), (PIXELS, MAP_IGNORING)
    of_image = {"mIoUD": 0.0, "mIoUI": 1.0}
    every = {"active_classes_mode_hard": "ALL"}
    for loss, share in (("dice_semimetric", 0.5), ("jaccard_metric", 1.0)):
        for case, arrays, theirs, ours in (
            ("pooled ids", ids, {}, {"per_image": False}),
            ("ids", ids, of_image, {}),
            ("soft", soft, of_image, {"activation": "softmax"}),
            ("soft pooled", soft, {}, {"activation": "softmax", "per_image": False}),
            ("volume", volume, of_image, {}),
            ("absent skipped", absent, {}, {"per_image": False, "absent": "skip"}),
            ("absent scored", absent, of_image | every, {}),
            ("ignored", ignoring, of_image | {"ignore_index": 255}, {"ignore_index": 255}),
        ):
            peer = JDTLoss(alpha=share, beta=share, smooth=0.25, **theirs)
            options = {"axis": 1, "smooth": 0.5} | ours
            golden(
                loss,
                case,
                "JDTLosses losses.jdt_loss.JDTLoss",
                lambda x, peer=peer, y=arrays[1]: peer(x, t(y)),
                list(arrays),
                **options,
            )


def skeletons(SoftSkeletonRecallLoss):
    """Theirs is -recall, of labels that hold the skeleton's pixels only; ours is 1 - recall."""
    source = "Skeleton-Recall nnunetv2.training.loss.dice.SoftSkeletonRecallLoss"
    valid = MAP_IGNORING != 255
    for case, pooled, smooth, mask in (
        ("images", False, 1.0, None),
        ("pooled", True, 1e-5, None),
        ("masked", False, 0.5, valid),
        ("masked pooled", True, 1.0, valid),
    ):
        peer = SoftSkeletonRecallLoss(
            apply_nonlin=lambda x: x.softmax(1),
            batch_dice=pooled,
            do_bg=False,
            smooth=smooth,
            ddp=False,
        )
        seen = None if mask is None else t(mask[:, None])
        options = {"axis": 1, "smooth": smooth, "per_image": not pooled}
        options |= {} if mask is None else {"where": mask}
        golden(
            "skeleton_recall",
            case,
            source,
            lambda x, peer=peer, seen=seen: peer(x, t(SKELETON_MAP[:, None]), loss_mask=seen),
            [PIXELS, MAP, SKELETON],
            shift=1.0,
            include_background=False,
            **options,
        )


if __name__ == "__main__":
    metrics(module(sys.argv[1], "losses", "jdt_loss.py").JDTLoss)
    fork = module(sys.argv[2], "nnunetv2", "training", "loss", "dice.py")
    skeletons(fork.SoftSkeletonRecallLoss)
    write("soft_metrics.json")
