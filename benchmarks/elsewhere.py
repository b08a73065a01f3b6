"""PyTorch's side of a contest in a process of another interpreter, where ours has no PyTorch.

Both run in turn as programs of one process would: while one computes the other waits. Each tells
its own times, so that those of messages are in none.
"""

import contextlib
import functools
import multiprocessing.connection
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

SCRIPT = pathlib.Path(__file__).with_name("speed.py")


@contextlib.contextmanager
def asked(python: str, peers: list[str]) -> Iterator[Callable[..., Any]]:
    """Starts `speed.py --serve` with another interpreter; gives `ask(what, *arguments)`."""
    with multiprocessing.connection.Listener() as listener:
        address = ["--serve", str(listener.address)]
        worker = subprocess.Popen([python, str(SCRIPT), *address, "--peers", *peers])
        try:
            with listener.accept() as connection:
                yield functools.partial(_ask, connection)
        finally:
            worker.terminate()
            worker.wait()


def _ask(connection: multiprocessing.connection.Connection, what: str, *arguments: Any) -> Any:
    connection.send((what, arguments))
    failed, answer = connection.recv()
    if failed:
        raise RuntimeError(answer)
    return answer


def serve(address: str, answers: dict[str, Callable[..., Any]]) -> None:
    """Answers what the other process asks, `answers[what](*arguments)`, until it has gone."""
    with multiprocessing.connection.Client(address) as connection:
        while True:
            try:
                what, arguments = connection.recv()
            except EOFError:
                sys.exit()
            try:
                connection.send((False, answers[what](*arguments)))
            except Exception as error:  # noqa: BLE001 - it is told where it was asked
                connection.send((True, repr(error)))
