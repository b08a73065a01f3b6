"""Bad input of every head and assigner: errors while tracing that name the argument.

What depends on values is tested where programs are compiled, for all heads too: `test_anchor_heads`
and `test_set_heads` have NaN in slots that are not valid, batches without targets and labels
outside of the classes, `tests/validation/test_heads.py` what `validate` says to them.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxloss import detection
from tests.detection import test_anchor_heads as on_anchors
from tests.detection import test_set_heads as of_sets

IMAGES, SLOTS, CLASSES = of_sets.IMAGES, of_sets.SLOTS, of_sets.CLASSES
PLACES = of_sets.PLACES


def head(module, name):
    box, label, valid = module.targets() if module is on_anchors else module.targets(name)
    true = {"boxes": box, "labels": label, "valid": valid}
    x = module.predictions(name)
    call = lambda boxes, labels, valid, **o: module.HEADS[name](x, boxes, labels, valid=valid, **o)
    return call, true


def assigner(name, *data, **options):
    box, label, valid = of_sets.targets("yolo_v8")
    labelled = name in ("assign_task_aligned", "assign_sim_ota")
    true = {"boxes": box, "valid": valid} | ({"labels": label} if labelled else {})
    return functools.partial(getattr(detection, name), *data, **options), true


SCORES = jnp.full((IMAGES, PLACES, CLASSES), 0.5)
REACH = jnp.tile(jnp.array([0.0, 0.0, 9.0, 9.0]), (IMAGES, PLACES, 1))
POINTS = jnp.ones((PLACES, 2))
CALLS = {
    **{name: head(on_anchors, name) for name in on_anchors.HEADS},
    **{name: head(of_sets, name) for name in of_sets.HEADS},
    "assign_by_iou": assigner("assign_by_iou", on_anchors.ANCHORS),
    "assign_atss": assigner("assign_atss", on_anchors.ANCHORS, level_sizes=[32]),
    "assign_by_anchor_ratio": assigner(
        "assign_by_anchor_ratio", on_anchors.SHAPES, strides=[8], grids=[(4, 4)]
    ),
    "assign_task_aligned": assigner("assign_task_aligned", SCORES, REACH, POINTS),
    "assign_sim_ota": assigner(
        "assign_sim_ota", SCORES, REACH, POINTS, strides=np.ones(PLACES, np.float32)
    ),
}
BAD = {
    "valid of another shape": ("valid", ValueError, np.ones((IMAGES, SLOTS - 1), bool)),
    "valid of numbers": ("valid", TypeError, np.ones((IMAGES, SLOTS), np.float32)),
    "labels of another shape": ("labels", ValueError, np.ones((IMAGES, 1), np.int32)),
    "labels of floats": ("labels", TypeError, np.ones((IMAGES, SLOTS), np.float32)),
    "boxes of another size": ("boxes", ValueError, np.ones((IMAGES, SLOTS, 3), np.float32)),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("case", BAD)
def test_targets(name, case):
    call, true = CALLS[name]
    argument, error, value = BAD[case]
    if argument not in true:
        pytest.skip("takes no labels")
    shown = "masks" if name == "mask_set" and argument == "boxes" else argument
    if shown == "masks":
        value = value[..., 0]  # no rows and columns
    with pytest.raises(error, match=rf"jaxloss\.detection\.{name}: `(?s:.)*{shown}.*expected"):
        jax.eval_shape(call, **true | {argument: value})


def misfit(argument, name, *data, **options):
    """A call whose predictions do not go with what describes their places."""
    return pytest.param(name, argument, data, options, id=f"{name}-{argument}")


ANCHORS, X = on_anchors.ANCHORS, {n: on_anchors.predictions(n) for n in on_anchors.HEADS}
X |= {name: of_sets.predictions(name) for name in of_sets.HEADS}
LEVELS = {"strides": (8, 16), "reg_max": of_sets.BINS}


@pytest.mark.parametrize(
    "name, argument, data, options",
    [
        misfit("anchors", "yolo_v5", X["yolo_v5"], anchors=np.ones((2, 2, 2)), strides=[8]),
        misfit("strides", "yolo_v5", X["yolo_v5"], anchors=on_anchors.SHAPES, strides=[8, 16]),
        misfit("strides", "yolo_v8", X["yolo_v8"], strides=(8, 16, 32)),
        misfit("strides", "yolo_v8_rotated", X["yolo_v8"], [], strides=(8,)),
        misfit("angles", "yolo_v8_rotated", X["yolo_v8"], X["yolo_v8_rotated"][2:3], **LEVELS),
        misfit("anchors", "retinanet", *X["retinanet"], anchors=ANCHORS[:-1]),
        misfit("points", "fcos", *X["fcos"], points=POINTS, strides=np.ones(len(POINTS))),
        misfit("anchors", "assign_by_iou", ANCHORS[:, :3]),
        misfit("level_sizes", "assign_atss", ANCHORS, level_sizes=[len(ANCHORS) - 1]),
        misfit(
            "anchors", "assign_by_anchor_ratio", np.ones((2, 2, 2)), strides=[8], grids=[(4, 4)]
        ),
        misfit("points", "assign_task_aligned", SCORES, REACH, POINTS[:-1]),
        misfit("points", "assign_sim_ota", SCORES, REACH, POINTS[:-1], strides=np.ones(PLACES)),
    ],
)
def test_places_that_do_not_fit(name, argument, data, options):
    _, true = CALLS[name]
    call = functools.partial(getattr(detection, name), *data, **options)
    with pytest.raises(ValueError, match=rf"jaxloss\.detection\.{name}: `{argument}.*expected"):
        jax.eval_shape(call, **true)


NOTHING = {  # of an argument, that of which nothing is left
    "logits of retinanet": ("retinanet", 0, "logits", lambda x: x[:, :0]),
    "classes of retinanet": ("retinanet", 0, "logits", lambda x: x[..., :0]),
    "classes of detr": ("detr", 0, "logits", lambda x: x[..., :1]),
    "classes of mask_set": ("mask_set", 0, "logits", lambda x: x[..., :1]),
    "maps of mask_set": ("mask_set", 1, "mask_logits", lambda x: x[:, :, :0]),
}


@pytest.mark.parametrize("case", NOTHING)
def test_predictions_of_nothing(case):
    name, place, argument, less = NOTHING[case]
    module = on_anchors if name in on_anchors.HEADS else of_sets
    x, true = list(X[name]), CALLS[name][1]
    x[place] = less(x[place])
    box, label, valid = true.values()
    with pytest.raises(ValueError, match=rf"detection\.{name}: `{argument}`.*expected"):
        jax.eval_shape(functools.partial(module.HEADS[name], x), box, label, valid=valid)


@pytest.mark.parametrize("name", [*on_anchors.HEADS, *of_sets.HEADS])
def test_a_batch_of_no_images(name):
    module = on_anchors if name in on_anchors.HEADS else of_sets
    nobody = jax.tree.map(lambda a: a[:0], (X[name], CALLS[name][1]))
    call = lambda x, true: module.HEADS[name](x, *list(true.values())[:2], valid=true["valid"])
    total, _ = jax.eval_shape(call, *nobody)
    assert total.shape == ()


def test_every_head_and_assigner_is_here():
    public = [n for n in dir(detection) if n.startswith("assign_")] + [
        *on_anchors.HEADS,
        *of_sets.HEADS,
    ]
    assert set(CALLS) == set(public)


@pytest.mark.parametrize("name", ["detr", "mask_set"])
def test_a_query_for_each_slot(name):
    call, true = CALLS[name]
    shape = of_sets.IMAGES, of_sets.QUERIES + 1
    box = jnp.ones((*shape, *true["boxes"].shape[2:]))
    shown = "masks" if name == "mask_set" else "boxes"
    with pytest.raises(ValueError, match=rf"jaxloss\.detection\.{name}: `{shown}`.*at most"):
        jax.eval_shape(call, box, jnp.zeros(shape, jnp.int32), jnp.ones(shape, bool))


@pytest.mark.parametrize("weights", [(1, 1, 0, 1), (1, 1, 1), np.ones((1, 4))])
def test_weights_of_deltas(weights):
    _, true = CALLS["retinanet"]
    options = {"anchors": ANCHORS, "delta_weights": weights}
    call = functools.partial(detection.retinanet, *X["retinanet"], **options)
    with pytest.raises(ValueError, match=r"detection\.retinanet: `delta_weights`.*expected"):
        jax.eval_shape(call, **true)


@pytest.mark.parametrize("key", [3, np.zeros(2, np.int32), jax.random.split(jax.random.key(0))])
def test_one_random_key(key):
    call, true = CALLS["mask_set"]
    with pytest.raises(TypeError, match=r"detection\.mask_set: `key`.*one key"):
        jax.eval_shape(call, **true, key=key)


@pytest.mark.parametrize("name", ["yolo_v5", "yolo_v8", "yolo_v8_rotated"])
def test_levels_by_name(name):
    _, true = CALLS[name]
    by_name = {"p3": X[name][0][0]}
    rest = [] if name != "yolo_v8_rotated" else [X[name][1]]
    options = {"strides": (8,)} | ({"anchors": on_anchors.SHAPES[:1]} if name == "yolo_v5" else {})
    with pytest.raises(TypeError, match=rf"{name}: `predictions` is a dict.*one for each level"):
        getattr(detection, name)(by_name, *rest, **true, **options)
    with pytest.raises(TypeError, match=rf"{name}: `predictions` is one array, expected a list"):
        getattr(detection, name)(X[name][0][0], *rest, **true, **options)


def test_anchors_of_each_image():
    _, true = CALLS["retinanet"]
    anchors = np.zeros((2, 12, 4), np.float32)
    expected = r"`anchors` is of shape \(2, 12, 4\), expected 2 axes: .* the same for all images"
    with pytest.raises(ValueError, match=expected):
        detection.retinanet(*X["retinanet"], **true, anchors=anchors)


def levels(*shapes, **options):
    """YOLOv8's loss of predictions of these shapes."""
    _, true = CALLS["yolo_v8"]
    options = {"strides": (8,), "reg_max": 1} | options
    return detection.yolo_v8([jnp.zeros(shape) for shape in shapes], **true, **options)


def given(**fields):
    """DETR's loss with an assignment of which fields are replaced."""
    nobody = jnp.zeros((IMAGES, of_sets.QUERIES), bool)
    known = detection.Assignment(nobody.astype(jnp.int32), nobody, nobody.astype(float), nobody)
    call, true = CALLS["detr"]
    return call(**true, assignment=known._replace(**fields))


ONE = (IMAGES, 4, 4, 5)  # a level of YOLOv8


@pytest.mark.parametrize(
    "error, words, call",
    [
        (ValueError, "yolo_v8: `predictions` is empty", lambda: levels(strides=())),
        (ValueError, "yolo_v8: `predictions` is of .*4 axes", lambda: levels(ONE[1:])),
        (TypeError, "yolo_v8: `strides` is 8, expected one", lambda: levels(ONE, strides=8)),
        (ValueError, "grid_points: `grids` is empty", lambda: detection.grid_points([], [])),
        (TypeError, "grid_points: `grids` is 2.5", lambda: detection.grid_points([(2.5, 2)], [8])),
        (TypeError, "detr: `assignment.index`.*integer", lambda: given(index=jnp.ones((4, 5)))),
        (ValueError, "detr: `assignment.ignore`", lambda: given(ignore=jnp.ones((4, 9), bool))),
    ],
)
def test_what_is_said(error, words, call):
    with pytest.raises(error, match=f"jaxloss.detection.{words}"):
        call()


@pytest.mark.parametrize("name", ["assign_by_iou", "assign_atss"])
def test_anchors_are_the_same_for_all_images(name):
    _, true = CALLS[name]
    options = {"level_sizes": 32} if name == "assign_atss" else {}
    with pytest.raises(ValueError, match=rf"{name}: `anchors` is of .*2 axes"):
        getattr(detection, name)(ANCHORS[None], **true, **options)


def test_sizes_of_levels_are_several():
    _, true = CALLS["assign_atss"]
    with pytest.raises(TypeError, match=r"assign_atss: `level_sizes` is 32, expected counts"):
        detection.assign_atss(ANCHORS, **true, level_sizes=32)


def test_one_size_of_anchors_for_each_level():
    with pytest.raises(ValueError, match=r"grid_anchors: `sizes` is of shape \(3,\)"):
        detection.grid_anchors([(4, 4)], [8], sizes=[(16, 20, 25)])
