"""Golden numbers of losses of depths, keypoints and any shape: additions.json beside this file.

Run by hand in the environment that peers.py describes, with further packages:

    peers/bin/pip install --no-deps mmsegmentation==1.2.2 ultralytics==8.4.190 \\
        git+https://github.com/jonbarron/robust_loss_pytorch@9831f1db8006105fe7a383312fba0e8bd975e7f6
    peers/bin/pip install transformers==5.24.0
    peers/bin/python tests/goldens/make_additions.py

All originals run themselves; ultralytics (AGPL-3.0) for its numbers only.
"""

import importlib
import sys
import types

import numpy as np
import torch
from peers import REDUCTIONS, ROWS, golden, normal, rng, stand_in, t, uniform, without_init, write

stand_in("torch_dct")  # of its wavelets
without_init("robust_loss_pytorch")
lossfun = importlib.import_module("robust_loss_pytorch.general").lossfun

unregistered = types.SimpleNamespace(register_module=lambda: lambda cls: cls)
for package in ("mmseg", "mmseg.models", "mmseg.models.losses"):
    without_init(package)
stand_in("mmseg.registry", MODELS=unregistered)
stand_in("mmengine")
stand_in("mmengine.fileio", load=None)
silog_loss = importlib.import_module("mmseg.models.losses.silog_loss").silog_loss

# ultralytics and transformers want what torchvision registers on import, or nothing of it.
del sys.modules["torchvision"], sys.modules["torchvision.ops"]
KeypointLoss = importlib.import_module("ultralytics.utils.loss").KeypointLoss
glpn = importlib.import_module("transformers.models.glpn.modeling_glpn")


def general_robust():
    """Barron's own; not where its 1e-7 beside |alpha| and |alpha - 2| shows."""
    x, y = normal(5, 4), normal(5, 4, scale=0.5)
    for alpha in (2.0, 1.0, 0.0, -2.0, -np.inf, np.inf, 0.3, 1.7, -8.0, 3.0):
        golden(
            "general_robust",
            f"alpha {alpha}",
            "robust_loss_pytorch.general.lossfun",
            lambda z, alpha=alpha: lossfun(z - t(y), t(alpha), t(1.5)),
            [x, y],
            gradient=bool(np.isfinite(alpha)),  # its other branches make it NaN
            alpha=alpha,
            reduction="none",
        )
        ROWS[-1]["kwargs"]["scale"] = 1.5  # to `golden` it is a factor of the value


def depths():
    """mmseg's takes each image by itself, GLPN's all valid pixels of a batch as one."""
    x, y = uniform(3, 4, 5, low=0.5, high=9.0), uniform(3, 4, 5, low=0.5, high=9.0)
    y[rng.random(y.shape) < 0.3] = 0
    for reduction in REDUCTIONS:
        golden(
            "scale_invariant_log",
            f"per image {reduction}",
            "mmseg.models.losses.silog_loss",
            lambda z, reduction=reduction: silog_loss(z, t(y), eps=1e-9, reduction=reduction),
            [x, y],
            variance_focus=0.5,
            reduction=reduction,
        )
    for focus in (0.85, 0.5, 0.0):
        golden(
            "scale_invariant_log",
            f"one image focus {focus}",
            "transformers.models.glpn.modeling_glpn.SiLogLoss",
            lambda z, focus=focus: glpn.SiLogLoss(lambd=focus)(z, t(y[:1])),
            [x[:1], y[:1]],
            variance_focus=focus,
        )


def keypoints():
    """Without its 1e-9, which the tolerance takes; every object has a visible point."""
    x, y = uniform(4, 5, 2, high=20.0), uniform(4, 5, 2, high=20.0)
    visible = rng.random((4, 5)) < 0.6
    visible[:, 0] = True
    areas, sigmas = uniform(4, low=90.0, high=400.0), uniform(5, low=0.1, high=0.5)
    golden(
        "keypoint_similarity",
        "some visible",
        "ultralytics.utils.loss.KeypointLoss",
        lambda z: KeypointLoss(t(sigmas))(z, t(y), t(visible), t(areas)[:, None]),
        [x, y],
        rtol=4e-9,
        areas=areas,
        sigmas=sigmas,
        where=visible,
    )


if __name__ == "__main__":
    torch.manual_seed(0)
    general_robust()
    depths()
    keypoints()
    others = ("mmsegmentation", "transformers", "ultralytics", "robust-loss-pytorch")
    write("additions.json", *others)
