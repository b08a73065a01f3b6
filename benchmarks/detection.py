"""Whole heads on this machine's CPU: memory, compile time, and time beside the originals.

Value and gradient of the total by the predictions, float32, 16 images of 640 x 640 with 20 to 100
boxes each, 80 classes; `detr` has 300 queries. Prints for each head

- its temporaries over its predictions (from the compiler; beside it the bound: twice the
  predictions and four matrices of boxes against places);
- seconds of processors for tracing and compiling;
- milliseconds per call on the clock and of all processors, from interleaved runs of one process,
  the best of several rounds, as other load only ever adds; and those of the originals over ours:
  torchvision's RetinaNet and FCOS, YOLOv5, ultralytics' YOLOv8 and its rotated form, and
  transformers' Mask2Former, DETR and Deformable DETR. With the matching apart both are told which
  query has which box or mask. `mask_set` has 100 queries with maps of 160 x 160 and 20 masks of
  640 x 640 an image, and each side its own random points;
- milliseconds of zeros as large as the predictions: less no gradient takes.

Then the Hungarian matching of (16, 300, 100) beside SciPy, image by image, and the temporaries of
`mask_set` for masks of two sizes, with and without a choice of uncertain points. Without the peers
their columns stay empty; `tests/goldens/peers.py` says how to install them.

    python benchmarks/detection.py [name ...]
"""

import functools
import importlib
import importlib.util
import os
import sys
import time
import types
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["OMP_WAIT_POLICY"] = "passive"  # else PyTorch's threads spin in the next one's time
os.environ["KMP_BLOCKTIME"] = "0"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from jaxloss import detection  # noqa: E402
from jaxloss.detection import _mask_set  # noqa: E402

try:
    import torch
    from torchvision.models.detection import _utils, fcos, retinanet
    from torchvision.ops import boxes as box_ops
    from transformers.loss import loss_deformable_detr, loss_for_object_detection
    from transformers.models.mask2former import modeling_mask2former as mask2former
    from ultralytics.utils.loss import v8DetectionLoss, v8OBBLoss
except ImportError:
    torch = None
try:
    from scipy.optimize import linear_sum_assignment
except ImportError:
    linear_sum_assignment = None

IMAGES, SIZE, SLOTS, CLASSES, QUERIES = 16, 640, 100, 80, 300
ROUNDS, THREADS = 3, 2
YOLO, PYRAMID = (8, 16, 32), (8, 16, 32, 64, 128)
SIDES = [[[10, 13], [16, 30], [33, 23]], [[30, 61], [62, 45], [59, 119]]]
SIDES += [[[116, 90], [156, 198], [373, 326]]]
RNG = np.random.default_rng(0)

Run = Callable[[], Any]


class Case(NamedTuple):
    """A head on its predictions.

    Attributes:
      loss: Its total, of the predictions and the truth.
      predictions: What is differentiated.
      places: At how many places it predicts; 0 for masks, which have none.
      peer: Makes its original's run.
      truth: What it has in place of the boxes, labels and valid slots of the others, or None.
    """

    loss: Callable[..., jax.Array]
    predictions: Any
    places: int
    peer: Callable[..., Run]
    truth: dict[str, np.ndarray] | None = None


def truth() -> dict[str, np.ndarray]:
    """Boxes of 8 to 400 pixels, 20 to 100 an image."""
    sides = np.exp(RNG.uniform(np.log(8), np.log(400), (IMAGES, SLOTS, 2)))
    corner = RNG.random((IMAGES, SLOTS, 2)) * (SIZE - sides)
    counts = RNG.integers(20, SLOTS + 1, IMAGES)
    counts[0] = SLOTS
    return {
        "boxes": np.concatenate([corner, corner + sides], -1).astype(np.float32),
        "labels": RNG.integers(0, CLASSES, (IMAGES, SLOTS)).astype(np.int32),
        "valid": np.arange(SLOTS) < counts[:, None],
    }


def normal(*shape: int, shift: float = 0.0) -> np.ndarray:
    """Random numbers for each image."""
    return RNG.standard_normal((IMAGES, *shape), np.float32) + np.float32(shift)


def grids(strides: tuple[int, ...]) -> list[tuple[int, int]]:
    """The sizes of the feature maps."""
    return [(SIZE // stride, SIZE // stride) for stride in strides]


def cases() -> dict[str, Callable[[], Case]]:
    """Makes each head's case."""
    return {
        "yolo_v5": yolo_v5,
        "yolo_v8": yolo_v8,
        "yolo_v8_rotated": yolo_v8_rotated,
        "retinanet": retina_net,
        "fcos": f_cos,
        "detr, softmax, matching apart": functools.partial(detr, "softmax"),
        "detr, focal, matching apart": functools.partial(detr, "focal"),
        "mask_set, matching apart": functools.partial(mask_set, apart=True),
        "mask_set": functools.partial(mask_set, apart=False),
    }


def yolo_v5() -> Case:
    """Three anchors at each cell."""
    loss = functools.partial(detection.yolo_v5, anchors=SIDES, strides=YOLO)
    levels = [normal(3, *grid, 5 + CLASSES) for grid in grids(YOLO)]

    def peer(predictions: Any, targets: list[dict[str, Any]]) -> Callable[[], Any]:
        anchors = torch.tensor(SIDES).float() / torch.tensor(YOLO).reshape(-1, 1, 1)
        head = SimpleNamespace(nl=3, na=3, nc=CLASSES, stride=YOLO, anchors=anchors)
        options = {"box": 0.05, "obj": 1.0, "cls": 0.5, "cls_pw": 1, "obj_pw": 1, "anchor_t": 4.0}
        options |= {"fl_gamma": 0.0, "label_smoothing": 0.0}
        parameters = lambda: iter([torch.zeros(1)])
        criterion = of_yolo_v5()(SimpleNamespace(model=[head], hyp=options, parameters=parameters))
        criterion.sort_obj_iou = True
        rows = torch.cat([joined(i, target) for i, target in enumerate(targets)])
        return lambda: criterion(predictions, rows)[0].sum()

    return Case(loss, levels, 3 * sum(h * w for h, w in grids(YOLO)), peer)


def of_yolo_v5() -> Any:
    """YOLOv5's loss, whose package wants a whole training's dependencies otherwise."""
    found = importlib.util.find_spec("yolov5").submodule_search_locations[0]
    nothing = {"matplotlib": {"pyplot": None}, "matplotlib.pyplot": {}}
    nothing["yolov5"] = {"__path__": [found]}
    helpers = {"TryExcept": lambda *_: lambda f: f, "threaded": lambda f: f}
    nothing["yolov5.utils"] = {"__path__": [os.path.join(found, "utils")], **helpers}
    nothing["yolov5.utils.torch_utils"] = {"de_parallel": lambda model: model}
    for name, attributes in nothing.items():
        module = types.ModuleType(name)
        vars(module).update(attributes)
        sys.modules.setdefault(name, module)
    return importlib.import_module("yolov5.utils.loss").ComputeLoss


def joined(image: int, target: dict[str, Any]) -> Any:
    """A row for each box: image, class, and cxcywh over the image's sides."""
    ids = target["labels"].float()[:, None]
    return torch.cat([torch.full_like(ids, image), ids, of_image(target["boxes"])], 1)


def yolo_v8() -> Case:
    """16 bins for each side."""
    loss = functools.partial(detection.yolo_v8, strides=YOLO)
    levels = [normal(*grid, 64 + CLASSES) for grid in grids(YOLO)]

    def peer(predictions: Any, targets: list[dict[str, Any]]) -> Callable[[], Any]:
        return of_ultralytics(v8DetectionLoss, predictions, None, targets)

    return Case(loss, levels, sum(h * w for h, w in grids(YOLO)), peer)


def yolo_v8_rotated() -> Case:
    """The same with an angle at each point; boxes stand upright."""

    def loss(predictions: Any, boxes: Any, labels: Any, **options: Any) -> Any:
        corner, end = boxes[..., :2], boxes[..., 2:]
        upright = [(corner + end) / 2, end - corner, jnp.zeros_like(corner[..., :1])]
        turned = jnp.concatenate(upright, -1)
        return detection.yolo_v8_rotated(
            predictions[:3], predictions[3:], turned, labels, strides=YOLO, **options
        )

    levels = [normal(*grid, 64 + CLASSES) for grid in grids(YOLO)]
    angles = [normal(*grid) for grid in grids(YOLO)]

    def peer(predictions: Any, targets: list[dict[str, Any]]) -> Callable[[], Any]:
        return of_ultralytics(v8OBBLoss, predictions[:3], predictions[3:], targets)

    return Case(loss, levels + angles, sum(h * w for h, w in grids(YOLO)), peer)


def of_ultralytics(
    make: Any, levels: Any, angles: Any, targets: list[dict[str, Any]]
) -> Callable[[], Any]:
    """The total of one of ultralytics' losses; boxes have an angle of 0 if there are angles."""
    model = torch.nn.Linear(1, 1)
    model.args = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5, angle=1.0)
    head = SimpleNamespace(stride=torch.tensor(YOLO), nc=CLASSES, reg_max=16, no=64 + CLASSES)
    model.model = [head]
    criterion = make(model)
    rows = torch.cat([joined(i, target) for i, target in enumerate(targets)])
    batch = {"batch_idx": rows[:, 0], "cls": rows[:, 1], "bboxes": rows[:, 2:]}
    if angles is not None:
        batch["bboxes"] = torch.nn.functional.pad(batch["bboxes"], (0, 1))
    maps = [torch.zeros(IMAGES, 1, *grid) for grid in grids(YOLO)]

    def total() -> Any:
        columns = torch.cat([x.flatten(1, 2) for x in levels], 1).swapaxes(1, 2)
        found = {"boxes": columns[:, :64], "scores": columns[:, 64:], "feats": maps}
        if angles is not None:
            found["angle"] = torch.cat([x.flatten(1) for x in angles], 1)[:, None]
        return criterion(found, batch)[0].sum()

    return total


def retina_net() -> Case:
    """Nine anchors at each cell of five maps."""
    sizes = [4 * stride for stride in PYRAMID]
    anchors = np.asarray(detection.grid_anchors(grids(PYRAMID), PYRAMID, sizes))
    predictions = normal(len(anchors), CLASSES, shift=-4.6), normal(len(anchors), 4)

    def loss(predictions: Any, boxes: Any, labels: Any, **options: Any) -> Any:
        return detection.retinanet(*predictions, boxes, labels, anchors=anchors, **options)

    def peer(predictions: Any, targets: list[dict[str, Any]]) -> Callable[[], Any]:
        places = torch.tensor(anchors)
        matcher = _utils.Matcher(0.5, 0.4, allow_low_quality_matches=True)
        head = SimpleNamespace(
            BETWEEN_THRESHOLDS=-2, _loss_type="l1", box_coder=_utils.BoxCoder((1.0, 1.0, 1.0, 1.0))
        )
        outputs = dict(zip(("cls_logits", "bbox_regression"), predictions, strict=True))

        def total() -> Any:
            found = [matcher(box_ops.box_iou(target["boxes"], places)) for target in targets]
            classes = retinanet.RetinaNetClassificationHead.compute_loss
            sides = retinanet.RetinaNetRegressionHead.compute_loss
            return classes(head, targets, outputs, found) + sides(
                head, targets, outputs, [places] * IMAGES, found
            )

        return total

    return Case(loss, predictions, len(anchors), peer)


def f_cos() -> Case:
    """A point at each cell of five maps; torchvision's form."""
    points = np.asarray(detection.grid_points(grids(PYRAMID), PYRAMID))
    counts = [h * w for h, w in grids(PYRAMID)]
    strides = np.repeat(np.float32(PYRAMID), counts)
    n = len(points)
    predictions = normal(n, CLASSES, shift=-4.6), np.abs(normal(n, 4, shift=2)), normal(n)

    def loss(predictions: Any, boxes: Any, labels: Any, **options: Any) -> Any:
        places = {"points": points, "strides": strides, "box_weighting": "none"}
        return detection.fcos(*predictions, boxes, labels, **places, **options)

    def peer(predictions: Any, targets: list[dict[str, Any]]) -> Callable[[], Any]:
        half = strides[:, None] / 2
        anchors = torch.tensor(np.concatenate([points - half, points + half], 1))
        head = SimpleNamespace(box_coder=_utils.BoxLinearCoder(normalize_by_size=True))
        head.compute_loss = functools.partial(fcos.FCOSHead.compute_loss, head)
        self = SimpleNamespace(center_sampling_radius=1.5, head=head)
        logits, distances, centerness = predictions
        outputs = {"cls_logits": logits, "bbox_regression": distances}
        outputs["bbox_ctrness"] = centerness[..., None]

        def total() -> Any:
            parts = fcos.FCOS.compute_loss(self, targets, outputs, [anchors] * IMAGES, counts)
            return sum(parts.values())

        return total

    return Case(loss, predictions, n, peer)


def detr(classification: str) -> Case:
    """300 queries, of which the first have the boxes."""
    logits = normal(QUERIES, CLASSES + (classification == "softmax"))
    predictions = logits, 1 / (1 + np.exp(-normal(QUERIES, 4)))

    def loss(predictions: Any, boxes: Any, labels: Any, *, valid: Any) -> Any:
        slot = jnp.broadcast_to(jnp.arange(QUERIES) % SLOTS, (IMAGES, QUERIES))
        taken = jnp.pad(valid, ((0, 0), (0, QUERIES - SLOTS)))
        nothing = jnp.zeros_like(taken)
        given = detection.Assignment(slot, taken, taken.astype(jnp.float32), nothing)
        return detection.detr(
            *predictions,
            boxes,
            labels,
            valid=valid,
            image_size=(SIZE, SIZE),
            classification=classification,
            assignment=given,
        )

    def peer(predictions: Any, targets: list[dict[str, Any]]) -> Callable[[], Any]:
        true = [
            {"boxes": of_image(target["boxes"]), "class_labels": target["labels"]}
            for target in targets
        ]

        matcher = lambda outputs, targets: [(torch.arange(len(t["boxes"])),) * 2 for t in targets]
        parts = ["labels", "boxes"]
        if classification == "softmax":
            criterion = loss_for_object_detection.ImageLoss(matcher, CLASSES, 0.1, parts)
        else:
            criterion = loss_deformable_detr.DeformableDetrImageLoss(matcher, CLASSES, 0.25, parts)
        outputs = dict(zip(("logits", "pred_boxes"), predictions, strict=True))

        def total() -> Any:
            found = criterion(outputs, true)
            return found["loss_ce"] + 5 * found["loss_bbox"] + 2 * found["loss_giou"]

        return total

    return Case(loss, predictions, QUERIES, peer)


def mask_set(apart: bool) -> Case:
    """Masks are boxes, as its original has no other place for them than whole images."""
    queries, slots, size = 100, 20, 160
    chosen = RNG.permuted(np.tile(np.arange(queries), (IMAGES, 1)), axis=1)[:, :slots]
    cost = np.ones((IMAGES, queries, slots), np.float32)
    cost[np.arange(IMAGES)[:, None], chosen, np.arange(slots)] = 0
    assigned = detection.match_hungarian(cost, np.ones((IMAGES, slots), bool))
    matching = (lambda cost, valid: assigned) if apart else detection.match_hungarian
    predictions = normal(queries, CLASSES + 1), normal(queries, size, size)
    labels, valid = truth()["labels"][:, :slots], np.ones((IMAGES, slots), bool)
    masks = np.zeros((IMAGES, slots, SIZE, SIZE), bool)
    for mask, box in zip(
        masks.reshape(-1, SIZE, SIZE), truth()["boxes"][:, :slots].reshape(-1, 4), strict=True
    ):
        x0, y0, x1, y1 = box.astype(int)
        mask[y0:y1, x0:x1] = True

    def loss(predictions: Any, masks: Any, labels: Any, **options: Any) -> Any:
        with mock.patch.object(_mask_set, "match_hungarian", matching):
            return detection.mask_set(*predictions, masks, labels, key=jax.random.key(0), **options)

    def peer(predictions: Any, targets: list[dict[str, Any]]) -> Callable[[], Any]:
        gains = {"class_weight": 2.0, "mask_weight": 5.0, "dice_weight": 5.0}
        points = {"train_num_points": 12544, "oversample_ratio": 3.0}
        config = SimpleNamespace(
            num_labels=CLASSES,
            no_object_weight=0.1,
            importance_sample_ratio=0.75,
            **gains,
            **points,
        )
        criterion = mask2former.Mask2FormerLoss(config, {})
        if apart:
            pairs = [(torch.tensor(queries), torch.arange(slots)) for queries in chosen]
            criterion.matcher.forward = lambda *arrays: pairs
        logits, maps = predictions
        true = [target["masks"].float() for target in targets]
        ids = [target["labels"] for target in targets]

        def total() -> Any:
            parts = criterion(maps, logits, true, ids)
            named = zip(("cross_entropy", "mask", "dice"), gains.values(), strict=True)
            return sum(gain * parts[f"loss_{name}"] for name, gain in named)

        return total

    given = {"masks": masks, "labels": labels, "valid": valid}
    return Case(loss, predictions, 0, peer, given)


def of_image(boxes: Any) -> Any:
    """PyTorch's boxes xyxy in pixels as cxcywh over the image's sides."""
    return torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1) / SIZE


def of_torch(case: Case, inputs: dict[str, np.ndarray]) -> Run:
    """The original's value and gradient."""
    shapes = next(iter(inputs))  # boxes or masks
    targets = [
        {shapes: torch.tensor(shape[keep]), "labels": torch.tensor(label[keep]).long()}
        for shape, label, keep in zip(*inputs.values(), strict=True)
    ]
    predictions = [torch.tensor(x, requires_grad=True) for x in case.predictions]
    total = case.peer(predictions, targets)

    def run() -> float:
        for x in predictions:
            x.grad = None
        value = total()
        value.backward()
        return value.item()

    return run


def best(runs: dict[str, Run]) -> dict[str, tuple[float, float]]:
    """Milliseconds of each run, by the clock and of all processors, the best of the rounds."""
    times = dict.fromkeys(runs, (float("inf"),) * 2)
    for turn in range(ROUNDS + 1):
        for name, run in runs.items():
            clock, processors = time.perf_counter(), time.process_time()
            run()
            spent = time.perf_counter() - clock, time.process_time() - processors
            if turn:
                times[name] = tuple(map(min, times[name], (1e3 * s for s in spent)))
    return times


def megabytes(tree: Any) -> float:
    """The size of arrays."""
    return sum(x.nbytes for x in jax.tree.leaves(tree)) / 2**20


def row(name: str, case: Case, inputs: dict[str, np.ndarray]) -> str:
    """One head's line of the table."""
    inputs = inputs if case.truth is None else case.truth
    jax.clear_caches()  # the last row's head may have been another's with the matching apart

    def total(predictions: Any, shapes: Any, labels: Any, valid: Any) -> jax.Array:
        return case.loss(predictions, shapes, labels, valid=valid)[0]

    arguments = jax.tree.map(jnp.asarray, (case.predictions, *inputs.values()))
    clock, processors = time.perf_counter(), time.process_time()
    step = jax.jit(jax.value_and_grad(total)).lower(*arguments).compile()
    compiling = f"{time.perf_counter() - clock:.1f}, {time.process_time() - processors:.1f}"
    size = megabytes(case.predictions)
    temporary = step.memory_analysis().temp_size_in_bytes / 2**20 / size
    bound = 2 + 4 * (4 * IMAGES * SLOTS * case.places / 2**20) / size
    limit = f" ({bound:.2f})" if case.places else ""

    zeros = jax.jit(lambda tree: jax.tree.map(jnp.zeros_like, tree)).lower(arguments[0]).compile()
    runs = {
        "ours": lambda: jax.block_until_ready(step(*arguments)),
        "zeros": lambda: jax.block_until_ready(zeros(arguments[0])),
    }
    if torch is not None:
        runs["original"] = of_torch(case, inputs)
        ours, theirs = float(runs["ours"]()[0]), runs["original"]()
        # RetinaNet takes anchors that tie up to rounding; torchvision lets rounding choose. The
        # points of masks are random.
        near = 2e-2 if name.startswith(("retinanet", "mask_set")) else 1e-3
        assert abs(ours - theirs) < near * abs(theirs), (name, ours, theirs)
    times = best(runs)
    ours, cell = times["ours"], "-"
    if "original" in times:
        wall, cpu = times["original"]
        cell = f"{wall:.0f}, {cpu:.0f} ({wall / ours[0]:.2f}, {cpu / ours[1]:.2f})"
    return (
        f"| {name} | {size:.0f} | {temporary:.2f}{limit} "
        f"| {compiling} | {times['zeros'][0]:.1f} | {ours[0]:.1f}, {ours[1]:.1f} | {cell} |"
    )


def matching() -> str:
    """The line of the Hungarian matching."""
    cost = RNG.random((IMAGES, QUERIES, SLOTS), np.float32)
    match = jax.jit(lambda cost, valid: detection.match_hungarian(cost, valid).index)
    arguments = jnp.asarray(cost), jnp.ones((IMAGES, SLOTS), bool)
    runs = {"ours": lambda: match(*arguments).block_until_ready()}
    if linear_sum_assignment is not None:
        runs["SciPy"] = lambda: [linear_sum_assignment(image) for image in cost]
    times = best(runs)
    other = "{:.1f}, {:.1f}".format(*times["SciPy"]) if "SciPy" in times else "-"
    return "| match_hungarian | {:.1f}, {:.1f} | {} |".format(*times["ours"], other)


def masks(size: int, important: float) -> str:
    """The line of `mask_set`'s temporaries: 100 queries, 20 masks an image."""

    def total(logits: Any, maps: Any, truth: Any, labels: Any, valid: Any) -> jax.Array:
        options = {"valid": valid, "key": jax.random.key(0), "important": important}
        return detection.mask_set(logits, maps, truth, labels, **options)[0]

    shapes = (100, CLASSES + 1), (100, size, size), (20, 4 * size, 4 * size), (20,), (20,)
    dtypes = jnp.float32, jnp.float32, bool, jnp.int32, bool
    arguments = [
        jax.ShapeDtypeStruct((IMAGES, *shape), dtype)
        for shape, dtype in zip(shapes, dtypes, strict=True)
    ]
    start = time.process_time()
    step = jax.jit(jax.value_and_grad(total, (0, 1))).lower(*arguments).compile()
    spent = time.process_time() - start
    temporary = step.memory_analysis().temp_size_in_bytes / 2**20
    return f"| {size}, {4 * size} | {important} | {temporary:.0f} | {spent:.1f} |"


def main(chosen: list[str]) -> None:
    """Prints the tables."""
    if torch is not None:
        torch.set_num_threads(THREADS)
    inputs = truth()
    print(
        "| head | predictions, MiB | temporaries over them (bound) | compile, s, s of processors",
        end="",
    )
    print(" | zeros, ms | ms, ms of processors | original (over ours) |")
    print("|---|---|---|---|---|---|---|")
    for name, make in cases().items():
        if not chosen or name.split(",")[0] in chosen:
            print(row(name, make(), inputs), flush=True)
    if not chosen or "match_hungarian" in chosen:
        print("\n| (16, 300, 100) | ms, ms of processors | SciPy |\n|---|---|---|")
        print(matching())
    if not chosen or "mask_set" in chosen:
        print("\n| mask_set: sides of maps, masks | important | temporaries, MiB | compile, s |")
        print("|---|---|---|---|")
        for size, important in ((160, 0.75), (320, 0.75), (160, 0.0)):
            print(masks(size, important), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
