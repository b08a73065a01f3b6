"""Reports under every transform, on meshes and of large arrays."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxloss
from jaxloss._validation import _report
from tests.compiling import usual_jit
from tests.validation.arrays import BAD, BATCH, IDS, LOGITS, NAN, X, normal, put, sharded


def test_vmap_counts_each_call():
    report = jax.jit(jax.vmap(functools.partial(jaxloss.validate, "focal")))(LOGITS, BAD)
    np.testing.assert_array_equal(report.ok, np.arange(8) != 5)
    with pytest.raises(ValueError, match=r"is 9 at index \(1,\) of call \(5,\) \(1 bad value\)"):
        report.throw()


def test_scan_and_derivatives_carry_reports():
    @jax.jit
    def run(pairs):
        def step(scale, pair):
            def loss(scale):
                x, ids = pair
                x = x * scale
                return jaxloss.focal(x, ids, where=ids < 4), jaxloss.validate("focal", x, ids)

            (_, report), gradient = jax.value_and_grad(loss, has_aux=True)(scale)
            return scale - gradient, report

        return jax.lax.scan(step, jnp.float32(1), pairs)

    scale, report = run((LOGITS, BAD))
    assert jnp.isfinite(scale)
    assert "is 9 at index (1,) of call (5,)" in str(report)


def test_shard_map_counts_globally():
    """Also numbers that every shard holds, which count once."""
    weights = np.float32([1, 1, -1, -1])
    report = sharded("batch", class_weights=jnp.asarray(weights))(LOGITS, BAD)
    assert "`labels` is 9 at index (1, 1) of shard 2 (1 bad value)" in str(report)
    weights = next(f for f in report.findings if f.argument == "class_weights")
    assert (weights.count, weights.index, weights.shard) == (2, 2, 0)
    report = sharded("batch")(put(LOGITS, (7, 0, 0), NAN), np.where(BAD == 0, -1, BAD))
    assert (report.findings[0].count, report.findings[0].shard) == (1, 3)
    assert "`labels` is -1 at index (0, 0) of shard 0 (the first of 24 bad values)" in str(report)
    assert sharded("batch")(LOGITS, BAD * 0).ok


def test_shard_map_without_a_name_reports_of_each_shard():
    each = lambda report: jax.tree.map(lambda x: x[None], report)
    report = sharded(None, each, BATCH)(LOGITS, BAD)
    np.testing.assert_array_equal(report.ok, [True, True, False, True])
    assert "is 9 at index (1, 1) of call (2,)" in str(report)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("spec", [("batch",), (None, None, "batch")], ids=str)
def test_mesh(kind, spec):
    """A maximum over devices drops a NaN: reductions here must not."""
    targets = put(LOGITS, (3, 2, 1), NAN)
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        place = NamedSharding(mesh, PartitionSpec(*spec))
        pair = jax.device_put((LOGITS, targets), place)
        report = jax.jit(functools.partial(jaxloss.validate, "l1"))(*pair, weights=LOGITS**2)
    assert str(report).startswith("jaxloss.l1: `targets` is nan at index (3, 2, 1) (1 bad value)")
    assert report.count == 1


def test_export_and_no_callback():
    run = jax.jit(lambda *pair: jax.tree.leaves(jaxloss.validate("focal", *pair)))
    assert "callback" not in str(jax.make_jaxpr(run)(LOGITS, BAD))
    exported = jax.export.export(run, platforms=("cpu", "cuda", "rocm", "tpu"))(LOGITS, BAD)
    assert [x.tolist() for x in exported.call(LOGITS, BAD)] == [
        x.tolist() for x in run(LOGITS, BAD)
    ]


def test_half_precision_and_x64():
    logits = jnp.full((2, 3, 4), 6e4, jnp.float16)  # whose sum overflows
    assert jaxloss.validate("focal", logits, IDS).ok
    with jax.enable_x64(True):
        report = jaxloss.validate("l2", X, put(X, (1, 2, 3), NAN).astype(np.float64))
        assert "`targets` is nan at index (1, 2, 3)" in str(report)
        assert {x.dtype for x in jax.tree.leaves(report.findings[0])} == {
            np.dtype(np.float32),
            np.dtype(np.int32),
        }


def test_arrays_too_large_for_one_index(monkeypatch):
    """Rows are then indexed apart; here 20 elements count as too many."""
    monkeypatch.setattr(_report, "_LIMIT", 20)
    shape = (5, 2, 2, 3)
    report = jaxloss.validate("l1", np.zeros(shape, np.float32), normal(shape, nan=(3, 1, 0, 2)))
    assert "`targets` is nan at index (3, 1, 0, 2) (1 bad value)" in str(report)
    report = jaxloss.validate("l1", np.full(shape, NAN, np.float32), np.zeros(shape))
    assert "`predictions` is nan at index (0, 0, 0, 0) (the first of 20 bad" in str(report)


@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy", "nll"])
def test_checks_store_nothing(name):
    shapes = [jax.ShapeDtypeStruct((4, 64, 64, 21), jnp.float32)]
    shapes.append(jax.ShapeDtypeStruct((4, 64, 64), jnp.int32))
    run = usual_jit(functools.partial(jaxloss.validate, name))
    memory = run.lower(*shapes).compile().memory_analysis().temp_size_in_bytes
    assert memory < 0.02 * 4 * np.prod(shapes[0].shape)
