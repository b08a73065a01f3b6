"""Lovasz-softmax, value and gradient: jaxloss beside segmentation-models-pytorch.

Run `python benchmarks/lovasz.py`. The peer is timed where it is installed, or in an environment of
its own if `--peer PYTHON` names that environment's Python. Each round times everybody once, so that
a busy machine is busy for all; the table shows the fastest of the rounds in seconds.
"""

import argparse
import importlib
import importlib.util
import subprocess
import sys
import time
import types

import numpy as np

ROUNDS = 5
SHAPE = (4, 512, 512, 21)


def data(present: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels that hold the first `present` classes."""
    generator = np.random.default_rng(0)
    logits = 2 * generator.normal(size=SHAPE).astype(np.float32)
    return logits, generator.integers(0, present, SHAPE[:-1])


def of_jaxloss(present: int):
    """The compiled loss on the default device."""
    import jax

    import jaxloss

    logits, labels = data(present)
    arguments = jax.device_put((logits, labels.astype(np.int32)))
    run = jax.jit(jax.value_and_grad(jaxloss.lovasz_softmax))
    return lambda: float(jax.block_until_ready(run(*arguments))[0])


def of_smp(present: int):
    """The peer's loss, on channels-first data and as many threads as it likes."""
    import torch

    name = "segmentation_models_pytorch"
    package = types.ModuleType(name)  # only its losses: the rest wants encoders
    package.__path__ = list(importlib.util.find_spec(name).submodule_search_locations)
    sys.modules[name] = package
    loss = importlib.import_module(f"{name}.losses").LovaszLoss("multiclass")
    logits, labels = data(present)
    logits = torch.tensor(logits.transpose(0, 3, 1, 2).copy(), requires_grad=True)
    labels = torch.tensor(labels)

    def call() -> float:
        value = loss(logits, labels)
        torch.autograd.grad(value, logits)
        return float(value.detach())

    return call


SIDES = {"jaxloss": of_jaxloss, "smp": of_smp}


def serve(side: str, present: int) -> None:
    """Times one call for each line of input."""
    call = SIDES[side](present)
    call()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        value = call()
        print(time.perf_counter() - start, value, flush=True)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", default=sys.executable, help="the Python of the peer")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], int(options.serve[1]))
        return
    pythons = {"jaxloss": sys.executable, "smp": options.peer}
    print(f"{SHAPE}, {ROUNDS} rounds, seconds")
    for present in (SHAPE[-1], 4):
        processes = {
            side: subprocess.Popen(
                [python, __file__, "--serve", side, str(present)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for side, python in pythons.items()
        }
        running = {k: p for k, p in processes.items() if p.stdout.readline().strip() == "ready"}
        answers = {side: [] for side in running}
        for _ in range(ROUNDS):
            for side, process in running.items():
                process.stdin.write("\n")
                process.stdin.flush()
                answers[side].append(tuple(map(float, process.stdout.readline().split())))
        for process in processes.values():
            process.stdin.close()
            process.wait()
        for side, answer in answers.items():
            seconds, value = min(answer)
            print(f"{present:3} classes present  {side:8} {seconds:6.2f}  loss {value:.6f}")


if __name__ == "__main__":
    main()
