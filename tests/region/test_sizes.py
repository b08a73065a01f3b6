"""Images of no size and of more pixels than 32 bits count, in the region and boundary losses."""

import functools
import inspect

import jax
import jax.numpy as jnp
import pytest

import jaxloss

FAMILIES = {**vars(jaxloss._region), **vars(jaxloss._boundary)}
LOSSES = {name for name, public in FAMILIES.items() if inspect.isfunction(public)}
SEGMENTATIONS = sorted(LOSSES - {"soft_skeleton", "ssim", "ms_ssim"})


def _with_arguments(name):
    """The loss of two classes, and whether its target has the shape of the prediction."""
    loss = getattr(jaxloss, name)
    if name == "generalized_wasserstein_dice":
        loss = functools.partial(loss, distances=jnp.ones((2, 2)))
    if name == "skeleton_recall":
        loss = _on_labels
    return jax.value_and_grad(loss), name == "signed_distance_regression"


def _on_labels(logits, labels):
    return jaxloss.skeleton_recall(logits, labels, skeleton=labels)


@pytest.mark.rows(6)
@pytest.mark.parametrize("name", SEGMENTATIONS)
def test_images_without_pixels_cost_nothing(name):
    """Of a map without rows even the neighbours have none."""
    run, is_dense = _with_arguments(name)
    for shape in ((2, 0, 4, 2), (2, 0, 2)):
        x = jnp.zeros(shape)
        value, gradient = run(x, x if is_dense else jnp.zeros(shape[:-1], jnp.int32))
        assert value == 0
        assert gradient.shape == shape


def test_ssim_says_that_an_image_is_smaller_than_its_window():
    x = jnp.zeros((2, 0, 4, 2))
    with pytest.raises(ValueError, match="`window` is 11, expected odd and at most 0"):
        jaxloss.ssim(x, x)


@pytest.mark.parametrize("name", SEGMENTATIONS)
def test_more_than_2_31_pixels_can_be_traced(name):
    """In all, and in one image."""
    run, is_dense = _with_arguments(name)
    for shape in ((8200, 512, 512, 2), (1, 50_000, 50_000, 2)):
        x = jax.ShapeDtypeStruct(shape, jnp.float32)
        labels = x if is_dense else jax.ShapeDtypeStruct(shape[:-1], jnp.int32)
        value, gradient = jax.eval_shape(run, x, labels)
        assert value.shape == ()
        assert gradient.shape == shape
