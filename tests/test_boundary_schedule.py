import pathlib
import sys

import jax
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))

import boundary_schedule  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def _mixed_types():
    """Flax and Optax promote ranks and types inside; the suite forbids it to jaxloss only."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.slow
def test_a_short_training_leaves_its_results(tmp_path, capsys):
    arguments = ["--steps", "6", "--batch", "4", "--scenes", "16", "--size", "16"]
    runs = boundary_schedule.main([*arguments, "--output", str(tmp_path)])
    assert list(runs) == ["Dice", "Dice + boundary"]
    for run in runs.values():
        assert run.steps == [1, 2, 3, 4, 5, 6]
        assert all(0 <= value <= 1 for value in run.iou)
        assert all(0 <= value <= 16 * 2**0.5 for value in run.distance)
        assert run.predictions.shape == (8, 16, 16)
    picture = tmp_path / "boundary_schedule.png"
    assert f"picture {picture}" in capsys.readouterr().out.splitlines()
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_schedule_hands_over_and_compiles_once():
    logits = jax.random.normal(jax.random.key(0), (2, 16, 16))
    masks = np.zeros((2, 16, 16), bool)
    masks[:, 4:7, 3:12] = True
    losses = boundary_schedule.make_losses(steps=100)
    traces = []

    @jax.jit
    def run(step):
        traces.append(step)
        return {name: loss(logits, masks, step) for name, loss in losses.items()}

    start, middle, end, later = (run(step) for step in (0, 50, 100, 500))
    assert len(traces) == 1
    np.testing.assert_allclose(start["Dice + boundary"], start["Dice"], rtol=1e-5)
    assert middle["Dice"] == end["Dice"]
    assert middle["Dice + boundary"] != end["Dice + boundary"]
    assert later["Dice + boundary"] == end["Dice + boundary"]


def square(top, left, side=4, size=16):
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


@pytest.mark.parametrize("shift", [0, 1, 3, 7])
def test_hausdorff_95_of_a_shifted_line_is_the_shift(shift):
    """Against all pairs of points; only a line has every pixel as far away."""
    first, second = (square(2 + s, 0, 1) | square(2 + s, 1, 1) for s in (0, shift))
    assert boundary_schedule.hausdorff_95(first, second) == shift


def test_hausdorff_95_is_the_percentile_of_all_pairs():
    rng = np.random.default_rng(0)
    for _ in range(20):
        first, second = (square(*rng.integers(0, 9, 2), side) for side in rng.integers(1, 7, 2))
        outlines = [np.argwhere(_rim(mask)) for mask in (first, second)]
        apart = np.linalg.norm(outlines[0][:, None] - outlines[1][None], axis=-1)
        expected = max(np.percentile(apart.min(axis), 95) for axis in (0, 1))
        found = boundary_schedule.hausdorff_95(first, second)
        np.testing.assert_allclose(found, expected)
        assert found == boundary_schedule.hausdorff_95(second, first)


def _rim(mask):
    """The pixels of a mask with a face neighbour outside of it."""
    padded = np.pad(mask, 1)
    near = [np.roll(padded, step, axis) for axis in (0, 1) for step in (1, -1)]
    return mask & ~np.logical_and.reduce(near)[1:-1, 1:-1]


def test_one_stray_pixel_hardly_moves_the_95_percent_distance():
    line = np.zeros((32, 32), bool)
    line[10, :] = True
    stray = line.copy()
    stray[30, 30] = True
    assert boundary_schedule.hausdorff_95(stray, line) == 0
    stray[20:30, 30] = True
    assert boundary_schedule.hausdorff_95(stray, line) > 10


def test_empty_masks_have_a_distance():
    empty, one = np.zeros((3, 4), bool), np.ones((3, 4), bool)
    assert boundary_schedule.hausdorff_95(empty, empty) == 0
    for pair in ((empty, one), (one, empty)):
        assert boundary_schedule.hausdorff_95(*pair) == 5
    assert boundary_schedule.intersection_over_union(empty, empty) == 1


def test_intersection_over_union_counts_pixels():
    assert boundary_schedule.intersection_over_union(square(0, 0), square(0, 2)) == 1 / 3
