"""A small one-stage detector in Flax NNX: two feature maps, and at each cell what a head asks."""

from __future__ import annotations

import jax
from flax import nnx
from jax import numpy as jnp
from unet import Block, resize

STRIDES = (4, 8)  # pixels per cell of the two maps that predict


class Detector(nnx.Module):
    """Numbers for every cell of the feature maps at 1/4 and 1/8 of the resolution.

    Features go down to 1/16 and come back up, as in a feature pyramid. The sides of the images are
    multiples of 16.
    """

    def __init__(self, numbers: int, *, channels: int = 1, width: int = 48, rngs: nnx.Rngs):
        """Predicts so many numbers at each cell."""
        widths = (16, 32, width, width)
        inputs = (channels, *widths[:-1])
        self.down = nnx.List(
            Block(i, o, stride=2, rngs=rngs) for i, o in zip(inputs, widths, strict=True)
        )
        self.refine = nnx.List(Block(w, w, rngs=rngs) for w in widths)
        self.up = nnx.List(Block(width + w, width, rngs=rngs) for w in widths[2:0:-1])
        self.towers = nnx.List(Block(width, width, rngs=rngs) for _ in STRIDES)
        self.heads = nnx.List(nnx.Conv(width, numbers, (1, 1), rngs=rngs) for _ in STRIDES)

    def __call__(self, images: jax.Array) -> list[jax.Array]:
        """Maps images `[B, H, W, channels]` to `[B, H / s, W / s, numbers]` for each stride s."""
        x, maps = images, []
        for down, refine in zip(self.down, self.refine, strict=True):
            x = refine(down(x))
            maps.append(x)
        found = []
        for up, skip in zip(self.up, maps[2:0:-1], strict=True):
            x = up(jnp.concatenate([skip, resize(x, skip.shape[1:3])], axis=-1))
            found.append(x)
        layers = zip(self.heads, self.towers, found[::-1], strict=True)
        return [head(tower(features)) for head, tower, features in layers]
