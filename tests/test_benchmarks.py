"""What the benchmarks count and store; the counts themselves are no tests."""

import importlib
import inspect
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

import jaxloss

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def module(monkeypatch):
    """Imports one of benchmarks/."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


PROGRAM = """
%fused (p: f32[64]) -> f32[64] {
  %p = f32[64]{0} parameter(0)
  ROOT %n = f32[64]{0} negate(%p)
}

%body (x: f32[64]) -> f32[64] {
  %x = f32[64]{0} parameter(0)
  ROOT %f = f32[64]{0} fusion(%x), kind=kLoop, calls=%fused
}

ENTRY %main (a: f32[64], b: f32[8,21]) -> f32[64] {
  %a = f32[64]{0} parameter(0)
  %b = f32[8,21]{1,0:T(8,128)} parameter(1)
  %start = (f32[64]{0:S(1)}, f32[64]{0}, u32[]{:S(2)}) copy-start(%a)
  %near = f32[64]{0:S(1)} copy-done(%start)
  %sum = (f32[64]{0:S(1)}, /*index=1*/f32[2]{0}) fusion(%near, %b), kind=kLoop, calls=%fused
  ROOT %w = f32[64] while(%a), body=%body, backend_config={"known_trip_count":{"n":"5"}}
}
"""


def test_bytes_are_counted_in_loops_tiles_and_copies(module):
    """A loop five times, a copy into a TPU's own memory once, 8 x 21 numbers as 8 x 128."""
    kernels, moved = module("hlo").moved(PROGRAM)
    assert kernels == 5 + 1
    assert moved == 5 * (64 + 64) * 4 + 64 * 4 + (8 * 128 + 2) * 4


def test_bytes_of_a_compiled_program(module):
    """On a CPU too the text has the bytes of its one kernel."""
    x = jax.ShapeDtypeStruct((1000,), jnp.float32)
    compiled = jax.jit(lambda x: jnp.exp(x) + 1).lower(x).compile()
    assert module("hlo").moved(compiled.as_text()) == (1, 2 * 4000)


def test_files_with_cases_import_no_extra():
    """The benchmarks collect them, in an environment that has no Flax."""
    for path in (ROOT / "tests").glob("*/test_*.py"):
        assert not re.search(r"^\S.*importorskip", path.read_text(), re.MULTILINE), path


def test_every_loss_is_in_the_plan(module):
    programs = module("programs")
    planned = {key.loss for key in programs.plan(["h100"], everything=False)}
    losses = {
        name
        for name in jaxloss.__all__
        if "reduction" in inspect.signature(getattr(jaxloss, name)).parameters
    }
    own = {"linear_cross_entropy", "upsampled_cross_entropy", "upsampled_dice_cross_entropy"}
    assert losses - planned == own | {"skeleton_recall"}


@pytest.mark.parametrize(
    "form, classes, layout, shapes",
    [
        ("ids", 21, "last", [(8, 512, 512, 21), (8, 512, 512)]),
        ("masked", 4, "first", [(42, 4, 512, 512), (42, 512, 512), (42, 512, 512)]),
        ("dense", 1000, "last", [(1, 210, 210, 1000)] * 2),
        ("half", 2, "last", [(84, 512, 512, 2), (84, 512, 512)]),
        ("Optax", 21, "last", [(8, 512, 512, 21), (8, 512, 512)]),
    ],
)
def test_programs_of_a_loss(module, form, classes, layout, shapes):
    programs = module("programs")
    run, arguments = programs.program(programs.Key("h100", "cross_entropy", form, classes, layout))
    assert [a.shape for a in arguments] == shapes
    value, gradient = jax.eval_shape(run, *arguments)
    assert (value.shape, gradient.shape) == ((), shapes[0])
    assert (gradient.dtype == jnp.bfloat16) == (form == "half")


def test_arguments_are_read_twice_where_slopes_depend_on_other_positions(module):
    programs = module("programs")
    assert [programs.small(loss).passes for loss in ("l2", "scale_invariant_log")] == [1, 2]
    pair = jax.ShapeDtypeStruct((2, 3), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32)
    assert programs.floor(pair, 2) == 2 * (24 + 8) + 24


def test_rows_measured_anew_replace_the_old_ones(module, monkeypatch, tmp_path):
    results = module("results")
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    assert results.load("t") == []
    goodness = lambda row: -float(row["ratio"])
    rows = [{"loss": "a", "ratio": "1"}, {"loss": "b", "ratio": "3"}]
    results.store("t", ["loss"], rows, goodness)
    results.store("t", ["loss"], [{"loss": "a", "ratio": "2"}], goodness)
    assert results.load("t") == [{"loss": "b", "ratio": "3"}, {"loss": "a", "ratio": "2"}]


def test_tables_of_the_pages_are_those_of_the_results(module):
    """Otherwise run `./run bench tables`."""
    tables = module("tables")
    for name in tables.PAGES:
        page = (ROOT / name).read_text()
        assert tables.filled(page) == page, name
