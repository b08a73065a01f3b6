"""Frequent mistakes get advice beside the error: what is likely to be meant."""

import numpy as np
import pytest

import jaxloss

NAMES = (
    "cross_entropy",
    "focal",
    "sigmoid_focal",
    "top_k_cross_entropy",
    "dice",
    "lovasz_softmax",
    "boundary",
    "dice_cross_entropy",
)
COMPETING = ("cross_entropy", "top_k_cross_entropy", "lovasz_softmax")
LOGITS = np.zeros((2, 4, 5, 6), np.float32)


def _ids(*shape, dtype=np.int32):
    return np.zeros(shape, dtype)


MISTAKES = {
    "classes elsewhere": (LOGITS, _ids(2, 5, 6), {}, ValueError, "did you mean axis=1?"),
    "classes last": (LOGITS, _ids(2, 4, 5), {"axis": 1}, ValueError, "did you mean axis=3?"),
    "an axis too many": (LOGITS, _ids(2, 1, 5, 6), {"axis": 1}, ValueError, "labels.squeeze(1)?"),
    "a last axis too many": (LOGITS, _ids(2, 4, 5, 1), {}, ValueError, "labels.squeeze(3)?"),
    "a mask with a channel": (
        LOGITS[..., 0],
        _ids(2, 4, 5, 1, dtype=np.float32),
        {"axis": None},
        ValueError,
        "labels.squeeze(3)?",
    ),
    "float ids": (LOGITS, _ids(2, 4, 5, dtype=np.float32), {}, ValueError, "labels.astype(int)?"),
    "exchanged": (_ids(2, 4, 5), LOGITS, {}, TypeError, "`labels` exchanged?"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_error_says_what_is_likely_to_be_meant(mistake, name):
    logits, labels, options, error, advice = MISTAKES[mistake]
    if options.get("axis", 0) is None and name in COMPETING:
        pytest.skip("its classes compete: there is no loss without their axis")
    with pytest.raises(error) as caught:
        getattr(jaxloss, name)(logits, labels, **options)
    assert str(caught.value).startswith(f"jaxloss.{name}: `")
    assert str(caught.value).endswith(advice)


@pytest.mark.parametrize("shape", [(2, 7), (2, 4, 5, 6, 1), (3, 5, 6), (7, 5, 6)])
def test_labels_that_fit_nowhere_get_no_advice(shape):
    with pytest.raises(ValueError, match=r"integer ids of shape \(2, 4, 5\)$"):
        jaxloss.focal(LOGITS, np.zeros(shape, np.int32))
