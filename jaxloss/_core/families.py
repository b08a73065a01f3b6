"""The families of losses: what the options and docstrings of each have in common.

`declare` makes a function of arrays a public loss; here stand the decorators that families use.
"""

from jaxloss import options
from jaxloss._core.declare import Family, family

_LABELS = (
    "Integer ids, the shape of `logits` without the class axis; or labels of the shape of "
    "`logits`: float, boolean, or integer 0 and 1. An id outside `[0, C)` that is not ignored "
    "makes loss and gradient NaN there (region losses: of its image)."
)
_RAISES = {
    "TypeError": "If {prediction} is not floating, `where` not boolean, an option unknown or of "
    "another type.",
    "ValueError": "If shapes do not match (they never broadcast), an axis or a choice does not "
    "exist, or a number is out of its range.",
}


def _raises(prediction: str, more: str = "") -> dict[str, str]:
    text = {name: meaning.format(prediction=prediction) for name, meaning in _RAISES.items()}
    return text | {"ValueError": text["ValueError"][:-1] + more + "."}


_FLOAT_LABELS = ", or if `ignore_index` comes with float labels"
_BACKGROUND = ", if the background is left out of a single class" + _FLOAT_LABELS
_HALF = "float32 for half-precision input."

regression = family(
    Family(
        options.Regression,
        {
            "predictions": "Predicted values, any shape `[...]`, floating.",
            "targets": "True values, of the same shape.",
            "boxes": "Predicted rotated boxes, shape `[..., 5]`: `(cx, cy, w, h, angle)`, the "
            "angle in radians; floating.",
            "target_boxes": "True boxes of the same shape: pairs, never a matrix.",
        },
        f'A scalar, or one value each (`[...]`) with `reduction="none"`; {_HALF}',
        _raises("the prediction"),
    )
)
boxes = family(
    Family(
        options.Boxes,
        {
            "boxes": "Predicted boxes, shape `[..., 4]`, floating.",
            "target_boxes": "True boxes of the same shape: pairs, never a matrix.",
        },
        f'A scalar, or shape `boxes.shape[:-1]` with `reduction="none"`; {_HALF}',
        _raises("`boxes`"),
    )
)
_CLASSIFICATION = Family(
    options.Classification,
    {
        "logits": "Unnormalised log-probabilities, shape `[..., C]` (`C` at `axis`), floating.",
        "labels": "Integer ids, shape `[...]`, or one-hot or soft labels, shape `[..., C]`. An "
        "id outside `[0, C)` that is not ignored makes its position's loss and gradient NaN.",
        "label_smoothing": "The share of each target that is spread evenly over all classes, "
        "in `[0, 1)`.",
    },
    f'A scalar, or the shape of the ids with `reduction="none"`; {_HALF}',
    _raises("the prediction", _FLOAT_LABELS),
)
classification = family(_CLASSIFICATION)
linear = family(
    Family(
        options.Labelled,
        {
            "features": "Inputs of the layer, shape `[..., D]`, floating.",
            "labels": "Integer ids, shape `[...]`. An id outside `[0, C)` that is not ignored "
            "makes its position's loss and gradient NaN.",
            "label_smoothing": "The share of each target that is spread evenly over all classes, "
            "in `[0, 1)`.",
        },
        f'A scalar, or the shape of the ids with `reduction="none"`; {_HALF}',
        _raises("`features` or `kernel`", ", or there is no mesh axis `class_axis_name` here"),
    )
)
_ELEMENTS = Family(
    options.Elements,
    {
        "logits": "Log-odds, any shape `[...]`, floating; probabilities with `activation=None`.",
        "labels": "Targets in `[0, 1]` of the same shape: float, boolean, or integer 0 and 1 "
        "(another integer gives NaN). Or integer ids without the class axis: one class against the "
        "rest.",
        "activation": '`"sigmoid"`, or None where `logits` already are probabilities, whose '
        "logarithms are cut at -100. Prefer logits.",
        "label_smoothing": "The share of each target that moves to 1/2, in `[0, 1)`.",
    },
    f'A scalar, or the shape of `logits` with `reduction="none"`; {_HALF}',
    _raises("the prediction", _FLOAT_LABELS),
)
elements = family(_ELEMENTS)
one_versus_rest = family(_ELEMENTS._replace(options=options.OneVersusRest))
either = family(
    Family(
        options.OneVersusRest,
        {
            "logits": "Scores, shape `[..., C]` (`C` at `axis`) or any, floating.",
            "labels": _LABELS,
            "label_smoothing": "The share of each target that is spread evenly over all classes; "
            "with a sigmoid, that moves to 1/2; in `[0, 1)`.",
        },
        'A scalar; with `reduction="none"` the shape of the ids where classes compete, else that '
        f"of `logits`; {_HALF}",
        _raises("`logits`", _FLOAT_LABELS),
    )
)
_IMAGES = {
    "logits": "Scores, shape `[B, ..., C]` (`C` at `axis`) with at least one pixel axis, floating.",
    "labels": _LABELS,
    "label_smoothing": "The share of each target of the cross-entropy that is spread evenly, in "
    "`[0, 1)`.",
    "smooth": "Added to numerator and denominator, at least 0.",
    "per_class": "Whether each class is scored by itself. False: one score of the counts of all "
    'classes, which `class_weights` multiply; `absent` is then `"score"`, and '
    '`reduction="none"` gives shape `[B]`.',
    "distance_map": "The signed distances of the shape of `logits`, if made before: "
    "`jaxloss.distance.signed_distance` of the mask of each class, `axes` those of the pixels: "
    "`(1, 2)` for `[B, H, W, C]`. A constant. None: it is computed here.",
    "sampling": "Spacing of the pixels, a scalar or one number per spatial axis, above 0. None: 1.",
    "window": "Width of the window, an integer or one for each spatial axis; odd, and at most that "
    "of the image.",
    "sigma": "Standard deviation of the window's weights in pixels, positive.",
    "data_range": "The range of the values that are compared: 1 for probabilities.",
    "k1": "Keeps the luminance of dark windows finite, at least 0.",
    "k2": "Keeps the structure of flat windows finite, at least 0.",
}
_PER_CLASS = (
    'A scalar; with `reduction="none"` shape `[B, C]` (less the background), `[C]` if pooled, '
    f"`[B]` for `axis=None`; {_HALF}"
)
_SEGMENTATION = Family(options.Segmentation, _IMAGES, _PER_CLASS, _raises("`logits`", _BACKGROUND))
_BOUNDARY = _SEGMENTATION._replace(options=options.Boundary)
_OF_ELEMENTS = _SEGMENTATION._replace(
    options=options.Elements, raises=_raises("`logits`", _FLOAT_LABELS)
)
segmentation, boundary, segmentation_elements = map(
    family, (_SEGMENTATION, _BOUNDARY, _OF_ELEMENTS)
)


def _summed(of: Family) -> Family:
    """The family of sums of losses, whose parts have no shape in common."""
    reduction = (
        '`"mean"` or `"sum"`, of every part. One number for each image is '
        "`jaxloss.optax_compat.per_example(loss)`."
    )
    return of._replace(data=of.data | {"reduction": reduction}, returns=f"A scalar; {_HALF}")


compound, compound_boundary, compound_elements, compound_classification = (
    family(_summed(of)) for of in (_SEGMENTATION, _BOUNDARY, _OF_ELEMENTS, _CLASSIFICATION)
)
