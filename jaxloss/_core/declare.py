"""How a loss becomes public: options of its family, one program for each structure, errors, help.

A loss is written as a function of arrays and of its family's options. `family` makes of it what
users call:

- Arrays and numbers are traced; all else (axes, names of options, None, a number that selects
  another formula) is structure. One `jax.jit` at module level holds the program of each structure,
  so that an eager call compiles once, and a new `gamma` nothing.
- Numbers that are known are checked before, others become NaN outside of their interval. All
  numbers come in the dtype in which the loss computes.
- The signature and the docstring show the options of the family, from `jaxloss.options`.
"""

import functools
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Callable, Hashable, Iterator
from typing import Annotated, Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxloss import options
from jaxloss._core import checks
from jaxloss.options import Interval, Option, Several

Loss = TypeVar("Loss", bound=Callable[..., Any])

_ORDER = (
    "activation",
    "axis",
    "where",
    "weights",
    "ignore_index",
    "background_index",
    "class_weights",
    "per_image",
    "include_background",
    "absent",
    "format",
    "reduction",
    "axis_name",
)
_KEYWORD = inspect.Parameter.KEYWORD_ONLY
_SECTIONS = ("Args", "Returns", "Raises", "Example", "Reference")
_WIDTH = 92


class Family(NamedTuple):
    """What the docstrings of a family share.

    Attributes:
      options: A `TypedDict` of `jaxloss.options`.
      data: The meaning of its positional arguments.
      returns: What its losses return.
      raises: When they raise.
    """

    options: Any
    data: dict[str, str]
    returns: str
    raises: dict[str, str]


class _Parameter(NamedTuple):
    """A parameter of a loss: how it is shown, and how its value goes into the program."""

    shown: inspect.Parameter
    meaning: str
    is_array: bool
    holds_several: bool
    interval: Interval | None
    choices: tuple[str, ...]
    may_be_none: bool
    is_flag: bool


class _Shown(str):
    """A type as the source names it."""

    def __repr__(self) -> str:
        return str(self)


def family(of: Family) -> Callable[[Loss], Loss]:
    """Makes a decorator that makes a function of arrays and options a public loss."""

    def declare(loss: Loss) -> Loss:
        parameters = _parameters(loss, of)
        signature = inspect.Signature([p.shown for p in parameters.values()])
        name = checks.public(loss)
        first = next(iter(parameters))

        def program(traced: dict[str, Any], fixed: tuple[tuple[str, type, Any], ...]) -> Any:
            dtype = _dtype(next(iter(jax.tree.leaves(traced[first])), 0.0))
            numbers = {
                key: checks.number(key, value, dtype, interval.bounds)
                for key, value in traced.items()
                if (interval := parameters[key].interval) is not None and value is not None
            }
            return loss(**traced | numbers, **{key: value for key, _, value in fixed})

        program.__name__ = program.__qualname__ = name
        compiled = jax.jit(program, static_argnums=1)

        @functools.wraps(loss)
        def call(*args: Any, **given: Any) -> Any:
            try:
                return compiled(*_sorted(parameters, checks.bound(signature, args, given)))
            except checks.Refusal as refusal:
                raise refusal.by(name) from None

        call.__signature__ = signature  # type: ignore[attr-defined]
        if loss.__doc__ is not None:  # python -OO
            call.__doc__ = _document(loss.__doc__, parameters, of)
        return typing.cast(Loss, call)

    return declare


def _sorted(
    parameters: dict[str, _Parameter], values: dict[str, Any]
) -> tuple[dict[str, Any], tuple[tuple[str, type, Any], ...]]:
    """Sorts the values into what is traced and what is structure, each of which has its type."""
    traced: dict[str, Any] = {}
    fixed: list[tuple[str, type, Any]] = []
    dtype = getattr(values[next(iter(parameters))], "dtype", np.dtype(np.float32))
    dtype = dtype if dtype in (np.float32, np.float64) else np.dtype(np.float32)
    for key, parameter in parameters.items():
        value = values[key]
        if isinstance(value, str) and parameter.choices:
            if parameter.is_array:
                checks.option(key, value, parameter.choices)
            fixed.append((key, str, value))
            continue
        if parameter.interval is not None and value is not None:
            value = _number(key, values, parameter.interval, dtype)
        elif parameter.is_array and value is not None:
            convert = functools.partial(_array, key)
            value = jax.tree.map(convert, value) if parameter.holds_several else convert(value)
        elif not parameter.is_array:
            value = _structure(key, value, parameter)
        if value is None and not parameter.may_be_none:
            choices = " or ".join(map(repr, parameter.choices)) or "a value"
            checks.fail(TypeError, key, None, "an array" if parameter.is_array else choices)
        if isinstance(value, _Exact):
            fixed.append((key, _Exact, value or None))
        elif parameter.is_array:
            traced[key] = value
        else:
            fixed.append((key, type(value), _hashable(key, value)))
    return traced, tuple(fixed)


def _structure(key: str, value: Any, parameter: _Parameter) -> Any:
    """A value that is not traced; one that is True or False is nothing else, "False" neither."""
    if isinstance(value, (np.ndarray, np.bool_)) and value.ndim == 0:
        value = value.item()
    given = isinstance(value, (bool, jax.Array)) or (value is None and parameter.may_be_none)
    if parameter.is_flag and not given:
        expected = ["True", "False", *map(repr, parameter.choices)]
        checks.fail(ValueError, key, repr(value), " or ".join(expected))
    return value


class _Exact(float):
    """A number that selects a formula."""


def _number(key: str, values: dict[str, Any], interval: Interval, dtype: Any) -> Any:
    """A hyper-parameter, checked as far as it is known; a list of numbers in the given dtype."""
    value = values[key]
    if isinstance(value, (list, tuple)):
        value = jnp.asarray(value) if any(map(checks.is_array, value)) else np.asarray(value)
        if value.dtype.kind == "f":
            value = value.astype(dtype)
    checks.interval(key, value, interval.bounds)
    if interval.some:
        checks.some_above_0(key, value)
    if interval.scalar:
        checks.scalar(key, value)
    if interval.most is not None:
        checks.ordered(key, value, interval.most, values)
    if isinstance(value, (int, float)) and value in interval.exact:
        return _Exact(value)
    return jnp.asarray(value) if isinstance(value, (np.ndarray, np.generic)) else value


def _array(key: str, value: Any) -> Any:
    """An array of JAX.

    One of NumPy that a program around this one holds would keep its dtype there, which `jax.jit`
    does not expect.
    """
    if isinstance(value, jax.Array):
        return value
    if isinstance(value, tuple) and any(checks.is_array(part) and part.ndim for part in value):
        checks.fail(TypeError, key, f"a tuple of {len(value)}", "an array: is it one of them?")
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError):
        got = repr(value) if isinstance(value, str) else f"a {type(value).__name__}"
        checks.fail(TypeError, key, got, "an array")


def _hashable(key: str, value: Any) -> Hashable:
    if isinstance(value, (list, tuple, np.ndarray)):
        value = tuple(_hashable(key, part) for part in value)
    try:
        hash(value)
    except TypeError:
        if isinstance(value, jax.Array):
            if isinstance(value, jax.core.Tracer):
                expected = "a Python value: bind it with functools.partial outside of `jax.jit`"
            else:
                expected = "a Python value, as `.item()` gives"
            checks.fail(TypeError, key, "an array", expected)
        checks.fail(TypeError, key, f"a {type(value).__name__}", "a value that does not change")
    return value


def _dtype(prediction: Any) -> Any:
    """The dtype in which a loss of this prediction computes."""
    array = jnp.asarray(prediction)
    is_floating = jnp.issubdtype(array.dtype, jnp.floating)
    return checks.compute_dtype(array) if is_floating else jnp.float32


# What a loss's parameters are: from its signature and from the options of its family.


def _parameters(loss: Callable[..., Any], of: Family) -> dict[str, _Parameter]:
    """The parameters of a loss, its own first; those that other losses share in their order."""
    hints = typing.get_type_hints(loss, include_extras=True)
    own = {
        name: _parameter(p.replace(annotation=_Shown(p.annotation)), hints[name], of)
        for name, p in inspect.signature(loss).parameters.items()
        if p.kind is not inspect.Parameter.VAR_KEYWORD
    }
    shared = {name: _of_option(name, *found, of) for name, found in _options(of.options).items()}
    both = own | {name: p for name, p in shared.items() if name not in own}
    ordered = [*(n for n in both if n not in _ORDER), *(n for n in _ORDER if n in both)]
    return {name: both[name] for name in ordered}


def _options(of: Any) -> dict[str, tuple[str, Any, Option]]:
    """Name, written type, type and option of a `TypedDict`."""
    found = {}
    hints = typing.get_type_hints(of, vars(options), include_extras=True)
    for name, hint in hints.items():
        written = of.__annotations__[name].__forward_arg__
        match = re.match(r"Annotated\[(.*?),\s*Option\(", written, re.DOTALL)
        assert match is not None
        found[name] = (match[1], hint.__origin__, hint.__metadata__[-1])
    return found


def _of_option(name: str, written: str, hint: Any, option: Option, of: Family) -> _Parameter:
    shown = inspect.Parameter(name, _KEYWORD, default=option.default, annotation=_Shown(written))
    return _parameter(shown, hint, of)._replace(meaning=of.data.get(name) or option.meaning)


@functools.cache
def _meanings() -> dict[str, str]:
    """The meaning of each option that several losses have."""
    families = (getattr(options, name) for name in options.__all__)
    return {
        name: option.meaning
        for of in families
        if typing.is_typeddict(of)
        for name, (_, _, option) in _options(of).items()
    }


def _parameter(shown: inspect.Parameter, hint: Any, of: Family) -> _Parameter:
    parts = list(_alternatives(hint))
    intervals = [p for p in parts if isinstance(p, Interval)]
    return _Parameter(
        shown=shown,
        meaning=of.data.get(shown.name) or _meanings().get(shown.name, ""),
        is_array=jax.Array in parts or Several in parts,
        holds_several=Several in parts,
        interval=intervals[0] if intervals else None,
        choices=tuple(part for part in parts if isinstance(part, str)),
        may_be_none=type(None) in parts,
        is_flag=bool in parts and jax.Array not in parts,  # numbers may be booleans, too
    )


def _alternatives(hint: Any) -> Iterator[Any]:
    """The types that a hint allows, and what annotates them."""
    if typing.get_origin(hint) is Annotated:
        yield from hint.__metadata__
        yield from _alternatives(hint.__origin__)
    elif typing.get_origin(hint) is typing.Literal:
        yield from typing.get_args(hint)
    elif typing.get_origin(hint) in (typing.Union, types.UnionType):
        for part in typing.get_args(hint):
            yield from _alternatives(part)
    else:
        yield hint


# The docstring: what the loss says itself, and what its family says of the rest.


def _document(text: str, parameters: dict[str, _Parameter], of: Family) -> str:
    """Completes the docstring of a loss."""
    head, sections = _split(inspect.cleandoc(text))
    said = _entries(sections.get("Args", ""))
    lines = [said.get(name) or _entry(name, p.meaning) for name, p in parameters.items()]
    sections["Args"] = "\n".join(lines)
    sections.setdefault("Returns", textwrap.indent(textwrap.fill(of.returns, _WIDTH), "  "))
    raises = {name: _entry(name, text) for name, text in of.raises.items()}
    sections["Raises"] = "\n".join((raises | _entries(sections.get("Raises", ""))).values())
    body = "\n\n".join(f"{name}:\n{sections[name]}" for name in _SECTIONS if name in sections)
    return f"{head}\n\n{body}\n"


def _split(text: str) -> tuple[str, dict[str, str]]:
    """Returns what stands before the sections, and each section's lines."""
    names = "|".join(_SECTIONS)
    head, *rest = re.split(rf"^({names}):\n", text, flags=re.MULTILINE)
    pairs = zip(rest[::2], rest[1::2], strict=True)
    return head.strip(), {name: body.rstrip() for name, body in pairs}


def _entries(section: str) -> dict[str, str]:
    """The entries of a section by their names; `**options` stands for those of the family."""
    entries = re.split(r"\n(?=  \S)", section) if section else []
    return {entry.split(":")[0].strip(): entry.rstrip() for entry in entries}


def _entry(name: str, meaning: str) -> str:
    lines = textwrap.wrap(f"{name}: {meaning}", _WIDTH - 2, break_on_hyphens=False)
    return "\n".join(("  " if i == 0 else "    ") + line for i, line in enumerate(lines))
