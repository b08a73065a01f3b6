import importlib.util
import pathlib
import sys

import jax
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))

import classify_digits  # noqa: E402
import losses  # noqa: E402
import survey  # noqa: E402
import survey_data  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def _mixed_types():
    """Flax and Optax promote ranks and types inside; the suite forbids it to jaxloss only."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.slow
def test_all_losses_but_those_that_say_why_take_part(capsys):
    options = survey.parse([])
    assert len(options.loss) >= 55
    said = capsys.readouterr().out
    for family in losses.FAMILIES:
        for name in losses.in_family(family):
            assert (name in options.loss) != (f"jaxloss.{name}: " in said)


def test_it_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(survey, "TRAINING", 8)
    monkeypatch.setattr(survey, "TESTING", 4)
    words = ["--steps", "2", "--size", "16", "--output", str(tmp_path)]
    words += ["--loss", "dice", "--data", "digits, 20 %"]
    first = survey.main([*words, "--seeds", "1"])
    both = survey.main([*words, "--seeds", "2"])
    assert len(first) == 1
    assert len(both) == 2
    assert [row["seed"] for row in survey.read(tmp_path / "survey.csv")] == ["0", "1"]
    assert both[0] == {name: str(value) for name, value in first[0].items()}
    page = (tmp_path / "survey.md").read_text()
    assert "### Region" in page
    assert "\n| [`dice`](loss/dice.md) |" in page
    assert survey.main([*words, "--seeds", "3", "--tables"]) == survey.read(tmp_path / "survey.csv")


def test_measures_are_of_the_foreground():
    masks = np.zeros((2, 4, 4), np.int32)
    masks[:, :2] = 1  # 8 of 16 pixels
    found = np.zeros((2, 4, 4), int)
    found[:, 1:3] = 1  # half of them, and as many others
    measures = survey.judge(np.eye(2)[found], survey_data.Pictures(None, masks))
    expected = {"dice": 0.5, "iou": 1 / 3, "precision": 0.5, "recall": 0.5, "calibration": 0.5}
    assert {n: measures[n] for n in expected} == pytest.approx(expected, abs=1e-5)
    assert measures["hd95"] == 1.0


def test_nothing_found_has_measures():
    masks = np.ones((1, 4, 4), np.int32)
    measures = survey.judge(np.eye(2)[0 * masks], survey_data.Pictures(None, masks))
    assert measures["dice"] == measures["precision"] == measures["recall"] == 0


@pytest.mark.parametrize("name", ["hinge", "binary_cross_entropy", "focal"])
def test_probabilities_are_those_that_the_loss_trains(name):
    logits = np.array([[2.0, -1.0]])
    expected = np.exp(logits) if name == "focal" else 1 / (1 + np.exp(-logits))
    found = survey.probabilities(name, jax.numpy.asarray(logits))
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-5)


@pytest.mark.parametrize("name", survey_data.DATA)
def test_pictures_hold_what_they_say(name):
    if name == "nuclei" and not importlib.util.find_spec("stardist"):
        pytest.skip("needs stardist")
    train, test = (survey_data.draw(name, split, 300, 32) for split in ("train", "test"))
    assert train.images.shape == (300, 32, 32, 1)
    assert train.masks.shape == (300, 32, 32)
    assert train.images.dtype == np.float32
    assert 0 <= train.images.min() < train.images.max() <= 1
    assert set(np.unique(train.masks)) == {0, 1}
    if "%" in name:
        share = float(name.split()[1]) / 100
        assert train.masks.mean() == pytest.approx(share, rel=0.03)
        np.testing.assert_allclose(train.masks.mean((1, 2)), share, rtol=0.3)  # equal ink counts
    assert not np.array_equal(train.images, test.images)


# Classification


def test_long_tail_falls_evenly():
    labels = np.repeat(np.arange(10), 100)
    kept = classify_digits.long_tail(labels, 100)
    counts = np.bincount(labels[kept])
    assert (counts[0], counts[-1]) == (100, 1)
    np.testing.assert_allclose(np.diff(np.log(counts[:7])), -np.log(100) / 9, atol=0.1)
    assert len(classify_digits.long_tail(labels, 1)) == len(labels)


def test_noise_makes_its_share_of_the_labels_wrong():
    labels = np.repeat(np.arange(10), 1000)
    noisy = classify_digits.spoil(labels, 0.4, np.random.default_rng(0))
    wrong = noisy != labels
    assert wrong.mean() == pytest.approx(0.4, abs=0.02)
    assert set(np.unique(noisy[wrong] - labels[wrong])) == set(range(-9, 10)) - {0}
    assert noisy.dtype == np.int32


def test_a_table_over_losses_and_seeds(capsys):
    words = ["--loss", "cross_entropy", "focal", "--option", "gamma=1", "--seeds", "2"]
    rows = classify_digits.main(
        [*words, "--steps", "5", "--long-tail", "5", "--label-noise", "0.1"]
    )
    assert {name: row.shape for name, row in rows.items()} == {
        "cross_entropy": (3, 2),
        "focal": (3, 2),
    }
    out = capsys.readouterr().out
    mean, spread = rows["focal"][0].mean(), rows["focal"][0].std(ddof=1)
    assert f"{mean:.3f} ± {spread:.3f}" in out


@pytest.mark.parametrize(
    "words, message",
    [
        (["--long-tail", "0.5"], "0.5 is below 1"),
        (["--label-noise", "2"], "2.0 is not in [0, 1]"),
        (["--loss", "dice"], "invalid choice: 'dice'"),
        (["--loss", "focal", "--option", "t1=1"], "t1 is of none of focal"),
    ],
)
def test_options_that_do_not_fit_are_named(words, message, capsys):
    with pytest.raises(SystemExit):
        classify_digits.parse(words)
    assert message in " ".join(capsys.readouterr().err.split())
