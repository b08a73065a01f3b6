"""What compiled programs move and hold: value and gradient of every loss, without a device.

    ./run bench compiled                        # what is not in the table yet, of the whole plan
    ./run bench compiled --again --losses dice  # and what is: rows that are measured replace it

The compiler counts, so all but the seconds repeat exactly. A row is a program, for an NVIDIA H100,
a TPU v5e or this machine's CPU, float32; `L` is the bytes of its prediction:

- kernels, and the bytes that they read and write in the device's memory, over L (not on a CPU);
- floor: the least that a program must move, over L. It reads every argument once, and writes the
  gradient once; it reads all of them twice where the slope at one position depends on predictions
  at others (a sum, a rank, a neighbour; the losses are tried out). Ratio: bytes over floor;
- temporary memory over L;
- seconds: processor time of tracing and compiling that program; on the CPU, that of value and
  gradient of a few numbers, the sample of the tests.

Some losses at 2 to 1,000 classes on the last axis and on the second; every loss at 21 classes on
the last, the distance maps, and losses of Optax and of plain JAX; some on ids with a mask (`where`)
or label smoothing, on targets in the prediction's shape, and of a prediction in bfloat16. `--all`
adds every loss at all class counts. Losses whose logits never exist stand in `fused.py`. The table
is results/compiled.csv, the worst ratio first, written as it grows.
"""

import argparse
from typing import Any

import deviceless
import hlo
import jax
import programs
import results
from programs import Key

NUMBERS = ("kernels", "bytes", "floor", "ratio", "temporary", "seconds")
DEVICES = {"h100": deviceless.h100, "v5e": deviceless.v5e, "cpu": lambda: [None]}
COMPILERS = {"h100": ["jax-cuda12-plugin"], "v5e": ["libtpu"], "cpu": []}


def measured(key: Key, device: Any) -> results.Row:
    """Compiles one program and counts."""
    function, arguments = programs.program(key)
    start = programs.processor_seconds()
    done = deviceless.compiled(function, arguments, device)
    seconds = programs.processor_seconds() - start
    size = programs.floor(arguments[:1], 0)
    row: results.Row = {"temporary": done.memory_analysis().temp_size_in_bytes / size}
    if device is None:
        return row | {"seconds": seconds if key.form == "map" else programs.small(key.loss).seconds}
    passes = 1 if key.form == "map" else programs.small(key.loss).passes
    kernels, total = hlo.moved(done.as_text())
    floor = programs.floor(arguments, passes)
    row |= {"kernels": kernels, "bytes": total / size, "floor": floor / size}
    return row | {"ratio": total / floor, "seconds": seconds}


def chosen() -> list[Key]:
    """The rows that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", nargs="+", choices=DEVICES, default=list(DEVICES))
    parser.add_argument("--losses", nargs="+", metavar="NAME", help="these losses and maps only")
    parser.add_argument("--classes", nargs="+", type=int, metavar="N", help="these counts only")
    parser.add_argument("--all", action="store_true", help="every loss at every class count")
    parser.add_argument("--again", action="store_true", help="rows of the table too")
    options = parser.parse_args()
    stored = [] if options.again else results.load("compiled")
    known = {tuple(row[name] for name in Key._fields) for row in stored}
    plan = dict.fromkeys(programs.plan(options.devices, options.all))
    return [
        key
        for key in plan
        if tuple(map(str, key)) not in known
        and key.loss in (options.losses or [key.loss])
        and key.classes in (options.classes or [key.classes])
    ]


def main() -> None:
    """Measures and stores row by row."""
    keys = chosen()
    places = {}
    for device in dict.fromkeys(key.device for key in keys):
        if (found := DEVICES[device]()) is None:
            print(f"Left out: {device}, for which the compiler's parts are missing.")
        else:
            places[device] = found[0]
    keys = [key for key in keys if key.device in places]
    for done, key in enumerate(keys):
        try:
            row = measured(key, places[key.device])
        except Exception as error:  # noqa: BLE001 - one that fails should not keep out the others
            print(*key, f"{type(error).__name__}: {str(error).splitlines()[0]}", flush=True)
            continue
        cells = {name: f"{x:.4g}" if isinstance(x, float) else x for name, x in row.items()}
        compiler = results.versions("jax", "jaxlib", *COMPILERS[key.device])
        made = {"compiler": compiler, "commit": results.commit()}
        row = key._asdict() | dict.fromkeys(NUMBERS, "") | cells | made
        results.store("compiled", Key._fields, [row], lambda row: -float(row["ratio"] or 0))
        print(f"{done + 1}/{len(keys)}", *key, cells, flush=True)
        jax.clear_caches()


if __name__ == "__main__":
    main()
