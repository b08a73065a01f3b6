"""One program on many devices: the same numbers, masks that stay exact, and the recipes of a page.

The fake devices are those of `conftest.py`. That every loss is right under `shard_map` with
replicated parameters and on a mesh with Explicit axes is tested with the other promises of each
loss, in `test_contract.py`; what the devices tell each other in `test_exchanges.py`.
"""

import functools
import json
import os
import pathlib
import re
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxloss
from tests import two_processes
from tests.compiling import quick_jit
from tests.devices import BATCH, CLASSES, DEVICES, SIDE, batch_mesh, segmentation


def _recipe(name):
    """What the code block of docs/scale.md that defines a name defines."""
    page = (pathlib.Path(__file__).parents[1] / "docs" / "scale.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (block,) = (block for block in blocks if f"def {name}(" in block)
    found = {}
    exec(compile(block, "docs/scale.md", "exec"), found)
    return found[name]


# The same numbers on one device and on many.

LOSSES = {
    "boundary": jaxloss.boundary,
    "cross_entropy, ignored": functools.partial(jaxloss.cross_entropy, ignore_index=2),
    "dice": jaxloss.dice,
    "dice, pooled": functools.partial(jaxloss.dice, per_image=False),
    "dice_cross_entropy": functools.partial(jaxloss.dice_cross_entropy, ignore_index=2),
    "focal": jaxloss.focal,
    "giou": jaxloss.giou,
    "lovasz_softmax": functools.partial(jaxloss.lovasz_softmax, per_image=True),
}


def _boxes(seed=0):
    corners, sizes = np.random.default_rng(seed).uniform(0, 4, (2, 2, BATCH, 2))
    return tuple(np.concatenate([corners, corners + sizes], -1).astype(np.float32))


@functools.cache
def _all_losses(kind):
    """Value and gradient of all losses in one program; `None`: on one device."""
    data = {name: _boxes() if name == "giou" else segmentation() for name in LOSSES}

    def run(data):
        return {name: jax.value_and_grad(LOSSES[name])(*pair) for name, pair in data.items()}

    if kind is None:
        return jax.device_get(quick_jit(run)(data))
    mesh = batch_mesh(kind)
    sharding = NamedSharding(mesh, PartitionSpec("batch"))
    with jax.set_mesh(mesh):
        results = quick_jit(run)(jax.device_put(data, sharding))
    for _, gradient in results.values():
        assert gradient.sharding.is_equivalent_to(sharding, gradient.ndim)
    return jax.device_get(results)


@pytest.mark.parametrize(
    "kind", [AxisType.Auto, pytest.param(AxisType.Explicit, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", LOSSES)
def test_many_devices_give_the_numbers_of_one(name, kind):
    value, gradient = _all_losses(kind)[name]
    expected, slopes = _all_losses(None)[name]
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("apart", ["logits", "labels", "where"])
@pytest.mark.parametrize("name", ["binary_cross_entropy", "cross_entropy", "dice"])
def test_one_argument_that_lies_apart_on_a_mesh_with_explicit_axes(name, apart):
    """Whole on every device, where the others are shared; in sizes that a CPU takes in chunks."""
    rng = np.random.default_rng(0)
    shape = (BATCH, SIDE, SIDE, CLASSES)
    data = {
        "logits": rng.normal(size=shape).astype(np.float32),
        "labels": rng.integers(0, CLASSES, shape[:-1]).astype(np.int32),
        "where": rng.random(shape[:-1]) < 0.7,
    }
    run = quick_jit(jax.value_and_grad(lambda x, y, m: getattr(jaxloss, name)(x, y, where=m)))
    expected, slopes = run(*data.values())
    mesh = batch_mesh(AxisType.Explicit)
    with jax.set_mesh(mesh):
        value, gradient = run(
            *(
                jax.device_put(
                    x, NamedSharding(mesh, PartitionSpec(None if n == apart else "batch"))
                )
                for n, x in data.items()
            )
        )
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-4, atol=1e-9)


@jax.jit
def _train(parameters, images, labels):
    """Five steps of a small network: its parameters after them and the loss before each."""

    def loss(parameters):
        hidden = jnp.tanh(jnp.einsum("bhwc,cd->bhwd", images, parameters["hidden"]))
        logits = jnp.einsum("bhwc,cd->bhwd", hidden, parameters["head"])
        return jaxloss.dice_cross_entropy(logits, labels, ignore_index=255)

    def step(parameters, _):
        value, gradient = jax.value_and_grad(loss)(parameters)
        return jax.tree.map(lambda p, g: p - 0.5 * g, parameters, gradient), value

    return jax.lax.scan(step, parameters, length=5)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_a_training_on_many_devices_takes_the_same_steps(kind):
    """Parameters replicated, batch shared; some images have no valid pixel."""
    images, labels = segmentation(1)
    labels[::3] = 255
    parameters = {"hidden": np.eye(5, 7), "head": np.ones((7, 5)) - 2 * np.eye(7, 5)}
    parameters = {name: x.astype(np.float32) for name, x in parameters.items()}
    expected, alone = _train(parameters, images, labels)
    if kind == AxisType.Auto:
        placed, data = _recipe("share")(parameters, (images, labels))
        found, shared = _train(placed, *data)
    else:
        mesh = batch_mesh(kind)
        with jax.set_mesh(mesh):
            data = jax.device_put((images, labels), NamedSharding(mesh, PartitionSpec("batch")))
            placed = jax.device_put(parameters, NamedSharding(mesh, PartitionSpec()))
            found, shared = _train(placed, *data)
    assert alone[-1] < 0.9 * alone[0]
    np.testing.assert_allclose(shared, alone, rtol=1e-5)
    for name, parameter in expected.items():
        np.testing.assert_allclose(found[name], parameter, rtol=1e-5, atol=1e-6)


def test_two_processes_give_the_numbers_of_one():
    """Each sees its own half of the batch, or of an image's rows; gloo carries what they tell."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    program = [sys.executable, two_processes.__file__, address]
    path = f"{pathlib.Path(__file__).parents[1]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    variables = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
    processes = [
        subprocess.Popen([*program, str(i)], env=variables, stdout=-1, stderr=-1, text=True)
        for i in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    expected = two_processes.run(*two_processes.batch())
    expected["split image"] = two_processes.train(*two_processes.split_image())
    expected = jax.device_get(expected)
    for process, (out, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors
        found = json.loads(out.splitlines()[-1])
        assert found.keys() == expected.keys()
        for name, (value, array) in expected.items():
            np.testing.assert_allclose(found[name][0], value, rtol=1e-5)
            np.testing.assert_allclose(found[name][1], array, rtol=1e-5, atol=1e-7)


# `axis_name`, with the checks of the default `shard_map` and without.


def _uneven():
    """A batch whose valid pixels are spread so unevenly that a mean of means is wrong."""
    logits, labels = segmentation(2)
    where = np.random.default_rng(3).random(labels.shape) < np.linspace(0, 1, BATCH)[:, None, None]
    return logits, labels, where


NAMED = {
    "cross_entropy": jaxloss.cross_entropy,
    "dice": jaxloss.dice,
    "dice, pooled": functools.partial(jaxloss.dice, per_image=False),
}


def _objective(scales, batch, **options):
    """The sum of all losses, each of logits times a factor of its own for each class."""
    logits, labels, where = batch
    return sum(
        loss(logits * scales[name], labels, where=where, **options) for name, loss in NAMED.items()
    )


@functools.cache
def _by_parameters(form):
    """Value and gradient by factors that all devices hold, with a recipe of the page."""
    factors = np.linspace(0.5, 1.5, 5, dtype=np.float32).reshape(1, 1, 1, 5)
    scales, batch = dict.fromkeys(NAMED, factors), _uneven()
    if form is None:
        return jax.jit(jax.value_and_grad(_objective))(scales, batch)
    named = functools.partial(_objective, axis_name="batch")
    if form == "in_pmap":
        shares = tuple(x.reshape(DEVICES, -1, *x.shape[1:]) for x in batch)
        return jax.tree.map(lambda x: x[0], _recipe(form)(named)(scales, shares))
    return _recipe(form)(named, batch_mesh())(scales, batch)


@pytest.mark.parametrize("form", ["in_shard_map", "in_unchecked_shard_map", "in_pmap"])
def test_axis_name_makes_masked_means_and_pooled_sums_exact(form):
    value, gradient = _by_parameters(form)
    expected, slopes = _by_parameters(None)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for name, slope in slopes.items():
        np.testing.assert_allclose(gradient[name], slope, rtol=1e-5, atol=1e-7, err_msg=name)


SHARED = {
    "binary_cross_entropy": jaxloss.binary_cross_entropy,
    "cross_entropy": jaxloss.cross_entropy,
    "dice, pooled": functools.partial(jaxloss.dice, per_image=False),
    "giou": jaxloss.giou,
}


@pytest.mark.parametrize("name", SHARED)
def test_gradients_by_arrays_that_all_devices_hold(name):
    """Every device compares its own part with the same targets: their gradient is counted once."""
    loss, mesh = SHARED[name], batch_mesh()
    apart, whole = PartitionSpec("batch"), PartitionSpec()
    x = _boxes()[0].reshape(BATCH, 1, 4) if name == "giou" else segmentation()[0]
    y = x[:1] + 0.5 if name == "giou" else jax.nn.softmax(x[:1])

    def alone(x, y):
        return loss(x, jnp.concatenate([y] * BATCH))

    run = jax.shard_map(
        lambda x, y: loss(x, y, axis_name="batch"),
        mesh=mesh,
        in_specs=(apart, whole),
        out_specs=whole,
    )
    expected = jax.jit(jax.grad(alone, (0, 1)))(x, y)
    for found, right in zip(jax.jit(jax.grad(run, (0, 1)))(x, y), expected, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-7)


def test_recipes_of_split_images_give_the_numbers_of_one_device():
    rng = np.random.default_rng(7)
    logits = rng.normal(size=(1, 64, 9, 2)).astype(np.float32)
    labels = np.sort(rng.random(logits.shape) < 0.6, 1)
    run = quick_jit(jax.value_and_grad(jaxloss.boundary))
    value, slope = run(logits, labels)
    split = run(*_recipe("share_rows")({}, (logits, labels))[1])
    mesh = jax.make_mesh((DEVICES,), ("rows",), axis_types=(AxisType.Auto,))
    mapped = functools.partial(_recipe("boundary_in_shard_map"), mesh=mesh)
    for found in (split, quick_jit(jax.value_and_grad(mapped))(logits, labels.astype(np.float32))):
        np.testing.assert_allclose(found[0], value, rtol=1e-5)
        np.testing.assert_allclose(found[1], slope, rtol=1e-5, atol=1e-7)
