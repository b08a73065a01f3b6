"""Where dense heads predict: the points and the anchors of feature maps."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxloss._core import checks
from jaxloss.options import Levels

__all__ = ["grid_anchors", "grid_points"]

Array = jax.Array
Grids = Sequence[tuple[int, int]]


@checks.named
def grid_points(grids: Grids, strides: Sequence[float]) -> Array:
    """Returns the centres of the cells of all feature maps, in pixels of the input.

    Cell `(i, j)` of a level, row and column, has its centre at `x = (j + 1/2) stride`,
    `y = (i + 1/2) stride`.

    Args:
      grids: The size (rows, columns) of each feature map.
      strides: Pixels of the input per cell, one number for each level.

    Returns:
      Points (x, y), float32 `[N, 2]`, in the order level, row, column.

    Raises:
      ValueError: If there is not one stride for each level, one is not above 0, or a size is not a
        pair.

    Example:
      >>> from jaxloss import detection
      >>> print(detection.grid_points([(1, 2), (1, 1)], [8, 16]))
      [[ 4. 4.] [12. 4.] [ 8. 8.]]

    Reference:
      Tian et al. FCOS: Fully Convolutional One-Stage Object Detection. ICCV 2019.
      https://arxiv.org/abs/1904.01355
    """
    read_grids(grids, strides=strides)
    levels = [_centres(grid, stride) for grid, stride in zip(grids, strides, strict=True)]
    return jnp.asarray(np.concatenate([centres.reshape(-1, 2) for centres in levels]))


@checks.named
def grid_anchors(
    grids: Grids,
    strides: Sequence[float],
    sizes: Sequence[float],
    ratios: Sequence[float] = (0.5, 1.0, 2.0),
    scales: Sequence[float] = (1.0, 2 ** (1 / 3), 2 ** (2 / 3)),
) -> Array:
    """Returns the anchors of all feature maps: boxes of several shapes around each cell's centre.

    An anchor of ratio `r` and scale `s` on a level of size `a` has the area of a square of side
    `s a`, at any ratio::

        width = s a / sqrt(r)        height = s a sqrt(r)

    Args:
      grids: The size (rows, columns) of each feature map.
      strides: Pixels of the input per cell, one number for each level.
      sizes: The base size in pixels, one number for each level; RetinaNet's are 4 strides.
      ratios: Height over width.
      scales: Factors of the base size.

    Returns:
      Anchors xyxy in pixels, float32 `[N, 4]`, in the order level, row, column, anchor; the anchors
      of a cell in the order ratio, scale. They are centred as `grid_points`, half a cell further
      than torchvision's, and not rounded.

    Raises:
      ValueError: If there is not one stride and size for each level, a grid is not a pair, or a
        number is not above 0.

    Example:
      >>> from jaxloss import detection
      >>> print(detection.grid_anchors([(1, 1)], [8], [32], ratios=[1, 4], scales=[1]))
      [[-12. -12.  20.  20.] [ -4. -28.  12.  36.]]

    Reference:
      Lin et al. Focal Loss for Dense Object Detection. ICCV 2017. https://arxiv.org/abs/1708.02002
    """
    read_grids(grids, strides=strides, sizes=sizes)
    above_0(ratios=ratios, scales=scales)
    slope, scale = np.sqrt(np.asarray(ratios, np.float32)), np.asarray(scales, np.float32)
    shapes = np.stack([scale / slope[:, None], scale * slope[:, None]], -1)
    corners = np.concatenate([-shapes, shapes], -1).reshape(-1, 4) / 2
    levels = [
        np.tile(_centres(grid, stride), 2)[:, :, None] + corners * np.float32(size)
        for grid, stride, size in zip(grids, strides, sizes, strict=True)
    ]
    return jnp.asarray(np.concatenate([anchors.reshape(-1, 4) for anchors in levels]))


def _centres(grid: tuple[int, int], stride: float) -> np.ndarray:
    """The centres (x, y) of a level's cells, `[rows, columns, 2]`."""
    rows, columns = (np.arange(n, dtype=np.float32) + np.float32(0.5) for n in grid)
    return np.stack(np.meshgrid(columns, rows), -1) * np.float32(stride)


def read_grids(grids: Grids, **per_level: Sequence[float]) -> None:
    """Requires pairs of sizes, and one number above 0 for each of them."""
    expected = "rows and columns of each level"
    if len(grids) == 0:
        checks.fail(ValueError, "grids", "empty", expected)
    for grid in grids:
        if np.ndim(grid) != 1 or len(grid) != 2:
            checks.fail(ValueError, "grids", grid, expected)
        for size in grid:
            checks.integer("grids", size, 1)
    above_0_per_level(len(grids), **per_level)


def above_0_per_level(levels: int, **per_level: Sequence[float]) -> None:
    """Requires as many numbers above 0 as there are levels."""
    one_per_level(levels, **per_level)
    above_0(**per_level)


def above_0(**numbers: Sequence[float]) -> None:
    """Requires numbers above 0."""
    for name, given in numbers.items():
        for number in given:
            checks.scalar(name, number)
            checks.interval(name, number, "(0, inf)")


def of_levels(argument: str, given: Levels) -> list[Array]:
    """Requires a list of floating arrays, one for each level."""
    expected = "a list of arrays, one for each level"
    if not isinstance(given, (list, tuple)):
        got = "one array" if checks.is_array(given) else f"a {type(given).__name__}"
        checks.fail(TypeError, argument, got, expected)
    if not given:
        checks.fail(ValueError, argument, "empty", expected)
    return [checks.floating(argument, level) for level in given]


def one_per_level(levels: int, **per_level: Sequence[Any]) -> None:
    """Requires as many numbers or arrays as there are levels."""
    for name, given in per_level.items():
        expected = f"one for each of the {levels} levels"
        if not hasattr(given, "__len__"):
            checks.fail(TypeError, name, given, expected)
        if len(given) != levels:
            checks.fail(ValueError, name, f"of length {len(given)}", expected)
