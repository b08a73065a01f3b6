"""Losses of one sample by the logit of its class, and their derivatives."""

import functools

import figures
import jax
import jax.numpy as jnp
import numpy as np

import jaxloss

LOSSES = {
    "cross_entropy": {},
    "focal": {"gamma": 2.0},
    "generalized_cross_entropy": {"q": 0.7},
    "bi_tempered": {},
    "poly1": {},
}


def draw():
    """Draws five losses of two classes."""
    x = np.linspace(-6, 6, 121, dtype=np.float32)
    labels = np.zeros(len(x), np.int32)
    fig, (left, right) = figures.figure(1, 2, size=(6.4, 2.6))
    for name, options in LOSSES.items():
        loss = functools.partial(getattr(jaxloss, name), reduction="none", **options)

        def total(x, loss=loss):
            values = loss(jnp.stack([x, 0 * x], -1), labels)
            return values.sum(), values

        slope, value = jax.grad(total, has_aux=True)(x)
        left.plot(x, value, label=name)
        right.plot(x, slope)
    left.set(xlabel="logit of the true class, the other 0", ylabel="value")
    right.set(xlabel="logit of the true class, the other 0", ylabel="derivative")
    fig.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=len(LOSSES))
    return fig
