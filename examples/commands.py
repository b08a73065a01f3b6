"""The command-line options that the examples share."""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

import losses


def make_parser(doc: str, **defaults: Any) -> argparse.ArgumentParser:
    """Returns a parser of the options that every training has, described by a docstring."""
    parser = argparse.ArgumentParser(
        description=doc.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--steps", type=int, help="updates of the network")
    add("--batch", type=int, help="images in an update")
    add("--seed", type=int, default=0, help="of the data, the network and the batches")
    add("--devices", type=int, default=1, help="that share each batch, on a CPU fake ones")
    add("--output", type=pathlib.Path, default="output", help="folder of the results")
    parser.set_defaults(**defaults)
    return parser


def add_loss(parser: argparse.ArgumentParser, families: tuple[str, ...], **settings: Any) -> None:
    """Adds `--loss`, which takes the name of any loss of these families."""
    names = {family: losses.in_family(family) for family in families}
    parser.epilog = "Losses. " + " ".join(f"{f}: {', '.join(names[f])}." for f in families)
    known = [name for of_family in names.values() for name in of_family]
    parser.add_argument("--loss", choices=known, metavar="NAME", **settings)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--option`, which may be repeated."""
    parser.add_argument(
        "--option",
        dest="options",
        type=_option,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the loss: gamma=3, class_weights=[1,2] or, evenly over the training, alpha=1..0.1",
    )


def add_scenes(parser: argparse.ArgumentParser, *, size: int | None = 64) -> None:
    """Adds how many scenes of digits there are, and how large they are."""
    parser.add_argument("--scenes", type=int, default=4000, help="training scenes to compose")
    parser.add_argument("--size", type=int, default=size, help="side of a scene, a multiple of 16")


def check_size(parser: argparse.ArgumentParser, size: int) -> None:
    """Refuses sides that the networks cannot halve four times."""
    if size < 16 or size % 16:
        parser.error(f"argument --size: {size} is not a multiple of 16")


def check_devices(
    parser: argparse.ArgumentParser, devices: int, shared: int, name: str = "batch"
) -> None:
    """Refuses devices that do not share a batch, or another length, equally."""
    if devices < 1 or shared % devices:
        parser.error(
            f"argument --devices: a {name} of {shared} cannot be shared equally among {devices} "
            "devices"
        )


def _option(text: str) -> tuple[str, Any]:
    name, given, value = text.partition("=")
    if not given:
        raise argparse.ArgumentTypeError(f"{text} has no value; it is NAME=VALUE")
    return name, losses.read_value(value)
