"""Bad input of every head and assigner: errors while tracing that name the argument."""

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


def test_every_head_and_assigner_is_here():
    public = [n for n in dir(detection) if n.startswith("assign_")] + [
        *on_anchors.HEADS,
        *of_sets.HEADS,
    ]
    assert set(CALLS) == set(public)


def test_detr_has_a_query_for_each_box():
    call, _ = CALLS["detr"]
    slots = of_sets.QUERIES + 1
    many = jnp.ones((IMAGES, slots, 4)), jnp.zeros((IMAGES, slots), jnp.int32)
    with pytest.raises(ValueError, match=r"jaxloss\.detection\.detr: `boxes`.*at most"):
        jax.eval_shape(call, *many, jnp.ones((IMAGES, slots), bool))
