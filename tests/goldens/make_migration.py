"""What the calls of other libraries in tests/migration give: writes migration.json.

    python tests/goldens/make_migration.py [pages] [--big-vision CHECKOUT]
        [--skeleton-recall CHECKOUT]

from the root of the repository, in an environment with NumPy, torch, torchvision and the library of
each page named (its TOML file lists the distributions); without names it runs them all. Value, and
gradient of its sum by the prediction, are in float64. OpenMMLab's compiled operators are not
needed, nor its packages' __init__. Checkouts are of what no package holds: of big_vision the
functions of losses alone are run, of nnU-Net's fork Skeleton-Recall the file of the Dice.
"""

import argparse
import ast
import importlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import sys
import types

import numpy as np
import torch

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
os.environ["KERAS_BACKEND"] = "torch"

from tests.migration.pages import ORDER, prediction, read, rows  # noqa: E402
from tests.migration.scenes import SCENES  # noqa: E402

FILE = pathlib.Path(__file__).with_name("migration.json")
JAX_PEERS = ("optax", "big_vision")
torch.set_default_dtype(torch.float64)


def digits(array):
    """Ten significant ones, as nested lists."""
    array = np.asarray(array, float)
    return np.array([float(f"{v:.10g}") for v in array.flat]).reshape(array.shape).tolist()


def without_init(name):
    """Registers a package without running its __init__, so that single modules can be imported."""
    package = types.ModuleType(name)
    package.__path__ = list(importlib.util.find_spec(name).submodule_search_locations)
    sys.modules[name] = package


def prepare_openmmlab():
    """Its losses are plain torch; stand-ins for what CUDA or whole heads alone call."""
    folders = ("mmdet", "mmdet.models", "mmdet.models.task_modules", "mmdet.structures")
    pose = ("mmpose", "mmpose.models", "mmpose.models.losses", "mmpose.models.utils")
    for package in (*folders, "mmdet.structures.bbox", "mmseg", "mmseg.models", *pose):
        without_init(package)
    overlaps = importlib.import_module("mmdet.structures.bbox.bbox_overlaps")
    sys.modules["mmdet.structures.bbox"].bbox_overlaps = overlaps.bbox_overlaps
    for module, missing in (
        ("mmcv.ops", ("sigmoid_focal_loss", "softmax_focal_loss")),
        ("mmdet.models.utils", ("multi_apply",)),
        ("mmdet.models.task_modules.samplers", ("SamplingResult",)),
        ("mmdet.models.task_modules.coders", ("BaseBBoxCoder",)),
        ("mmpose.datasets.datasets.utils", ("parse_pose_metainfo",)),
    ):
        sys.modules[module] = types.ModuleType(module)
        sys.modules[module].__dict__.update(dict.fromkeys(missing))


def big_vision(checkout):
    """The loss functions of big_vision/utils.py, without the imports of that file."""
    import jax
    import jax.numpy as jnp

    wanted = ("onehot", "sigmoid_xent", "softmax_xent", "weighted_softmax_xent")
    tree = ast.parse((pathlib.Path(checkout) / "big_vision" / "utils.py").read_text())
    found = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in wanted]
    module = types.SimpleNamespace()
    module.__dict__.update(jax=jax, jnp=jnp, np=np)
    exec(compile(ast.Module(found, []), "big_vision/utils.py", "exec"), module.__dict__)
    return module


def skeleton_recall(checkout):
    """The class that the fork adds to nnU-Net's own file."""
    path = pathlib.Path(checkout) / "nnunetv2" / "training" / "loss" / "dice.py"
    spec = importlib.util.spec_from_file_location("skeleton_recall", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SoftSkeletonRecallLoss


def listed(arrays, labels):
    """What torchvision and transformers take for targets: a dictionary for each image.

    `labels` is what the labels are called there. With transformers' name boxes are cxcywh.
    """
    found = []
    for image, valid in enumerate(arrays["valid"]):
        box = arrays["boxes"][image][valid]
        if labels == "class_labels":
            box = torch.cat([(box[:, :2] + box[:, 2:]) / 2, box[:, 2:] - box[:, :2]], 1)
        found.append({labels: arrays["labels"][image][valid], "boxes": box})
        if "masks" in arrays:
            found[-1]["masks"] = arrays["masks"][image][valid].to(box.dtype)
    return found


def in_torch(row, call, namespace):
    """Value and gradient of a call on a row's arrays, as tensors."""
    arrays = {name: torch.tensor(a) for name, a in SCENES[row.scene].items()}
    if "valid" in arrays and "boxes" in arrays:
        kind = "class_labels" if row.page == "transformers" else "labels"
        namespace = namespace | {"targets": listed(arrays, kind)}
    if row.single:
        arrays = {name: a.float() if a.is_floating_point() else a for name, a in arrays.items()}
    by = arrays[prediction(row)].requires_grad_()
    value = eval(call, namespace | arrays)
    (gradient,) = torch.autograd.grad(value.sum(), by)
    return value.detach().numpy(), gradient.numpy()


def in_jax(row, call, namespace):
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    arrays = {name: jnp.asarray(a) for name, a in SCENES[row.scene].items()}
    by = prediction(row)

    def total(x):
        value = eval(call, {"jax": jax, "jnp": jnp, **namespace, **arrays, by: x})
        return value.sum(), value

    gradient, value = jax.grad(total, has_aux=True)(arrays[by])
    return value, gradient


def record(page, checkouts):
    """Versions and rows of one page."""
    namespace = {"np": np}
    if page == "openmmlab":
        prepare_openmmlab()
    if page == "pytorch":
        without_init("robust_loss_pytorch")
        sys.modules["torch_dct"] = types.ModuleType("torch_dct")  # of its wavelets
    if page == "big_vision":
        namespace["u"] = big_vision(checkouts.big_vision)
    else:
        exec(read(page)["imports"], namespace)
    if page == "nnunet":
        namespace["SoftSkeletonRecallLoss"] = skeleton_recall(checkouts.skeleton_recall)
    if page == "keras":
        namespace["keras"].config.set_floatx("float64")
    run = in_jax if page in JAX_PEERS else in_torch
    found, errors = [], []
    for row in rows(page):
        try:
            value, gradient = run(row, row.right or row.peer, namespace)
            wrong = run(row, row.peer, namespace)[0] if row.right else None
        except Exception as error:
            errors.append(f"{row.peer}: {error!r}")
            continue
        numbers = {"value": digits(value), "gradient": digits(gradient)}
        if row.right:
            numbers["wrong"] = digits(wrong)
        found.append({"scene": row.scene, "peer": row.peer, **numbers})
    if errors:
        raise RuntimeError("\n".join([page, *errors]))
    names = read(page)["distributions"]
    versions = {n: importlib.metadata.version(n).split("+")[0] for n in names}
    return {"versions": versions | read(page).get("commits", {}), "rows": found}


def write(found):
    text = []
    for page in [p for p in ORDER if p in found]:
        lines = ",\n".join(json.dumps(r, separators=(",", ":")) for r in found[page]["rows"])
        versions = json.dumps(found[page]["versions"])
        text.append(f'"{page}": {{"versions": {versions}, "rows": [\n{lines}\n]}}')
    FILE.write_text("{\n" + ",\n".join(text) + "\n}\n")
    print(sum(len(f["rows"]) for f in found.values()), "rows,", FILE.stat().st_size // 1000, "kB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("pages", nargs="*", default=ORDER)
    parser.add_argument("--big-vision", metavar="CHECKOUT")
    parser.add_argument("--skeleton-recall", metavar="CHECKOUT")
    arguments = parser.parse_args()
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    write(known | {page: record(page, arguments) for page in arguments.pages})
