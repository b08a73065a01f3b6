"""Measures how far the losses are from the implementations of others: writes `agreement.json`.

    python docs/_ext/agreement.py

The numbers of the others are those of `tests/goldens`, in float64. The difference is that to the
largest number of an array, the measure of the tests. It takes some minutes.
"""

import collections
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

import jaxloss

DOCS = pathlib.Path(__file__).parents[1]
GOLDENS = sorted((DOCS.parent / "tests" / "goldens").glob("*.json"))
PACKAGES = {  # how a source names its package
    "torch.": "torch",
    "torchvision": "torchvision",
    "monai": "monai",
    "segmentation_models_pytorch": "segmentation_models_pytorch",
    "mmdet": "mmdet",
    "timm": "timm",
    "mmseg": "mmsegmentation",
    "kornia": "kornia",
    "transformers": "transformers",
    "ultralytics": "ultralytics",
    "robust_loss_pytorch": "robust-loss-pytorch",
}


def rows():
    """Yields every golden row of a loss, with the versions of its file."""
    for path in GOLDENS:
        found = json.loads(path.read_text())
        for row in found.get("rows", []) if "versions" in found else []:
            if row.get("loss") in jaxloss.__all__:  # others are of `geometry`
                yield row, found["versions"]


def version(source, versions):
    """Returns the package and version that gave a row, such as "torch 2.13.0"; "" for a formula."""
    for start, package in PACKAGES.items():
        if source.startswith(start) and package in versions:
            return f"{package} {versions[package]}"
    return ""


def difference(actual, expected):
    """The largest difference, over the largest number."""
    largest = np.max(np.abs(expected), initial=0)
    apart = np.max(np.abs(np.asarray(actual) - expected), initial=0)
    return float(apart / largest) if largest else float(apart)


def measured(row):
    """Returns the differences of value and gradient of one row."""
    prediction, *others = map(_array, row["args"])
    options = {key: _array(value) for key, value in row["kwargs"].items()}
    loss = getattr(jaxloss, row["loss"])

    def total(x):
        value = loss(x, *others, **options)
        return jnp.sum(value), value

    (_, value), gradient = jax.value_and_grad(total, has_aux=True)(jnp.asarray(prediction))
    given = row["gradient"]
    return (
        difference(value, _array(row["value"])),
        None if given is None else difference(gradient, _array(given)),
    )


def _array(value):
    return np.array(value["data"], dtype=value["dtype"]) if isinstance(value, dict) else value


def main():
    """Writes the table."""
    found = collections.defaultdict(dict)
    with jax.enable_x64(True):
        for row, versions in rows():
            value, gradient = measured(row)
            key = row["source"], version(row["source"], versions)
            entry = found[row["loss"]].setdefault(key, {"rows": 0, "value": [], "gradient": []})
            entry["rows"] += 1
            entry["value"].append(value)
            entry["gradient"] += [] if gradient is None else [gradient]
    table = {
        loss: [
            {
                "source": source,
                "version": package,
                "rows": entry["rows"],
                "value": max(entry["value"]),
                "gradient": max(entry["gradient"], default=None),
            }
            for (source, package), entry in sources.items()
        ]
        for loss, sources in sorted(found.items())
    }
    (DOCS / "agreement.json").write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
