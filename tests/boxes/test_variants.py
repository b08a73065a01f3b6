"""Alpha-IoU and inner IoU: oracles, cases, closed forms and identities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from tests.boxes.pairs import invalid, oracle, samples
from tests.registry import Case, box_pairs

BASES = ("iou", "giou", "diou", "ciou")


def _terms(p, base):
    return {
        "iou": [],
        "giou": [p.vacancy],
        "diou": [p.offset],
        "ciou": [p.offset, p.trade_off * p.aspect],
    }[base]


def _alpha_iou(p, alpha=3.0, base="iou"):
    return 1 - p.iou**alpha + sum(term**alpha for term in _terms(p, base))


def _inner_iou(p, ratio=0.7, base="iou"):
    shared = np.minimum(p.size, p.target) * ratio
    shared = np.minimum(shared, ratio * (p.size + p.target) / 2 - np.abs(p.apart))
    shared = np.clip(shared, 0, None).prod(-1)
    union = ratio**2 * (p.size.prod(-1) + p.target.prod(-1)) - shared
    return 1 - shared / union + sum(_terms(p, base))


CASES = {
    "alpha_iou": Case(
        oracle(_alpha_iou),
        (*samples(), box_pairs("giou", base="giou"), box_pairs("diou", base="diou", alpha=0.5)),
        invalid(("alpha", 0.0, "0.0", "number in"), ("base", "eiou", "'eiou'", "'diou'")),
        {"alpha": (2.0, -1.0)},
        "smooth",
        0.25,
    ),
    "inner_iou": Case(
        oracle(_inner_iou),
        (*samples(), box_pairs("giou", base="giou"), box_pairs("diou", base="diou", ratio=1.2)),
        invalid(("ratio", 0.0, "0.0", "number in"), ("base", "eiou", "'eiou'", "'diou'")),
        {"ratio": (0.8, -1.0)},
        "smooth",
        0.25,
    ),
}


def _values_and_gradients(losses):
    a, b = (jnp.asarray(x, jnp.float32) for x in box_pairs()[1:3])
    each = lambda loss: (loss(a, b), jax.grad(lambda a: loss(a, b).sum())(a))
    return jax.jit(lambda: [each(loss) for loss in losses])()


@pytest.mark.parametrize(
    "name, option",
    [("alpha_iou", "alpha"), pytest.param("inner_iou", "ratio", marks=pytest.mark.slow)],
)
def test_one_is_the_base(name, option):
    """In value and gradient, the constant of CIoU included."""
    one = [
        lambda a, b, base=base: getattr(jaxloss, name)(
            a, b, base=base, reduction="none", **{option: 1.0}
        )
        for base in BASES
    ]
    own = [lambda a, b, base=base: getattr(jaxloss, base)(a, b, reduction="none") for base in BASES]
    found = _values_and_gradients(one + own)
    for variant, base in zip(found[:4], found[4:], strict=True):
        np.testing.assert_allclose(variant[0], base[0], 1e-5, 1e-6)
        np.testing.assert_allclose(variant[1], base[1], 1e-4, 1e-6)


def test_alpha_ciou_and_inner_ciou_of_one_pair():
    a, b = jnp.array([0.0, 0.0, 2.0, 2.0]), jnp.array([1.0, 0.0, 3.0, 4.0])
    v = 4 / np.pi**2 * (np.arctan(1.0) - np.arctan(0.5)) ** 2
    weighted, offset = v * v / (0.8 + v), 2 / 25
    alpha = jaxloss.alpha_iou(a, b, base="ciou", alpha=2.0)
    np.testing.assert_allclose(alpha, 1 - 0.2**2 + offset**2 + weighted**2, 1e-6)
    # Halved, the boxes are [.5, 1.5]^2 and [1.5, 2.5] x [1, 3]: they touch.
    inner = jaxloss.inner_iou(a, b, base="ciou", ratio=0.5)
    np.testing.assert_allclose(inner, 1 + offset + weighted, 1e-6)


def test_alpha_iou_is_exact_near_a_perfect_prediction():
    shift = 2.0**-20
    a = jnp.array([0.0, 0.0, 2.0, 2.0])
    b = a + jnp.array([shift, 0.0, shift, 0.0])
    expected = -np.expm1(3 * np.log1p(-2 * shift / (2 + shift)))
    np.testing.assert_allclose(jaxloss.alpha_iou(b, a), expected, 1e-6)


def test_inner_iou_of_one_box_in_another():
    """Scaled about their centres, a square in the middle of another keeps its share."""
    a, b = jnp.array([1.0, 1.0, 3.0, 3.0]), jnp.array([0.0, 0.0, 4.0, 4.0])
    for ratio in (0.5, 1.0, 1.5):
        np.testing.assert_allclose(jaxloss.inner_iou(a, b, ratio=ratio), 0.75, 1e-6)


@pytest.mark.parametrize("alpha", [3.0, 10.0])
def test_alpha_iou_has_its_gradient_however_small_the_iou(alpha):
    for iou in (0.3, 0.1, 0.01, 0.001):
        a, b = jnp.array([0.0, 0.0, 1.0, 1.0]), jnp.array([0.0, 0.0, iou, 1.0])
        slope = jax.grad(lambda a, b=b: jaxloss.alpha_iou(a, b, alpha=alpha))(a)[2]
        np.testing.assert_allclose(slope, alpha * iou**alpha, rtol=1e-5)
