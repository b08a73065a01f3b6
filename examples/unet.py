"""A small U-Net in Flax NNX: strided convolutions down, bilinear upsampling and skips back up."""

from __future__ import annotations

from collections.abc import Sequence

import jax
from flax import nnx
from jax import numpy as jnp


class Block(nnx.Module):
    """A 3 x 3 convolution, group normalisation and a rectifier."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, rngs: nnx.Rngs):
        """Halves the sides when `stride` is 2."""
        self.convolution = nnx.Conv(
            inputs, outputs, (3, 3), strides=stride, use_bias=False, rngs=rngs
        )
        self.normalisation = nnx.GroupNorm(outputs, num_groups=4, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, inputs]` to `[B, H / stride, W / stride, outputs]`."""
        return nnx.relu(self.normalisation(self.convolution(x)))


class UNet(nnx.Module):
    """Logits for every pixel, from features at 1/2, 1/4, 1/8, ... of the resolution.

    The sides of the images are multiples of 2 ** len(widths). With `half` the logits stay at 1/2,
    for a loss that upsamples them itself.
    """

    def __init__(
        self,
        classes: int,
        *,
        channels: int = 1,
        widths: Sequence[int] = (16, 32, 64, 64),
        half: bool = False,
        rngs: nnx.Rngs,
    ):
        """Takes the features of each level, from the finest to the coarsest."""
        inputs = (channels, *widths[:-1])
        self.down = nnx.List(
            Block(i, o, stride=2, rngs=rngs) for i, o in zip(inputs, widths, strict=True)
        )
        self.refine = nnx.List(Block(w, w, rngs=rngs) for w in widths)
        self.up = nnx.List(
            Block(fine + coarse, fine, rngs=rngs)
            for fine, coarse in zip(widths[:-1], widths[1:], strict=True)
        )
        self.half = half
        self.head = nnx.Conv(widths[0], classes if half else 4 * classes, (1, 1), rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images `[B, H, W, channels]` to logits `[B, H, W, classes]`, or half the sides."""
        x, skips = images, []
        for down, refine in zip(self.down, self.refine, strict=True):
            x = refine(down(x))
            skips.append(x)
        for skip, up in zip(skips[-2::-1], list(self.up)[::-1], strict=True):
            x = up(jnp.concatenate([skip, resize(x, skip.shape[1:3])], axis=-1))
        return self.head(x) if self.half else _pixel_shuffle(self.head(x))


def resize(x: jax.Array, sides: tuple[int, ...]) -> jax.Array:
    """Maps `[B, H, W, channels]` to other sides, bilinear."""
    return jax.image.resize(x, (len(x), *sides, x.shape[-1]), "bilinear")


def _pixel_shuffle(x: jax.Array) -> jax.Array:
    """Unfolds four channels into a square of 2 x 2 pixels."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, 2, 2, channels // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, 2 * height, 2 * width, channels // 4)
