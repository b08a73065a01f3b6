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


def test_intersection_over_union_of_empty_masks_is_1():
    empty = np.zeros((3, 4), bool)
    assert boundary_schedule.intersection_over_union(empty, empty) == 1


def test_intersection_over_union_counts_pixels():
    assert boundary_schedule.intersection_over_union(square(0, 0), square(0, 2)) == 1 / 3
