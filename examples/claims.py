"""Experiments of papers, on the small pictures of the survey: prints the tables of docs/claims.md.

    python examples/claims.py channels   # one channel and a sigmoid, or two and a softmax
    python examples/claims.py focal      # the exponent of the focal loss, one pixel in a hundred
    python examples/claims.py survey     # what the rows of docs/survey.csv say of two more claims

The first takes about three minutes of one CPU core, the second two.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax
import survey
import survey_tables
from flax import nnx
from jax import numpy as jnp
from sklearn.metrics import average_precision_score
from survey_data import Pictures, draw
from training import apply, fit, make_key
from unet import UNet

import jaxloss

SEEDS, STEPS, BATCH, SIZE = 3, 300, 8, 32
RATE = 0.1  # of SGD
Loss = Callable[[jax.Array, jax.Array], jax.Array]


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the tables of one experiment."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("experiment", choices=EXPERIMENTS)
    for line in EXPERIMENTS[parser.parse_args(argv).experiment]():
        print(line, flush=True)


# One channel or two: logits `[B, S, S, 1]` under a sigmoid, `[B, S, S, 2]` under a softmax.

ONE: dict[str, Loss] = {
    "cross-entropy": lambda x, y: jaxloss.binary_cross_entropy(x[..., 0], y, axis=None),
    "Dice": lambda x, y: jaxloss.dice(x[..., 0], y, axis=None),
}
TWO: dict[str, Loss] = {
    "cross-entropy": jaxloss.cross_entropy,
    "Dice": functools.partial(jaxloss.dice, include_background=False),
}


def channels() -> list[str]:
    """Compares both heads from the same start, the second one at two learning rates."""
    train, test = pictures("digits, 20 %")
    lines = [
        "| loss | head | its learning rate | Dice, % | largest difference of the loss |",
        "|---|---|---|---|---|",
    ]
    for loss in ONE:
        first = None
        for classes, rate in ((1, RATE), (2, RATE), (2, RATE / 2)):
            form = (ONE if classes == 1 else TWO)[loss]
            curves, found = [], []
            for seed in range(SEEDS):
                model = one_channel(seed) if classes == 1 else two_channels(seed)
                graph, state = nnx.split(model)
                state, curve = descend(form, graph, state, train, make_key(seed), rate)
                curves.append(curve)
                logits = apply(nnx.merge(graph, state), test.images)
                found.append(dice(logits[..., -1] - (logits[..., 0] if classes == 2 else 0), test))
            first = curves if first is None else first
            apart = np.max(np.abs(np.subtract(curves, first)))
            shown = "" if classes == 1 else f"{apart:.0e}"
            lines.append(f"| {loss} | {classes} | {rate:g} | {mean_and_spread(found)} | {shown} |")
    return lines


def one_channel(seed: int, bias: float = 0.0) -> UNet:
    """Returns an untrained network of one logit for each pixel, `bias` at first."""
    model = build(make_key(seed), 1)
    model.head.bias[...] = jnp.full_like(model.head.bias[...], bias)
    return model


def two_channels(seed: int) -> UNet:
    """Returns the same network with the logits -z / 2 and z / 2 in place of z."""
    one, model = one_channel(seed), build(make_key(seed), 2)
    for part in ("down", "refine", "up"):
        nnx.update(getattr(model, part), nnx.state(getattr(one, part)))
    half = one.head.kernel[...] / 2
    model.head.kernel[...] = jnp.stack([-half, half], -1).reshape(model.head.kernel.shape)
    return model


@nnx.jit(static_argnames="classes")
def build(key: jax.Array, classes: int) -> UNet:
    """Returns a network that has learned nothing yet."""
    return UNet(classes, widths=survey.WIDTHS, rngs=nnx.Rngs(key))


@functools.partial(jax.jit, static_argnames=("loss", "graph"))
def descend(
    loss: Loss, graph: Any, state: Any, data: Pictures, key: jax.Array, rate: float
) -> tuple[Any, jax.Array]:
    """Returns the weights after SGD with momentum, and the loss of every step.

    `rate` is that of the head; all else learns at `RATE`.
    """
    optimizer = optax.sgd(RATE, momentum=0.9)

    def step(carry: Any, i: jax.Array) -> tuple[Any, jax.Array]:
        state, memory = carry
        chosen = jax.random.randint(jax.random.fold_in(key, i), (BATCH,), 0, len(data.images))
        images, masks = data.images[chosen], data.masks[chosen]
        total = lambda state: loss(nnx.merge(graph, state)(images), masks)
        value, slopes = jax.value_and_grad(total)(state)
        updates, memory = optimizer.update(slopes, memory)
        updates["head"] = jax.tree.map(lambda update: rate / RATE * update, updates["head"])
        return (optax.apply_updates(state, updates), memory), value

    data = Pictures(*map(jnp.asarray, data))
    (state, _), curve = jax.lax.scan(step, (state, optimizer.init(state)), jnp.arange(STEPS))
    return state, curve


# The focal loss


# Exponent and weight of the foreground, and the AP of RetinaNet on COCO.
RETINANET = ((0, 0.75, 31.1), (0.1, 0.75, 31.4), (0.2, 0.75, 31.9), (0.5, 0.5, 32.9))
RETINANET += ((1, 0.25, 33.7), (2, 0.25, 34.0), (5, 0.25, 32.2))


def focal() -> list[str]:
    """Trains with the exponents of RetinaNet's table; the first probabilities are 1 %, as there."""
    train, test = pictures("digits, 1 %")
    lines = [
        "| `gamma` | `alpha` | AP of boxes, RetinaNet on COCO | AP of pixels, ours | Dice, ours |",
        "|---|---|---|---|---|",
    ]
    for gamma, alpha, published in RETINANET:
        precision, overlap = [], []
        for seed in range(SEEDS):
            model, key = one_channel(seed, bias=-np.log(99)), make_key(seed)
            loss = of_exponent(gamma, alpha)
            fit(model, loss, train, key, name="", steps=STEPS, batch=BATCH, quiet=True)
            logits = np.asarray(apply(model, test.images))[..., 0]
            precision.append(100 * average_precision_score(test.masks.ravel(), logits.ravel()))
            overlap.append(dice(logits, test))
        ours = f"{mean_and_spread(precision)} | {mean_and_spread(overlap)}"
        lines.append(f"| {gamma} | {alpha} | {published} | {ours} |")
    return lines


@functools.cache
def of_exponent(gamma: float, alpha: float) -> Callable[..., jax.Array]:
    """Returns the focal loss of one channel, which takes the step too, as `fit` has it."""
    options = {"gamma": gamma, "alpha": alpha, "axis": None}
    return lambda x, y, step: jaxloss.sigmoid_focal(x[..., 0], y, **options)


def pictures(name: str) -> tuple[Pictures, Pictures]:
    """Returns as many pictures of a data set of the survey for the test as for the training."""
    return draw(name, "train", survey.TRAINING, SIZE), draw(name, "test", survey.TRAINING, SIZE)


def dice(logits: np.ndarray, test: Pictures) -> float:
    """Returns the Dice of all pixels together where a logit above 0 is foreground, in percent."""
    found = np.asarray(logits) > 0
    return 200 * np.sum(found & (test.masks == 1)) / (np.sum(found) + np.sum(test.masks == 1))


# The survey


QUESTIONS = {  # measure, losses and data sets
    "Dice": (
        "dice",
        ("cross_entropy", "dice", "dice_cross_entropy"),
        ("digits, 20 %", "digits, 5 %", "digits, 1 %"),
    ),
    "HD95": (
        "hd95",
        (
            "cross_entropy",
            "distance_penalized_cross_entropy",
            "dice",
            "distance_penalized_dice",
            "boundary_dou",
            "dice_hausdorff",
        ),
        ("digits, 20 %", "digits, 1 %", "strokes", "nuclei"),
    ),
}


def of_survey() -> list[str]:
    """Lays out rows of docs/survey.csv by two questions."""
    rows = survey.read(survey.DOCS / "survey.csv")
    lines = []
    for title, (measure, names, sets) in QUESTIONS.items():
        lines += [f"| {title} | {' | '.join(sets)} |", "|---|" + "---|" * len(sets)]
        for name in names:
            of_loss = survey_tables.select(rows, "loss", name)
            cells = [
                survey_tables.cell(survey_tables.select(of_loss, "data", data), measure)
                for data in sets
            ]
            lines.append(f"| `{name}` | {' | '.join(cells)} |")
        lines.append("")
    return lines


def mean_and_spread(values: Sequence[float]) -> str:
    """Returns mean and standard deviation."""
    return f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"


EXPERIMENTS = {"channels": channels, "focal": focal, "survey": of_survey}

if __name__ == "__main__":
    main()
