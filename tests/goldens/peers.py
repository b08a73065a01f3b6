"""What the scripts that make golden numbers share: environment, how a row is made, and inputs.

The scripts are run by hand, in an environment of their own (nothing here is needed by the tests):

    python -m venv peers
    peers/bin/pip install "torch==2.13.0" "numpy==2.4.6" "scipy==1.17.1" "pillow==13.0.0"
    peers/bin/pip install --no-deps "torchvision==0.29.2" "monai==1.6.1" \
        "segmentation-models-pytorch==0.6.0"

A CPU build of torch is enough. `--no-deps` keeps away what the loss modules do not use; the
packages' own __init__ files, which would ask for it, are not run (see `without_init`).

A row holds the arguments and options of one jaxloss call and what it must give:

    value = scale * (what the original returns) + shift
    gradient = d sum(value) / d prediction

Numbers are in the conventions of jaxloss; a scale other than 1 undoes another convention of the
original, and a comment at the row says which. All originals run in float64, except where a row
brings its own rtol.
"""

import importlib
import importlib.metadata
import importlib.util
import json
import pathlib
import sys
import types

import numpy as np
import scipy
import torch

torch.set_default_dtype(torch.float64)


def without_init(name):
    """Registers a package without running its __init__, so that single modules can be imported.

    torchvision's wants the compiled operators of one exact torch, that of
    segmentation_models_pytorch all encoders and data sets; the losses are plain Python.
    """
    package = types.ModuleType(name)
    package.__path__ = list(importlib.util.find_spec(name).submodule_search_locations)
    sys.modules[name] = package


def stand_in(name, **attributes):
    """Registers a module of these names only."""
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(attributes)


without_init("torchvision")
without_init("torchvision.ops")
without_init("segmentation_models_pytorch")

REDUCTIONS = ("mean", "sum", "none")
ROWS = []
t = torch.tensor


def golden(
    loss, case, source, original, args, *, scale=1.0, shift=0.0, rtol=1e-9, gradient=True, **options
):
    """Adds a row. `original` maps the prediction (a tensor) to what the original returns."""
    prediction = t(args[0], requires_grad=True)
    value = scale * original(prediction) + shift
    (slope,) = torch.autograd.grad(value.sum(), prediction)
    ROWS.append(
        {
            "loss": loss,
            "case": case,
            "source": source,
            "args": [encode(a) for a in args],
            "kwargs": {
                k: encode(v) if isinstance(v, np.ndarray) else v for k, v in options.items()
            },
            "scale": float(scale),
            "shift": float(shift),
            "rtol": rtol,
            "value": encode(thirteen_digits(value.detach().numpy())),
            "gradient": encode(thirteen_digits(slope.numpy())) if gradient else None,
        }
    )


def encode(array):
    return {"dtype": str(array.dtype), "data": array.tolist()}


def thirteen_digits(array):
    """Rounded for a smaller file, far below every rtol."""
    digits = [float(f"{v:.13g}") for v in array.flat]
    return np.array(digits, array.dtype).reshape(array.shape)


def one_hot(ids, classes, axis=1):
    return np.moveaxis(np.eye(classes)[ids], -1, axis)


def write(file, *others):
    """Writes all rows to `file`, beside this one; `others` are packages that gave some of them."""
    names = [(row["loss"], row["case"]) for row in ROWS]
    assert len(set(names)) == len(names), "two rows of one name"
    version = importlib.metadata.version
    peers = ("torch", "torchvision", "monai", "segmentation_models_pytorch", *others)
    versions = {name: version(name) for name in peers}
    versions |= {"numpy": np.__version__, "scipy": scipy.__version__}
    rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in ROWS)
    text = f'{{"versions": {json.dumps(versions)},\n"rows": [\n{rows}\n]}}\n'
    pathlib.Path(__file__).with_name(file).write_text(text)
    print(len(ROWS), "rows,", len(text) // 1000, "kB")


# ---- inputs: three decimals, so that the file holds them exactly and stays small -------------

rng = np.random.default_rng(0)


def normal(*shape, scale=2.0):
    return np.round(scale * rng.normal(size=shape), 3)


def uniform(*shape, low=0.0, high=1.0):
    return np.round(rng.uniform(low, high, size=shape), 3)


# (N, C)
X = normal(5, 4)
IDS = np.array([2, 0, 3, 1, 2])
IGNORING = np.array([2, -100, 3, 1, -100])
CLASS_WEIGHTS = np.array([0.5, 2.0, 1.5, 0.25])
SOFT = np.array(
    [
        [0.1, 0.2, 0.3, 0.4],
        [0.7, 0.1, 0.1, 0.1],
        [0.0, 1.0, 0.0, 0.0],
        [0.25, 0.25, 0.25, 0.25],
        [0.0, 0.5, 0.125, 0.375],
    ]
)
BITS = rng.integers(0, 2, size=(5, 4)).astype(float)
UNIT = uniform(5, 4, low=0.02, high=0.98)
POSITIVE = uniform(5, 4, low=0.1, high=2.0)

# (B, C, H, W); every class is present in every image
PIXELS = normal(2, 3, 3, 4)
MAP = np.array(
    [[[0, 0, 1, 1], [0, 2, 2, 1], [0, 0, 2, 1]], [[1, 1, 1, 0], [2, 1, 0, 0], [2, 2, 2, 2]]]
)
MAP_IGNORING = MAP.copy()
MAP_IGNORING[0, 0, 1] = MAP_IGNORING[0, 2, 2] = MAP_IGNORING[1, 1, 1] = 255
MAP_WEIGHTS = np.array([0.5, 1.5, 1.0])  # of sum 3, the number of classes
MULTI_LABEL = rng.integers(0, 2, size=PIXELS.shape).astype(float)
SOFT_MAP = uniform(*PIXELS.shape)
PROBABILITIES = uniform(*PIXELS.shape)

# binary images (B, H, W)
BINARY = normal(2, 3, 4)
MASK = (MAP == 1).astype(float)
MASK_IGNORING = np.where(MAP_IGNORING == 255, 255, MASK).astype(int)

# volumes (B, C, D, H, W)
VOLUME = normal(2, 2, 2, 3, 3)
VOLUME_IDS = rng.integers(0, 2, size=(2, 2, 3, 3))

END = rng.bit_generator.state


def seek(place):
    """Goes to a place in the stream of inputs, counted from the end of the shared ones.

    What is drawn there has the same numbers whichever function or script draws it, and when.
    """
    rng.bit_generator.state = END
    rng.bit_generator.advance(place)
