import pathlib
import sys

import jax
import numpy as np
import pytest

import jaxloss

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))

import losses  # noqa: E402
import scenes  # noqa: E402
import segment_digits  # noqa: E402
import training  # noqa: E402

DICE_AND_A_LITTLE_BOUNDARY = ["--loss", "dice_boundary", "--option", "weighting=uniform"]
DICE_AND_A_LITTLE_BOUNDARY += ["--option", "alpha=1..0.98"]


@pytest.fixture(scope="module", autouse=True)
def _mixed_types():
    """Flax and Optax promote ranks and types inside; the suite forbids it to jaxloss only."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def chosen(*words):
    """The loss that words on the command line choose."""
    options = segment_digits.parse(list(words))
    return segment_digits.make_loss(options, np.arange(segment_digits.CLASSES))


@pytest.fixture(scope="module")
def composed():
    return scenes.compose(100, "train", digits=5)


def test_scenes_have_fixed_shapes(composed):
    assert [(field.shape, field.dtype) for field in composed] == [
        ((100, 64, 64, 1), np.float32),
        ((100, 64, 64), np.int32),
        ((100, 64, 64), np.int32),
        ((100, 5, 4), np.float32),
        ((100, 5), np.int32),
        ((100, 5), bool),
    ]
    assert composed.images.min() >= 0
    assert composed.images.max() <= 1
    assert set(composed.valid.sum(1)) == {1, 2, 3, 4, 5}


def test_boxes_are_the_tight_bounds_of_the_visible_pixels(composed):
    for instances, boxes, valid in zip(
        composed.instances, composed.boxes, composed.valid, strict=True
    ):
        assert set(np.unique(instances)) == {0, *(1 + np.flatnonzero(valid))}
        for slot in np.flatnonzero(valid):
            y, x = np.nonzero(instances == slot + 1)
            assert len(y) >= scenes.FEWEST_PIXELS
            np.testing.assert_array_equal(boxes[slot], [x.min(), y.min(), x.max() + 1, y.max() + 1])


def test_masks_name_the_digit_of_each_instance(composed):
    names = np.pad(np.where(composed.valid, composed.labels + 1, 0), ((0, 0), (1, 0)))
    expected = np.stack([n[i] for n, i in zip(names, composed.instances, strict=True)])
    np.testing.assert_array_equal(composed.masks, expected)


def test_empty_slots_are_zero(composed):
    assert not composed.boxes[~composed.valid].any()
    assert not composed.labels[~composed.valid].any()


def test_scenes_depend_on_the_seed_and_the_split_only():
    first, again = (scenes.compose(5, "test", seed=3) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    for other in (scenes.compose(5, "test", seed=4), scenes.compose(5, "train", seed=3)):
        assert not np.array_equal(first.images, other.images)


def test_splits_share_no_digit_and_no_photograph():
    def distinct(images):
        return {image.tobytes() for image in images}

    train, test = (distinct(scenes.load_digits(split)[0]) for split in ("train", "test"))
    assert train.isdisjoint(test)
    train, test = (scenes.load_photographs(split) for split in ("train", "test"))
    for a, b in zip(train, test, strict=True):
        assert distinct(a.T).isdisjoint(distinct(b.T))


def test_digits_of_scikit_learn_stand_in(monkeypatch):
    monkeypatch.setattr(scenes.importlib.util, "find_spec", lambda name: None)
    images, labels = scenes.load_digits.__wrapped__("test")
    assert images.shape == (898, 8, 8)
    assert images.dtype == np.uint8
    assert images.max() == 255
    assert set(labels) == set(range(10))


def test_training_lowers_the_loss_and_leaves_its_results(tmp_path, capsys):
    arguments = ["--steps", "30", "--batch", "8", "--scenes", "64", "--size", "32"]
    arguments += ["--devices", "4"]
    result = segment_digits.main([*arguments, "--output", str(tmp_path / "new")])

    assert result["losses"].shape == (30,)
    assert result["losses"][-5:].mean() < 0.8 * result["losses"][:5].mean()
    out, err = capsys.readouterr()
    assert err.index("compiling") < err.index("step/s")
    lines = out.splitlines()
    assert f"mean IoU {result['mean_iou']:.2f}" in lines
    assert f"picture {tmp_path / 'new' / 'segment_digits.png'}" in lines
    assert result["picture"].read_bytes().startswith(b"\x89PNG")

    saved, restored = (
        jax.tree.leaves_with_path(segment_digits.nnx.state(model))
        for model in (result["model"], segment_digits.restore(tmp_path / "new"))
    )
    assert len(saved) == len(restored) > 0
    for (path, a), (same_path, b) in zip(saved, restored, strict=True):
        assert path == same_path
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["cross_entropy", "dice_cross_entropy"])
def test_losses_that_upsample_equal_those_of_resized_logits(name, composed):
    labels = composed.masks[:2]
    small = jax.random.normal(jax.random.key(0), (2, 32, 32, segment_digits.CLASSES))
    value = jax.jit(chosen("--loss", name, "--upsample-in-loss"))(small, labels, 0)
    large = jaxloss.resize_logits(small, labels.shape[1:], **segment_digits.EDGES)
    expected = chosen("--loss", name)(large, labels, 0)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.slow
def test_it_trains_with_logits_that_the_loss_upsamples(tmp_path):
    arguments = ["--steps", "30", "--scenes", "64", "--size", "32", "--upsample-in-loss"]
    result = segment_digits.main([*arguments, "--output", str(tmp_path)])
    assert result["losses"][-5:].mean() < 0.8 * result["losses"][:5].mean()
    restored = segment_digits.restore(tmp_path, half=True)
    assert restored(np.zeros((1, 32, 32, 1), np.float32)).shape == (1, 16, 16, 11)


def test_only_some_losses_upsample(capsys):
    with pytest.raises(SystemExit):
        segment_digits.parse(["--loss", "focal", "--upsample-in-loss"])
    assert "not with focal, but with cross_entropy or" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    "options, tolerance",
    [
        (["--size", "32", "--devices", "4"], 1e-5),
        # Where a gradient is all but 0, rounding decides the sign of Adam's first steps.
        (["--split", "height", "--devices", "8", *DICE_AND_A_LITTLE_BOUNDARY], 1e-4),
    ],
    ids=["batch", "height"],
)
def test_many_devices_take_the_steps_of_one(options, tolerance, tmp_path):
    arguments = ["--steps", "6", "--batch", "8", "--scenes", "64", "--output", str(tmp_path)]
    shared = segment_digits.main([*arguments, *options])["losses"]
    alone = segment_digits.main([*arguments, *options, "--devices", "1"])["losses"]
    np.testing.assert_allclose(shared[0], alone[0], rtol=1e-6)
    np.testing.assert_allclose(shared, alone, rtol=tolerance)


@pytest.mark.parametrize("name", ["focal", "ldam", "lovasz_softmax", "boundary", "exp_log"])
def test_losses_offer_a_finite_gradient(name, composed):
    labels = composed.masks[:2]
    logits = jax.random.normal(jax.random.key(0), (*labels.shape, segment_digits.CLASSES))
    value, gradient = jax.jit(jax.value_and_grad(chosen("--loss", name)))(logits, labels, 0)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert np.any(gradient)


def test_an_option_may_change_over_the_training(composed):
    labels = composed.masks[:2]
    logits = jax.random.normal(jax.random.key(0), (*labels.shape, segment_digits.CLASSES))
    loss = jax.jit(chosen("--loss", "tversky", "--option", "alpha=1..0", "--steps", "10"))
    for step, alpha in ((0, 1.0), (5, 0.5), (10, 0.0), (20, 0.0)):
        expected = jaxloss.tversky(logits, labels, alpha=alpha, per_image=False)
        np.testing.assert_allclose(loss(logits, labels, step), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--loss", "arcface"], "invalid choice: 'arcface'"),
        (["--loss", "focal", "--option", "gama=3"], "`gama` is no option, expected"),
        (["--loss", "focal", "--option", "gamma=-3"], "`gamma` is -3"),
        (["--option", "smooth"], "smooth has no value; it is NAME=VALUE"),
    ],
)
def test_losses_and_options_that_do_not_fit_are_named(words, message, capsys):
    with pytest.raises(SystemExit):
        segment_digits.parse(words)
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "text, value",
    [
        ("0.5", 0.5),
        ("[1, 2]", [1, 2]),
        ("None", None),
        ("giou", "giou"),
        ("1..1e-2", losses.Schedule(1.0, 0.01)),
    ],
)
def test_options_are_read(text, value):
    assert losses.read_value(text) == value


def test_size_must_fit_the_network(capsys):
    with pytest.raises(SystemExit):
        segment_digits.parse(["--size", "40"])
    assert "40 is not a multiple of 16" in capsys.readouterr().err


def test_devices_must_share_the_rows_equally(capsys):
    with pytest.raises(SystemExit):
        segment_digits.parse(["--devices", "5", "--batch", "5", "--split", "height"])
    assert "a height of 64 cannot be shared equally among 5" in capsys.readouterr().err


@pytest.mark.parametrize("devices", ["0", "3"])
def test_devices_must_share_the_batch_equally(devices, capsys):
    with pytest.raises(SystemExit):
        segment_digits.parse(["--batch", "16", "--devices", devices])
    message = f"a batch of 16 cannot be shared equally among {devices} devices"
    assert message in " ".join(capsys.readouterr().err.split())


def test_devices_must_exist():
    with pytest.raises(SystemExit, match="--devices 1000: this machine has"):
        training.make_mesh(1000)
