"""Frequent mistakes get advice beside the error: what is likely to be meant."""

import inspect
import operator
import re

import jax
import numpy as np
import pytest

import jaxloss
from jaxloss._core import other_names

NAMES = (
    "cross_entropy",
    "focal",
    "sigmoid_focal",
    "top_k_cross_entropy",
    "dice",
    "lovasz_softmax",
    "boundary",
    "dice_cross_entropy",
)
COMPETING = ("cross_entropy", "top_k_cross_entropy", "lovasz_softmax")
LOGITS = np.zeros((2, 4, 5, 6), np.float32)


def _ids(*shape, dtype=np.int32):
    return np.zeros(shape, dtype)


MISTAKES = {
    "classes elsewhere": (LOGITS, _ids(2, 5, 6), {}, ValueError, "did you mean axis=1?"),
    "classes last": (LOGITS, _ids(2, 4, 5), {"axis": 1}, ValueError, "did you mean axis=3?"),
    "an axis too many": (LOGITS, _ids(2, 1, 5, 6), {"axis": 1}, ValueError, "labels.squeeze(1)?"),
    "a last axis too many": (LOGITS, _ids(2, 4, 5, 1), {}, ValueError, "labels.squeeze(3)?"),
    "a mask with a channel": (
        LOGITS[..., 0],
        _ids(2, 4, 5, 1, dtype=np.float32),
        {"axis": None},
        ValueError,
        "labels.squeeze(3)?",
    ),
    "float ids": (LOGITS, _ids(2, 4, 5, dtype=np.float32), {}, ValueError, "labels.astype(int)?"),
    "one-hot labels with their classes elsewhere": (
        LOGITS,
        np.zeros((2, 6, 4, 5), np.float32),
        {},
        ValueError,
        "jnp.moveaxis(labels, 1, 3)?",
    ),
    "a channel of the logits alone": (
        LOGITS[..., :1],
        _ids(2, 4, 5, dtype=np.float32),
        {"axis": None},
        ValueError,
        "jnp.expand_dims(labels, 3)?",
    ),
    "exchanged": (_ids(2, 4, 5), LOGITS, {}, TypeError, "`labels` exchanged?"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_error_says_what_is_likely_to_be_meant(mistake, name):
    logits, labels, options, error, advice = MISTAKES[mistake]
    if options.get("axis", 0) is None and name in COMPETING:
        pytest.skip("its classes compete: there is no loss without their axis")
    with pytest.raises(error) as caught:
        getattr(jaxloss, name)(logits, labels, **options)
    assert str(caught.value).startswith(f"jaxloss.{name}: `")
    assert str(caught.value).endswith(advice)


@pytest.mark.parametrize("shape", [(2, 7), (2, 4, 5, 6, 1), (3, 5, 6), (7, 5, 6)])
def test_labels_that_fit_nowhere_get_no_advice(shape):
    with pytest.raises(ValueError, match=r"integer ids of shape \(2, 4, 5\)$"):
        jaxloss.focal(LOGITS, np.zeros(shape, np.int32))


@pytest.mark.parametrize(
    "name, option, meant",
    [
        ("cross_entropy", "weight", "class_weights"),
        ("l1", "weight", "weights"),
        ("dice", "eps", "smooth"),
        ("poly1", "eps", "epsilon"),
        ("focal", "dim", "axis"),
        ("focal", "gama", "gamma"),
        ("distillation", "T", "temperature"),
        ("dice_cross_entropy", "weight_ce", "cross_entropy_weight"),
        ("logit_adjusted", "class_counts", "priors"),
        ("top_k_cross_entropy", "k", "fraction"),
        ("dice_cross_entropy", "sample_weight", "weights"),
        ("dice_cross_entropy", "pixel_weights", "weights"),
        ("dice_cross_entropy", "ce_weight", "cross_entropy_weight"),
        ("dice_cross_entropy", "smoothing", "label_smoothing"),
        ("dice", "class_axis", "axis"),
        ("dice", "mode", "activation"),
        ("iou", "mode", "form"),
        ("arcface", "s", "scale"),
        ("ldam", "m", "max_margin"),
        ("gaussian_nll", "var", "variance"),
        ("dice", "y_pred", "logits"),
        ("l1", "y_true", "targets"),
        ("detection.detr", "eos_coef", "background_weight"),
        ("detection.detr", "set_cost_bbox", "cost_l1"),
        ("detection.yolo_v8", "box", "box_gain"),
        ("detection.retinanet", "fg_iou_thresh", "positive_iou"),
    ],
)
def test_options_of_other_libraries_and_misspelt_ones(name, option, meant):
    expected = rf"^jaxloss\.{name}: `{option}` is no option.*did you mean `{meant}`\?$"
    with pytest.raises(TypeError, match=expected):
        operator.attrgetter(name)(jaxloss)(LOGITS, _ids(2, 4, 5), **{option: 1})


@pytest.mark.parametrize(
    "name, option, value, advice",
    [
        ("cross_entropy", "reduction", "batchmean", "of images 'sum' over their number"),
        ("cross_entropy", "reduction", "sum_over_batch_size", "did you mean 'mean'?"),
        ("cross_entropy", "reduction", "None", "did you mean 'none'?"),
        ("dice", "activation", "multilabel", "did you mean 'sigmoid'?"),
        ("giou", "format", "coco", "did you mean 'xywh'?"),
        ("alpha_iou", "base", "CIoU", "did you mean 'ciou'?"),
        ("cross_entropy", "reduction", "median", "'mean' or 'sum' or 'none'"),
        ("rotated_iou", "form", "mean", "'linear' or 'log' or 'square'"),
    ],
)
def test_choices_of_other_libraries(name, option, value, advice):
    boxes = name in ("giou", "alpha_iou", "rotated_iou")
    pair = (np.ones((3, 5 if name == "rotated_iou" else 4)),) * 2
    pair = pair if boxes else (LOGITS, _ids(2, 4, 5))
    with pytest.raises(ValueError, match=f"`{option}` is '{value}', expected .*") as caught:
        getattr(jaxloss, name)(*pair, **{option: value})
    assert str(caught.value).endswith(advice)


@pytest.mark.parametrize("option", ["per_image", "per_class", "include_background"])
@pytest.mark.parametrize("value", ["False", "batch", 1, None])
def test_what_is_true_or_false_is_nothing_else(option, value):
    with pytest.raises(ValueError, match=f"`{option}` is .*, expected True or False$"):
        jaxloss.dice(LOGITS, _ids(2, 4, 5), **{option: value})


@pytest.mark.parametrize("value", [np.False_, np.array(False)])
def test_booleans_of_numpy_are_booleans(value):
    options = {"per_image": value, "per_class": value, "squared": value}
    found = jaxloss.dice(LOGITS, _ids(2, 4, 5), **options)
    assert found == jaxloss.dice(LOGITS, _ids(2, 4, 5), per_image=False, per_class=False)


@pytest.mark.parametrize(
    "option, meant",
    [
        ("batch_dice", "per_image"),
        ("ignore_bg", "include_background"),
        ("naive_dice", "squared"),
    ],
)
def test_an_option_whose_opposite_there_is(option, meant):
    with pytest.raises(TypeError, match=f"did you mean `{meant}`, which is its opposite\\?$"):
        jaxloss.dice(LOGITS, _ids(2, 4, 5), **{option: True})


@pytest.mark.parametrize(
    "name, option, instead",
    [
        ("cross_entropy", "avg_factor", '`reduction="sum"` and a division by it'),
        ("dice", "loss_weight", "a factor in front of the call"),
        ("dice_cross_entropy", "pos_weight", "such as `binary_cross_entropy` or `sigmoid_focal`"),
        ("dice", "name", "nothing, as a loss is a function"),
        ("giou", "eps", "nothing, as no ratio here needs it"),
        ("kl_divergence", "log_target", "`distillation` at `temperature=1` takes the logits"),
    ],
)
def test_options_that_are_none_here(name, option, instead):
    with pytest.raises(TypeError) as caught:
        getattr(jaxloss, name)(LOGITS, _ids(2, 4, 5), **{option: 1})
    assert f"`{option}` is no option, expected " in str(caught.value)
    assert instead in str(caught.value)
    assert "did you mean" not in str(caught.value)


def test_options_of_other_libraries_lead_to_options_that_there_are():
    functions = [getattr(jaxloss, name) for name in jaxloss.__all__]
    functions += [getattr(jaxloss.detection, name) for name in jaxloss.detection.__all__]
    signatures = map(inspect.signature, functions)
    names = {name for signature in signatures for name in signature.parameters}
    led_to = {option for meant in other_names.OPTIONS.values() for option in meant}
    assert led_to | set(other_names.OPPOSITES.values()) <= names


def test_an_option_like_no_other_gets_the_list():
    with pytest.raises(
        TypeError, match=r"`xyz` is no option, expected one of `logits`.*`axis_name`"
    ):
        jaxloss.cross_entropy(LOGITS, _ids(2, 4, 5), xyz=1)


CALLS = {
    "missing": (lambda f: f(LOGITS), r"`labels` is missing, expected `logits`, `labels`"),
    "twice": (lambda f: f(LOGITS, _ids(2, 4, 5), logits=1), "`logits` is given twice"),
    "by position": (lambda f: f(LOGITS, _ids(2, 4, 5), 3), "`*args` is 3 arguments"),
    "a dict": (
        lambda f: f({"out": LOGITS}, _ids(2, 4, 5)),
        "`logits` is a dict, expected an array",
    ),
    "two outputs": (lambda f: f((LOGITS, LOGITS), _ids(2, 4, 5)), "is a tuple of 2.*one of them"),
    "no reduction": (
        lambda f: f(LOGITS, _ids(2, 4, 5), reduction=None),
        "`reduction` is None, expected 'mean' or 'sum' or 'none'",
    ),
    "traced": (
        lambda f: jax.jit(f)(LOGITS, _ids(2, 4, 5), ignore_index=255),
        "`ignore_index` is an array.*functools.partial",
    ),
    "ids of a mask": (
        lambda f: f(LOGITS, _ids(2, 4, 5), where=_ids(2, 4, 5)),
        r"`where` is of dtype int32.*where\.astype\(bool\)\?",
    ),
    "a mask as weights": (
        lambda f: f(LOGITS, _ids(2, 4, 5), weights=_ids(2, 4, 5) > 0),
        "`weights` is of dtype bool, expected real numbers; a mask is `where`",
    ),
    "a channel of a mask": (
        lambda f: f(LOGITS, _ids(2, 4, 5), where=_ids(2, 1, 4, 5) > 0),
        r"where\.squeeze\(1\)\?",
    ),
    "ignored shares": (
        lambda f: f(LOGITS, np.float32(LOGITS + 0.5), ignore_index=255),
        "`where` masks any",
    ),
}


@pytest.mark.parametrize("name", ["cross_entropy", "top_k_cross_entropy", "poly1"])
@pytest.mark.parametrize("mistake", CALLS)
def test_calls_that_do_not_fit(mistake, name):
    call, expected = CALLS[mistake]
    with pytest.raises((TypeError, ValueError), match=rf"jaxloss\.{name}: .*{expected}"):
        call(getattr(jaxloss, name))


def test_masks_without_the_one_channel_of_the_logits():
    with pytest.raises(ValueError, match=r"; of one class: jnp.expand_dims\(labels, 1\)\?$"):
        jaxloss.focal(np.ones((2, 1, 4, 5)), np.ones((2, 4, 5)), axis=1)


@pytest.mark.parametrize(
    "shape, advice",
    [
        ((2,), r"weights\[\.\.\., None, None\]\?"),
        ((2, 4, 1), r"weights\[\.\.\., None\]\?"),
        ((4, 5), r"weights\[None\]\?"),
        ((6,), "one number per class is `class_weights`"),
        ((2, 4, 5, 6), "its axis 3 of size 6 is one too many"),
        ((2, 1, 4, 5), r"weights\.squeeze\(1\)\?"),
    ],
)
def test_weights_of_another_shape(shape, advice):
    logits = LOGITS if shape != (2, 4, 1) else LOGITS[:, :, None]
    with pytest.raises(ValueError, match=rf"jaxloss\.cross_entropy: `weights` is .*; .*{advice}$"):
        jaxloss.cross_entropy(logits, _ids(*logits.shape[:-1]), weights=np.ones(shape))


@pytest.mark.parametrize("shape", [(3,), (4,), (1,), ()])
def test_weights_that_fit_nowhere_get_no_advice(shape):
    with pytest.raises(ValueError, match="each dimension equal to it or 1$"):
        jaxloss.cross_entropy(LOGITS, _ids(2, 4, 5), weights=np.ones(shape))


@pytest.mark.parametrize(
    "shape, axis, advice",
    [
        ((4,), -1, "did you mean axis=1?"),
        ((4, 1, 1), -1, "did you mean axis=1?"),
        ((4, 1, 1), 1, "pos_weight.reshape(-1)?"),
        ((1,), 1, "pos_weight.squeeze()?"),
        ((3,), 1, "each dimension equal to it or 1"),
    ],
)
def test_weights_of_positives_in_the_shape_that_torch_wants(shape, axis, advice):
    with pytest.raises(ValueError, match=f"`pos_weight` is .*{re.escape(advice)}$"):
        jaxloss.binary_cross_entropy(LOGITS, LOGITS > 0, axis=axis, pos_weight=np.ones(shape))


def test_class_weights_that_are_shaped_to_broadcast():
    with pytest.raises(ValueError, match=r"class_weights\.reshape\(-1\)\?$"):
        jaxloss.dice(LOGITS, _ids(2, 5, 6), axis=1, class_weights=np.ones((1, 4, 1, 1)))


def test_masks_in_rows_are_no_image():
    with pytest.raises(ValueError, match=r"\(masks without classes need axis=None\)$"):
        jaxloss.dice(np.ones((6, 50)), np.ones((6, 50)))
    with pytest.raises(ValueError, match=r"\(a single image is x\[None\]\)$"):
        jaxloss.dice(np.ones((6, 50)), _ids(6))


def test_a_mesh_axis_that_only_another_one_surrounds():
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    loss = lambda x: jaxloss.l2(x, x, axis_name="data")
    spec = jax.sharding.PartitionSpec("batch")
    sharded = jax.shard_map(loss, mesh=mesh, in_specs=spec, out_specs=spec)
    with pytest.raises(ValueError, match=r"jaxloss\.l2: `axis_name` is 'data', which is not bound"):
        sharded(np.ones(4, np.float32))


@pytest.mark.parametrize(
    "name, meant",
    [
        ("DiceCELoss", "dice_cross_entropy"),
        ("DC_and_CE_loss", "dice_cross_entropy"),
        ("LabelSmoothingCrossEntropy", "cross_entropy"),
        ("BCEDiceLoss", "dice_cross_entropy"),
        ("BinaryFocalCrossentropy", "sigmoid_focal"),
        ("JsdCrossEntropy", "js_divergence"),
        ("OhemCrossEntropy", "top_k_cross_entropy"),
        ("PolyCrossEntropy", "poly1"),
        ("kl_div", "kl_divergence"),
        ("box_iou", "geometry.pairwise_iou"),
        ("squared_error", "optax_compat.squared_error"),
        ("yolo_v8", "detection.yolo_v8"),
        ("nms", "geometry.nms"),
        ("edt", "distance.edt"),
    ],
)
def test_names_that_are_elsewhere(name, meant):
    with pytest.raises(AttributeError, match=rf"did you mean jaxloss\.{meant}\?$"):
        getattr(jaxloss, name)
    with pytest.raises(AttributeError, match="has no 'mean_iou'$"):
        jaxloss.mean_iou  # noqa: B018


def test_names_of_other_libraries_lead_to_names_that_there_are():
    for meant in other_names.LOSSES.values():
        assert callable(operator.attrgetter(meant)(jaxloss))


def test_an_array_where_a_python_value_is_wanted():
    """Whether it is traced or not, it is told what to do."""
    x, ids = np.zeros((2, 3), np.float32), np.zeros(2, np.int32)
    run = lambda index: jaxloss.cross_entropy(x, ids, ignore_index=index)
    with pytest.raises(TypeError, match=r"an array, expected a Python value, as `.item\(\)` give"):
        run(jax.numpy.array(255))
    with pytest.raises(TypeError, match=r"a Python value: bind it with functools.partial outside"):
        jax.jit(run)(255)
