"""Golden numbers of regression losses: writes regression.json beside this file.

Run by hand in the environment that peers.py describes:

    peers/bin/python tests/goldens/make_regression.py

PyTorch runs itself.
"""

# ruff: noqa: B023 (`golden` calls every lambda at once)
import numpy as np
import torch.nn.functional as F
from peers import POSITIVE, REDUCTIONS, X, golden, normal, seek, t, uniform, write


def l2_and_huber():
    target = normal(5, 4)
    for reduction in REDUCTIONS:
        golden(
            "l2",
            reduction,
            "torch.nn.functional.mse_loss",
            lambda x: F.mse_loss(x, t(target), reduction=reduction),
            [X, target],
            reduction=reduction,
        )
        golden(
            "l2",
            f"weights {reduction}",
            "torch.nn.functional.mse_loss",
            lambda x: F.mse_loss(x, t(target), reduction=reduction, weight=t(POSITIVE)),
            [X, target],
            reduction=reduction,
            weights=POSITIVE,
        )
        golden(
            "huber",
            reduction,
            "torch.nn.functional.huber_loss",
            lambda x: F.huber_loss(x, t(target), reduction=reduction),
            [X, target],
            reduction=reduction,
        )
    for delta in (0.3, 2.5):
        golden(
            "huber",
            f"delta {delta}",
            "torch.nn.functional.huber_loss",
            lambda x: F.huber_loss(x, t(target), delta=delta),
            [X, target],
            delta=delta,
        )
    # torch's weighted Huber divides by the count (its weighted l2 does not): ours by the weights.
    golden(
        "huber",
        "weights mean",
        "torch.nn.functional.huber_loss",
        lambda x: F.huber_loss(x, t(target), weight=t(POSITIVE)),
        [X, target],
        scale=POSITIVE.size / POSITIVE.sum(),
        weights=POSITIVE,
    )


def other_errors():
    seek(1148)
    target = normal(*X.shape)
    counts, rate = np.floor(uniform(*X.shape, low=0, high=6)), uniform(*X.shape, low=0.3, high=4)
    variance = uniform(*X.shape, low=0.2, high=3)
    plain = {"l1": F.l1_loss, "smooth_l1": F.smooth_l1_loss}
    for name, original in plain.items():
        for reduction in REDUCTIONS:
            golden(
                name,
                reduction,
                f"torch.nn.functional.{name}_loss",
                lambda x: original(x, t(target), reduction=reduction),
                [X, target],
                reduction=reduction,
            )
    golden(
        "smooth_l1",
        "beta 0.3",
        "torch.nn.functional.smooth_l1_loss",
        lambda x: F.smooth_l1_loss(x, t(target), beta=0.3),
        [X, target],
        beta=0.3,
    )
    for full in (False, True):
        golden(
            "gaussian_nll",
            f"full {full}",
            "torch.nn.functional.gaussian_nll_loss",
            lambda x: F.gaussian_nll_loss(x, t(target), t(variance), full=full),
            [X, target, variance],
            full=full,
        )
        for log_input, prediction in ((True, X), (False, rate)):
            golden(
                "poisson_nll",
                f"full {full} log {log_input}",
                "torch.nn.functional.poisson_nll_loss",
                # eps=0: torch adds 1e-8 to the rate.
                lambda x: F.poisson_nll_loss(x, t(counts), log_input=log_input, full=full, eps=0.0),
                [prediction, counts],
                full=full,
                log_input=log_input,
            )
    golden(
        "cosine",
        "along the last axis",
        "torch.nn.functional.cosine_similarity",
        lambda x: -F.cosine_similarity(x, t(target), dim=-1),
        [X, target],
        shift=1.0,
        reduction="none",
    )


def main():
    l2_and_huber()
    other_errors()
    write("regression.json")


if __name__ == "__main__":
    main()
