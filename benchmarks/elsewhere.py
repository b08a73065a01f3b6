"""PyTorch's side of a contest in a process of another interpreter, where ours has no PyTorch.

Both run in turn as programs of one process would: while one computes the other waits. Each tells
its own times, so that those of messages are in none.
"""

import contextlib
import functools
import multiprocessing
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

SCRIPT = pathlib.Path(__file__).with_name("speed.py")


@contextlib.contextmanager
def asked(python: str, peers: list[str]) -> Iterator[Callable[..., Any]]:
    """Starts `speed.py --serve` with another interpreter; gives `ask(what, *arguments)`."""
    ours, theirs = multiprocessing.Pipe()
    with ours:
        with theirs:
            place = theirs.fileno()
            command = [python, str(SCRIPT), "--serve", str(place), "--peers", *peers]
            worker = subprocess.Popen(command, pass_fds=[place])
        try:
            yield functools.partial(_ask, ours)
        finally:
            worker.terminate()
            worker.wait()


def _ask(connection: Connection, what: str, *arguments: Any) -> Any:
    try:
        connection.send((what, arguments))
        failed, answer = connection.recv()
    except (EOFError, BrokenPipeError):
        raise ChildProcessError("its process has ended, for a reason that stands above") from None
    if failed:
        raise RuntimeError(answer)
    return answer


def serve(place: int, answers: dict[str, Callable[..., Any]]) -> None:
    """Answers what the other process asks, `answers[what](*arguments)`, until it has gone."""
    with Connection(place) as connection:
        while True:
            try:
                what, arguments = connection.recv()
            except EOFError:
                sys.exit()
            try:
                connection.send((False, answers[what](*arguments)))
            except Exception as error:  # noqa: BLE001 - it is told where it was asked
                connection.send((True, repr(error)))
