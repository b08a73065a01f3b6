"""Draws value and derivative of every loss, each kind in its own way.

Losses of single numbers over an error or a logit; losses of masks over a disc that grows and one
that moves; losses of boxes over a box that moves and one that grows or turns.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import figures
import jax
import jax.numpy as jnp
import numpy as np

import jaxloss

POINTS = 121
RADIUS, CENTRE, SHAPE = 10, 20, (40, 64)
SHARES = np.array([0.8, 0.1, 0.1], np.float32)
COUNTS = np.array([100, 10, 1], np.float32)
FIXED = {  # what a loss needs besides prediction and target
    "area_scaled_l2": {"image_size": (4.0, 4.0)},
    "gaussian_nll": {"variance": 1.0},
    "generalized_wasserstein_dice": {"distances": 1 - np.eye(2, dtype=np.float32)},
    "ldam": {"class_counts": COUNTS},
    "logit_adjusted": {"priors": COUNTS},
    "mpdiou": {"image_size": (4.0, 4.0)},
    "ms_ssim": {"window": 5, "weights": (0.2, 0.3, 0.5)},
    "nwd": {"constant": 1.0},
    "seesaw": {"class_counts": COUNTS},
}
COSINES = {"arcface", "cosface"}
SOFT = {"kl_divergence", "js_divergence"}
QUALITIES = {"matchability_aware", "quality_focal", "varifocal"}
LOGITS = {
    "asymmetric",
    "balanced_binary_cross_entropy",
    "binary_cross_entropy",
    "gaussian_focal",
    "ghm",
    "hinge",
    "sigmoid_focal",
    "squared_hinge",
    "weighted_binary_cross_entropy",
} | QUALITIES
CLASSES = {"lovasz_softmax", "generalized_wasserstein_dice"}
GROUPED = {  # what the plot shows
    "keypoint_similarity": "An object of area 1 with one point of sigma 0.5.",
    "scale_invariant_log": "An image of two depths, one of which is wrong by a factor.",
}
UPSAMPLED = {"upsampled_cross_entropy", "upsampled_dice_cross_entropy"}
ROTATED = {"bhattacharyya", "gwd", "kfiou", "kld", "probiou", "rotated_iou"}
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


class View(NamedTuple):
    """One pair of panels.

    Attributes:
      label: Of the horizontal axis.
      x: Where it is drawn.
      lines: By title, functions of `x` and of options that return a loss for each.
    """

    label: str
    x: np.ndarray
    lines: dict[str, Callable[..., jax.Array]]


def draw(name, family, vary):
    """Draws the plot of a loss into `_plots`, unless it is there."""
    source = pathlib.Path(__file__).read_text()
    figures.cached(f"{name}.svg", lambda: _figure(name, family, vary), source, vary)


def caption(family, name):
    """Says what a plot shows, where its axes do not."""
    if family == "Boxes":
        return "The box against a target of width 1: as it moves, in widths, and as it " + (
            "turns, the target twice as wide as high."
            if name in ROTATED
            else "grows about the centre."
        )
    if name in UPSAMPLED or family in ("Region", "Boundary", "Compound"):
        height, width = SHAPE
        return (
            f"A soft disc against a true one of radius {RADIUS}, in an image of {height} x {width}"
            " pixels: as it grows about the same centre, and as it moves. The derivatives are by"
            " radius and shift."
        )
    return GROUPED.get(name, "")


def _figure(name, family, vary):
    views = _views(name, family)
    one = len(views) == 1
    size = (6.4, 2.2) if one else (6.4, 3.8)
    fig, axes = figures.figure(*((1, 2) if one else (2, 2)), size=size, squeeze=False)
    for i, view in enumerate(views):
        top, below = axes[0] if one else axes[:, i]
        for title, line in _lines(view, name, vary):
            value, slope = _evaluated(line, view.x)
            top.plot(view.x, value, label=title)
            below.plot(view.x, slope, label=title)
        below.set_xlabel(view.label)
        if one:
            top.set_xlabel(view.label)
        if one or i == 0:
            top.set_ylabel("value")
            below.set_ylabel("derivative")
    if len(top.lines) > 1:
        axes[0, 0].legend()
    return fig


def _lines(view, name, vary):
    """Yields title and function of each curve."""
    fixed = FIXED.get(name, {})
    if not vary:
        for title, line in view.lines.items():
            yield title, functools.partial(line, **fixed)
        return
    first = next(iter(view.lines.values()))
    for key, values in vary.items():
        for value in values:
            yield f"{key} = {value:g}", functools.partial(first, **fixed | {key: value})


def _evaluated(line, x):
    """The loss of each `x` and its derivative."""

    def total(x):
        values = line(x)
        return values.sum(), values

    run = jax.jit(jax.value_and_grad(total, has_aux=True), compiler_options=QUICK)
    (_, value), slope = run(jnp.asarray(x, jnp.float32))
    return np.asarray(value), np.asarray(slope)


def _views(name, family):
    loss = getattr(jaxloss, name)
    if family == "Regression":
        return _of_errors(name, loss)
    if family == "Boxes":
        return _of_boxes(name, loss)
    if name == "linear_cross_entropy" or family == "Distribution":
        return _of_logits(name, loss)
    return of_discs(name, loss)


# Single numbers


def _of_errors(name, loss):
    if name == "cosine":
        x = np.linspace(-np.pi, np.pi, POINTS)

        def line(angle):
            vectors = jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
            return loss(vectors, jnp.zeros_like(vectors).at[:, 0].set(1), reduction="none")

        return [View("angle between the vectors", x, {"": line})]
    if name in GROUPED:
        return [_of_groups(name, loss)]
    target, label, ends = 0.0, "error", (-3, 3)
    if name == "wing":
        ends = (-25, 25)
    if name == "poisson_nll":
        target, label = 3.0, "logarithm of the predicted rate, of a count of 3"

    def line(x, variance=None, **options):
        if variance is not None:
            options["variance"] = jnp.full_like(x, variance)
        return loss(x, jnp.full_like(x, target), reduction="none", **options)

    return [View(label, np.linspace(*ends, POINTS), {"": line})]


def _of_groups(name, loss):
    """A point of an object, or one of two depths."""
    if name == "keypoint_similarity":

        def line(x):
            points = jnp.stack([x, jnp.zeros_like(x)], -1)[:, None]
            return loss(points, jnp.zeros_like(points), 1.0, 0.5, reduction="none")

        label, ends = "distance from the point", (0, 5)
    else:

        def line(x, **options):
            depths = jnp.stack([jnp.exp(x), jnp.ones_like(x)], -1)
            return loss(depths, jnp.ones_like(depths), reduction="none", **options)

        label, ends = "logarithm of the factor", (-2, 2)
    return View(label, np.linspace(*ends, POINTS), {"": line})


def _of_logits(name, loss):
    if name in LOGITS:
        targets = (
            {"quality 0.7": 0.7, "no match": 0.0}
            if name in QUALITIES
            else {"y = 1": 1.0, "y = 0": 0.0}
        )

        def against(target):
            return lambda x, **options: loss(
                x, jnp.full_like(x, target), reduction="none", **options
            )

        lines = {title: against(target) for title, target in targets.items()}
        return [View("logit", np.linspace(-6, 6, POINTS), lines)]
    return [_of_classes(name, loss)]


def _of_classes(name, loss):
    """One class's score moves, the two others are 0."""
    ends = {**dict.fromkeys(COSINES, (-1, 1)), "nll": (-5, 0)}.get(name, (-6, 6))
    label = "logit of the true class, the two others 0"
    target = 0
    if name in COSINES:
        label = "cosine of the true class, the two others 0"
    if name == "nll":
        label = "log-probability of the label"
    if name in SOFT:
        label, target = "logit of the class of share 0.8", SHARES
    if name == "distillation":
        label, target = (
            "logit of a class that the teacher gives 2",
            np.array([2.0, 0, 0], np.float32),
        )
    if name == "distribution_focal":
        label, target = "logit of the first bin, of a target of 0.3", np.float32(0.3)

    def of(place):
        def line(x, **options):
            scores = x[:, None] * (jnp.arange(3) == place).astype(x.dtype)
            labels = jnp.broadcast_to(target + place, (len(x), *np.shape(target)))
            if name == "linear_cross_entropy":
                kernel = (jnp.arange(3) == place).astype(x.dtype)[None]
                return loss(x[:, None], kernel, labels, reduction="none", **options)
            return loss(scores, labels, reduction="none", **options)

        return line

    counted = name in ("ldam", "logit_adjusted", "seesaw")
    lines = {f"a class of {int(COUNTS[i])}": of(i) for i in range(3)} if counted else {"": of(0)}
    return View(label, np.linspace(*ends, POINTS), lines)


# Masks


def of_discs(name, loss):
    """Returns the views of a loss of masks."""
    truth = _distances(0.0) < RADIUS
    grows = np.linspace(0, 18, 46)
    moves = np.linspace(0, 24, 49)

    def of(radius, shift, **options):
        far = _distances(shift) - radius
        if name == "signed_distance_regression":
            return loss((far / RADIUS)[None], truth[None], **options)
        logits = -2 * far[None]
        labels = truth[None].astype(jnp.float32)
        if name == "skeleton_recall":
            options["skeleton"] = (_distances(0.0) < 1.5)[None]
        if name in CLASSES | UPSAMPLED:
            logits, labels = jnp.stack([-logits / 2, logits / 2], -1), truth[None].astype(jnp.int32)
            if name in UPSAMPLED:
                logits = logits[:, ::2, ::2]
            return loss(logits, labels, **options)
        return loss(logits, labels, axis=None, **options)

    def growing(x, **options):
        return jax.vmap(lambda radius: of(radius, 0.0, **options))(x)

    def moving(x, **options):
        return jax.vmap(lambda shift: of(RADIUS, shift, **options))(x)

    return [
        View("radius of the disc, pixels", grows, {"": growing}),
        View("shift of the disc, pixels", moves, {"": moving}),
    ]


def _distances(shift):
    """The distance of each pixel from the disc's centre, smooth there too."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return jnp.sqrt((y - CENTRE) ** 2 + (x - CENTRE - shift) ** 2 + 0.01)


# Boxes


def _of_boxes(name, loss):
    if name in ROTATED:
        return _of_rotated(loss)
    options_of = {"format": "cxcywh", "reduction": "none"}

    def against_unit(make):
        def line(x, **options):
            zero = jnp.zeros_like(x)
            boxes = jnp.stack(make(x, zero, zero + 1), -1)
            target = jnp.stack([zero, zero, zero + 1, zero + 1], -1)
            return loss(boxes, target, **options_of, **options)

        return {"": line}

    return [
        View(
            "shift, in widths",
            np.linspace(-2, 2, POINTS),
            against_unit(lambda x, o, i: [x, o, i, i]),
        ),
        View(
            "side, the target's 1",
            np.linspace(0.1, 3, POINTS),
            against_unit(lambda x, o, i: [o, o, x, x]),
        ),
    ]


def _of_rotated(loss):
    def against_flat(make):
        def line(x, **options):
            zero = jnp.zeros_like(x)
            boxes = jnp.stack(make(x, zero), -1)
            target = jnp.stack([zero, zero, zero + 1, zero + 0.5, zero], -1)
            return loss(boxes, target, reduction="none", **options)

        return {"": line}

    return [
        View(
            "shift, in widths",
            np.linspace(-2, 2, POINTS),
            against_flat(lambda x, o: [x, o, o + 1, o + 0.5, o]),
        ),
        View(
            "angle, radians",
            np.linspace(-np.pi, np.pi, POINTS),
            against_flat(lambda x, o: [o, o, o + 1, o + 0.5, x]),
        ),
    ]
