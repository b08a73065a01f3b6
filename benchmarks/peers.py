"""The same losses by others, of logits and targets, for speed.py.

Those in JAX take the class axis, those in PyTorch have it second. A row that a peer has no loss for
is missing from its table; what is not installed has no table. Where a peer's mean is over other
things, it is scaled to ours; where its definition differs, it is left out.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import optax

Losses = dict[str, Callable[..., Any]]

SMOOTH, SMOOTHING, IGNORED, TEMPERATURE = 1e-5, 0.1, -100, 4.0
TVERSKY = {"alpha": 0.3, "beta": 0.7}


# JAX


def plain_jax() -> Losses:
    """What one writes by hand, without care for extremes."""

    def picked(z, y, axis):
        log_p = jax.nn.log_softmax(z, axis)
        return jnp.take_along_axis(log_p, jnp.expand_dims(y, axis), axis).squeeze(axis)

    def ignoring(z, y, axis):
        valid = y != IGNORED
        return -jnp.sum(picked(z, jnp.where(valid, y, 0), axis) * valid) / valid.sum()

    def smoothed(z, y, axis):
        uniform = jax.nn.log_softmax(z, axis).mean()
        return -(1 - SMOOTHING) * picked(z, y, axis).mean() - SMOOTHING * uniform

    def focal(z, y, axis):
        log_p = picked(z, y, axis)
        return jnp.mean(-log_p * (1 - jnp.exp(log_p)) ** 2)

    def bce(z, y):
        return jnp.maximum(z, 0) - z * y + jnp.log1p(jnp.exp(-jnp.abs(z)))

    def sigmoid_focal(z, y, axis):
        p = jax.nn.sigmoid(z)
        return jnp.mean(bce(z, y) * (p + y - 2 * p * y) ** 2)

    def counts(z, y, axis, pooled):
        """Soft true positives, false positives and false negatives of each class."""
        if y.ndim == z.ndim:
            p = jax.nn.sigmoid(z)
        else:
            p, y = jax.nn.softmax(z, axis), jax.nn.one_hot(y, z.shape[axis], axis=axis)
        over = [i for i in range(z.ndim) if i != axis % z.ndim and (i or pooled)]
        return jnp.sum(p * y, over), jnp.sum(p * (1 - y), over), jnp.sum((1 - p) * y, over)

    def tversky(z, y, axis, alpha=0.5, beta=0.5, smooth=SMOOTH, pooled=False):
        tp, fp, fn = counts(z, y, axis, pooled)
        return 1 - jnp.mean((tp + smooth) / (tp + alpha * fp + beta * fn + smooth))

    dice = functools.partial(tversky, smooth=SMOOTH / 2)
    return {
        "cross_entropy": lambda z, y, axis: -picked(z, y, axis).mean(),
        "cross_entropy, ignore_index": ignoring,
        "cross_entropy, soft labels": lambda z, y, axis: (
            -jnp.sum(y * jax.nn.log_softmax(z, axis), axis).mean()
        ),
        "cross_entropy, label_smoothing": smoothed,
        "binary_cross_entropy": lambda z, y, axis: bce(z, y).mean(),
        "distillation": _distillation,
        "focal": focal,
        "sigmoid_focal": sigmoid_focal,
        "dice": dice,
        "dice, masks": dice,
        "dice, per_image=False": functools.partial(dice, pooled=True),
        "dice_cross_entropy": lambda z, y, axis: dice(z, y, axis) - picked(z, y, axis).mean(),
        "tversky": functools.partial(tversky, **TVERSKY),
    }


def _distillation(z, t, axis):
    log_p, log_q = (jax.nn.log_softmax(x / TEMPERATURE, axis) for x in (z, t))
    return TEMPERATURE**2 * jnp.sum(jnp.exp(log_q) * (log_q - log_p), axis).mean()


def of_optax() -> Losses:
    """Optax, whose Dice needs more than one call for images of several classes."""
    of_ids = optax.losses.softmax_cross_entropy_with_integer_labels
    of_shares = optax.losses.softmax_cross_entropy

    def ignoring(z, y, axis):
        valid = y != IGNORED
        return jnp.sum(of_ids(z, jnp.where(valid, y, 0), axis) * valid) / valid.sum()

    def smoothed(z, y, axis):
        one_hot = jax.nn.one_hot(y, z.shape[axis], axis=axis)
        # optax.losses.smooth_labels divides by the last axis: the same where that holds the classes
        shares = one_hot * (1 - SMOOTHING) + SMOOTHING / z.shape[axis]
        return of_shares(z, shares, axis).mean()

    def distillation(z, t, axis):
        log_p, log_q = (jax.nn.log_softmax(x / TEMPERATURE, axis) for x in (z, t))
        divergence = optax.losses.kl_divergence_with_log_targets(log_p, log_q, axis)
        return TEMPERATURE**2 * divergence.mean()

    return {
        "cross_entropy": lambda z, y, axis: of_ids(z, y, axis).mean(),
        "cross_entropy, ignore_index": ignoring,
        "cross_entropy, soft labels": lambda z, y, axis: of_shares(z, y, axis).mean(),
        "cross_entropy, label_smoothing": smoothed,
        "binary_cross_entropy": lambda z, y, axis: optax.losses.sigmoid_binary_cross_entropy(
            z, y
        ).mean(),
        "distillation": distillation,
        "sigmoid_focal": lambda z, y, axis: optax.losses.sigmoid_focal_loss(z, y, gamma=2.0).mean(),
    }


def of_keras() -> Losses:
    """Keras on JAX."""
    import keras

    def one_hot(z, y, axis):
        return jax.nn.one_hot(y, z.shape[axis], axis=axis)

    def ratio(loss, z, y, axis, **options):
        space = tuple(i for i in range(1, z.ndim) if i != axis % z.ndim)
        return loss(axis=space, **options)(one_hot(z, y, axis), keras.ops.softmax(z, axis))

    def of_ids(z, y, axis, **options):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, axis=axis, **options)
        return loss(y, z)

    def of_shares(z, y, axis, **options):
        loss = keras.losses.CategoricalCrossentropy(from_logits=True, axis=axis, **options)
        return loss(y, z)

    def focal(z, y, axis):
        loss = keras.losses.CategoricalFocalCrossentropy(alpha=1.0, from_logits=True, axis=axis)
        return loss(one_hot(z, y, axis), z)

    bce = keras.losses.BinaryCrossentropy(from_logits=True)
    sigmoid_focal = keras.losses.BinaryFocalCrossentropy(from_logits=True)
    dice = functools.partial(ratio, keras.losses.Dice)
    swapped = {"alpha": TVERSKY["beta"], "beta": TVERSKY["alpha"]}
    return {
        "cross_entropy": of_ids,
        "cross_entropy, ignore_index": functools.partial(of_ids, ignore_class=IGNORED),
        "cross_entropy, soft labels": of_shares,
        "cross_entropy, label_smoothing": lambda z, y, axis: of_shares(
            z, one_hot(z, y, axis), axis, label_smoothing=SMOOTHING
        ),
        "binary_cross_entropy": lambda z, y, axis: bce(y, z),
        "focal": focal,
        "sigmoid_focal": lambda z, y, axis: sigmoid_focal(y, z),
        "dice": dice,
        "dice_cross_entropy": lambda z, y, axis: dice(z, y, axis) + of_ids(z, y, axis),
        "tversky": functools.partial(ratio, keras.losses.Tversky, **swapped),
    }


# PyTorch


def plain_torch() -> Losses:
    """PyTorch's own losses, and the others as one writes them by hand."""
    import torch
    import torch.nn.functional as F

    def focal(z, y):
        log_p = -F.cross_entropy(z, y, reduction="none")
        return (-log_p * (1 - log_p.exp()) ** 2).mean()

    def sigmoid_focal(z, y):
        p = torch.sigmoid(z)
        cost = F.binary_cross_entropy_with_logits(z, y, reduction="none")
        return (cost * (p + y - 2 * p * y) ** 2).mean()

    def tversky(z, y, alpha=0.5, beta=0.5, smooth=SMOOTH, pooled=False):
        if y.ndim == z.ndim:
            p = z.sigmoid()
        else:
            p = z.softmax(1)
            y = torch.zeros_like(p).scatter_(1, y[:, None], 1.0)
        over = tuple(i for i in range(z.ndim) if i != 1 and (i or pooled))
        tp = (p * y).sum(over)
        fp, fn = p.sum(over) - tp, y.sum(over) - tp
        return 1 - ((tp + smooth) / (tp + alpha * fp + beta * fn + smooth)).mean()

    def distillation(z, t):
        log_p, log_q = (F.log_softmax(x / TEMPERATURE, 1) for x in (z, t))
        each = F.kl_div(log_p, log_q, reduction="none", log_target=True)
        return TEMPERATURE**2 * each.sum(1).mean()

    dice = functools.partial(tversky, smooth=SMOOTH / 2)
    return {
        "cross_entropy": F.cross_entropy,
        "cross_entropy, ignore_index": functools.partial(F.cross_entropy, ignore_index=IGNORED),
        "cross_entropy, soft labels": F.cross_entropy,
        "cross_entropy, label_smoothing": functools.partial(
            F.cross_entropy, label_smoothing=SMOOTHING
        ),
        "binary_cross_entropy": F.binary_cross_entropy_with_logits,
        "distillation": distillation,
        "focal": focal,
        "sigmoid_focal": sigmoid_focal,
        "dice": dice,
        "dice, masks": dice,
        "dice, per_image=False": functools.partial(dice, pooled=True),
        "dice_cross_entropy": lambda z, y: dice(z, y) + F.cross_entropy(z, y),
        "tversky": functools.partial(tversky, **TVERSKY),
    }


def compiled_torch() -> Losses:
    """The same through `torch.compile`, where it finds a compiler for C++."""
    import torch

    torch.compile(lambda x: x + 1)(torch.ones(2))
    return {name: torch.compile(loss, dynamic=False) for name, loss in plain_torch().items()}


def of_monai() -> Losses:
    """MONAI, whose Dice + cross-entropy calls PyTorch's."""
    from monai.losses import DiceCELoss, DiceLoss, FocalLoss, TverskyLoss

    softmax = {"to_onehot_y": True, "softmax": True}
    smooth = {"smooth_nr": SMOOTH, "smooth_dr": SMOOTH}

    def of_ids(loss):
        return lambda z, y: loss(z, y[:, None])

    focal = of_ids(FocalLoss(to_onehot_y=True, use_softmax=True))
    return {
        "focal": lambda z, y: focal(z, y) * z.shape[1],
        "sigmoid_focal": FocalLoss(),
        "dice": of_ids(DiceLoss(**softmax, **smooth)),
        "dice, masks": DiceLoss(sigmoid=True, **smooth),
        "dice, per_image=False": of_ids(DiceLoss(batch=True, **softmax, **smooth)),
        "dice_cross_entropy": of_ids(DiceCELoss(**softmax, **smooth)),
        "tversky": of_ids(TverskyLoss(**softmax, **smooth, **TVERSKY)),
    }


def of_smp() -> Losses:
    """segmentation-models-pytorch, without the encoders that its own __init__ asks for."""
    import importlib.util
    import sys
    import types

    name = "segmentation_models_pytorch"
    package = types.ModuleType(name)
    package.__path__ = list(importlib.util.find_spec(name).submodule_search_locations)
    sys.modules[name] = package
    from segmentation_models_pytorch import losses

    multiclass, smooth = {"mode": "multiclass"}, {"smooth": SMOOTH / 2}
    return {
        "cross_entropy": losses.SoftCrossEntropyLoss(smooth_factor=0.0),
        "cross_entropy, label_smoothing": losses.SoftCrossEntropyLoss(smooth_factor=SMOOTHING),
        "binary_cross_entropy": losses.SoftBCEWithLogitsLoss(),
        "sigmoid_focal": losses.FocalLoss("multilabel"),
        "dice, per_image=False": losses.DiceLoss(**multiclass, **smooth),
    }


IN_JAX = {"plain JAX": plain_jax, "Optax": of_optax, "Keras": of_keras}
IN_TORCH = {
    "PyTorch": plain_torch,
    "torch.compile": compiled_torch,
    "MONAI": of_monai,
    "smp": of_smp,
}
