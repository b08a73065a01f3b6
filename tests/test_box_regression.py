import pathlib
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))

import box_regression  # noqa: E402

ORDER = ["GIoU", "CIoU", "DIoU", "IoU"]

pytestmark = pytest.mark.xdist_group("box_regression")  # one simulation for all


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    output = tmp_path_factory.mktemp("output")
    arguments = ["--points", "24", "--losses", *ORDER, "--output", str(output)]
    runs = box_regression.main(arguments)
    assert (output / "box_regression.png").read_bytes().startswith(b"\x89PNG")
    return runs


def test_the_order_of_the_losses_after_50_of_200_steps(runs):
    """That of the gradients: GIoU is ahead of DIoU, unlike under the published update rules."""
    errors = [runs[name].error[50] for name in ORDER]
    assert (np.diff(errors) > 0.1).all()


def test_only_iou_leaves_boxes_where_they_are(runs):
    """Five cases of six never meet their target; all other losses bring nearly every one there."""
    assert runs["IoU"].error[-1] > 3
    for name in ORDER[:-1]:
        assert runs[name].error[-1] < 0.1
        assert runs[name].error.shape == (201,)
        assert runs[name].final.shape == (24,)
        np.testing.assert_allclose(runs[name].final.mean(), runs[name].error[-1], 1e-5)


def test_the_trajectory_ends_at_its_target(runs):
    start, target = box_regression.TRAJECTORY["start"], box_regression.TRAJECTORY["target"]
    for name in ORDER:
        np.testing.assert_allclose(runs[name].path[0], start)
    assert np.abs(runs["CIoU"].path[-1] - target).max() < 0.02
    np.testing.assert_array_equal(runs["IoU"].path[-1], runs["IoU"].path[0])


def test_points_lie_evenly_in_the_disc():
    points = box_regression.scatter(20_000, seed=0) - box_regression.CENTRE
    radius = np.linalg.norm(points, axis=1)
    assert radius.max() <= 3
    np.testing.assert_allclose((radius < 1.5).mean(), 1 / 4, atol=0.02)
    np.testing.assert_allclose(points.mean(0), 0, atol=0.05)


def test_the_cases_are_those_of_the_paper():
    assert 5000 * box_regression.CASES == 1_715_000
    anchors = box_regression.shapes(box_regression.AREAS)
    np.testing.assert_allclose(np.sort(np.unique(anchors.prod(1).round(9))), box_regression.AREAS)
    ratios = np.unique((anchors[:, 0] / anchors[:, 1]).round(9))
    np.testing.assert_allclose(ratios, box_regression.RATIOS)


def test_the_rate_falls_twice():
    rates = box_regression.schedule(200)
    values, counts = np.unique(rates, return_counts=True)
    np.testing.assert_allclose(values, [0.001, 0.01, 0.1], 1e-6)
    assert counts.tolist() == [20, 20, 160]


@pytest.mark.parametrize("wrong", [["--points", "0"], ["--iterations", "0"], ["--losses", "L2"]])
def test_wrong_options_are_refused(wrong, capsys):
    with pytest.raises(SystemExit):
        box_regression.parse(wrong)
    assert "error: argument" in capsys.readouterr().err
