"""What the losses of a family share: each option's type, default and meaning, said once.

A loss takes the options of its family as `**options: Unpack[Segmentation]`; its signature and its
docstring show them all. A wrapper of your own may do the same, and a type checker then refuses a
misspelt option or an unknown `reduction` in its calls too::

    def my_loss(logits, labels, **options: Unpack[jaxloss.options.Segmentation]):
        return jaxloss.dice(logits, labels, **options) + jaxloss.tversky(logits, labels, **options)
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, TypedDict

from jax.typing import ArrayLike

__all__ = [
    "Absent",
    "Activation",
    "AxisName",
    "Boundary",
    "Boxes",
    "ClassCounts",
    "Classification",
    "Coordinates",
    "Elements",
    "Exponent",
    "Factor",
    "Format",
    "Fraction",
    "Labelled",
    "Levels",
    "NonNegative",
    "Number",
    "Numbers",
    "OneVersusRest",
    "PerClass",
    "Positive",
    "Real",
    "Reduction",
    "Regression",
    "Segmentation",
    "Share",
]


class Option(NamedTuple):
    """The default and the meaning of an option."""

    default: Any
    meaning: str


class Interval(NamedTuple):
    """Where a hyper-parameter lies; it is a scalar unless it has one value per class or element.

    Attributes:
      bounds: Such as `"[0, inf)"`.
      scalar: Whether it is one number.
      exact: Python numbers for which the formula is another one: they are not traced, and a loss
        gets a float where others are arrays. In place of 0, which switches an option off, it gets
        None.
      some: Whether one of several numbers at least is above 0.
      most: The name of the hyper-parameter that it does not exceed.
    """

    bounds: str
    scalar: bool = True
    exact: tuple[float, ...] = ()
    some: bool = False
    most: str | None = None


class Several:
    """Marks a sequence or a named tuple whose arrays are traced one by one."""


Numbers: TypeAlias = ArrayLike | Sequence["Numbers"]
Number: TypeAlias = ArrayLike
Levels: TypeAlias = Annotated[Sequence[ArrayLike], Several]

Real: TypeAlias = Annotated[Number, Interval("(-inf, inf)")]
NonNegative: TypeAlias = Annotated[Number, Interval("[0, inf)")]
Positive: TypeAlias = Annotated[Number, Interval("(0, inf)")]
Exponent: TypeAlias = Annotated[Number, Interval("[0, inf)", exact=(2,))]
Factor: TypeAlias = Annotated[Number, Interval("[0, inf)", exact=(0,))]
Fraction: TypeAlias = Annotated[Number, Interval("[0, 1]")]
Share: TypeAlias = Annotated[Number, Interval("[0, 1)", exact=(0,))]
PerClass: TypeAlias = Annotated[Numbers, Interval("[0, inf)", scalar=False)]
ClassCounts: TypeAlias = Annotated[Numbers, Interval("[0, inf)", scalar=False, some=True)]

Absent: TypeAlias = Literal["score", "skip"]
Activation: TypeAlias = Literal["auto", "softmax", "sigmoid"] | None
AxisName: TypeAlias = Hashable
Format: TypeAlias = Literal["xyxy", "cxcywh", "xywh"]
Reduction: TypeAlias = Literal["mean", "sum", "none"]


class Regression(TypedDict, total=False):
    """What counts, how much, and how values become one: options of every loss."""

    where: Annotated[
        Numbers | None,
        Option(
            None,
            "Boolean mask of the values (region losses: of the pixels), in their rank with each "
            "dimension equal or 1; the class axis, or the last one of boxes, is left out or, in "
            "sigmoid forms, may be. What is False reaches neither value nor gradient, not even "
            "as NaN.",
        ),
    ]
    weights: Annotated[
        Numbers | None,
        Option(None, "How much each value (or pixel) counts, shaped like `where`; at least 0."),
    ]
    reduction: Annotated[
        Reduction,
        Option(
            "mean",
            '`"mean"` (weighted, over what is valid; 0 if nothing is), `"sum"` (to divide by a '
            'denominator of your own, such as mmdetection\'s `avg_factor`) or `"none"`.',
        ),
    ]
    axis_name: Annotated[
        AxisName | None,
        Option(
            None,
            "Mesh axis over which the mean is taken globally inside `shard_map` or `pmap`.",
        ),
    ]


class Coordinates(TypedDict, total=False):
    """How boxes are written."""

    format: Annotated[
        Format,
        Option(
            "xyxy",
            '`"xyxy"` (corners), `"cxcywh"` (centre and size) or `"xywh"` (first corner and size).',
        ),
    ]


class Boxes(Regression, Coordinates, total=False):
    """Options of the losses of axis-aligned boxes."""


class Labelled(Regression, total=False):
    """Options of every loss on scores of classes."""

    ignore_index: Annotated[int | None, Option(None, "The integer label of what is left out.")]
    class_weights: Annotated[
        Numbers | None,
        Option(
            None,
            "One factor per class, shape `[C]`, of value and denominator; in region losses the "
            "weights of the mean over classes.",
        ),
    ]


class Classification(Labelled, total=False):
    """Options of the losses whose classes compete."""

    axis: Annotated[int, Option(-1, "The class axis; any axis works (1 for NCHW).")]


class Elements(Labelled, total=False):
    """Options of the losses whose logits may each have a target of their own."""

    axis: Annotated[
        int | None,
        Option(
            -1,
            "The class axis; any axis works (1 for NCHW). None: there is none, and labels have the "
            "shape of the logits.",
        ),
    ]


class OneVersusRest(Elements, total=False):
    """Options of the losses that under a sigmoid take ids too: one class against the rest."""

    background_index: Annotated[
        int | None,
        Option(
            None,
            "For ids under a sigmoid: the integer label, outside `[0, C)`, of what belongs to no "
            "class, a target of zeros.",
        ),
    ]


class _Masks(Elements, total=False):
    """Options of every loss on the masks of a segmentation."""

    activation: Annotated[
        Activation,
        Option(
            "auto",
            '`"auto"` (softmax for ids, sigmoid for labels of the logits\' shape), `"softmax"`, '
            '`"sigmoid"`, or None where `logits` already are probabilities. One-hot labels that '
            'are meant to compete need `"softmax"`.',
        ),
    ]
    per_image: Annotated[
        bool, Option(True, "Whether each image is scored by itself; False pools the batch.")
    ]


class Segmentation(_Masks, total=False):
    """Options of the region losses and of the losses made with them."""

    include_background: Annotated[
        bool,
        Option(True, "Whether class 0 takes part in the mean; it always does in the softmax."),
    ]
    absent: Annotated[
        Absent,
        Option(
            "score",
            '`"score"` scores a class that an image\'s target does not hold like any other; '
            '`"skip"` leaves it out of the mean.',
        ),
    ]


class Boundary(_Masks, total=False):
    """Options of the boundary losses and of the losses made with them."""

    include_background: Annotated[
        bool | None,
        Option(
            None,
            "Whether class 0 takes part in the mean. None: only where classes do not compete, as "
            "it has the boundary of all the others.",
        ),
    ]
