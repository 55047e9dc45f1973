"""Losses in nats per image: each takes a batch and returns one number per image, (B,).

The mean over a batch is then the same for every batch size, and 1 nat of reconstruction weighs as
much as 1 nat of KL.  Computed in float32 (float64 stays float64), also under autocast.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from helpers import CourseError
from helpers.models.distributions import VAEOutput, at_least_float32


def _error(mean: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(B, D); CourseError for unequal shapes, which would broadcast without a word."""
    if mean.shape != x.shape:
        raise CourseError(
            f"The decoded image is {tuple(mean.shape)} and the target {tuple(x.shape)}: "
            "they must be equal."
        )
    return (at_least_float32(mean) - at_least_float32(x)).flatten(1)


def bernoulli_nll(logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """-log p(x|z) for pixels in {0, 1} with p = sigmoid(logits); both (B, ...).

    For grey pixels in [0, 1] the same formula is the binary cross-entropy: a good loss, but no
    likelihood (Loaiza-Ganem & Cunningham, NeurIPS 2019).
    """
    each = F.binary_cross_entropy_with_logits(
        at_least_float32(logits), at_least_float32(x), reduction="none"
    )
    return each.flatten(1).sum(1)


def gaussian_nll(mean: torch.Tensor, x: torch.Tensor, sigma: float = 1.0) -> torch.Tensor:
    """-log p(x|z) for x ~ N(mean, sigma²) per pixel.

    A fixed sigma is a weight: squared error / (2 sigma²).
    """
    squared_error = _error(mean, x).square()
    return 0.5 * (squared_error / sigma**2 + math.log(2 * math.pi * sigma**2)).sum(1)


def laplace_nll(mean: torch.Tensor, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """-log p(x|z) for x ~ Laplace(mean, scale) per pixel: absolute error / scale + log(2 · scale).

    The "L1 loss" is scale = 1.
    """
    return (_error(mean, x).abs() / scale + math.log(2 * scale)).sum(1)


def calibrated_gaussian_nll(mean: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """`gaussian_nll` at each image's own best sigma² = its MSE: D/2 · (log(2π · MSE) + 1).

    With it β = 1 is right without tuning.  sigma-VAE, Rybkin et al., ICML 2021 (who share one sigma
    in a batch; per image, the value does not depend on the other images).
    """
    squared_error = _error(mean, x).square()
    mse = squared_error.mean(1).clamp_min(1e-12)  # a perfect image would have -infinite nats
    return 0.5 * squared_error.shape[1] * (torch.log(2 * math.pi * mse) + 1.0)


def negative_elbo(
    output: VAEOutput, x: torch.Tensor, nll: Callable = bernoulli_nll, beta: float = 1.0
) -> dict[str, torch.Tensor]:
    """The VAE loss of each image: reconstruction + beta · KL.

    nll: one of the functions above.  Returns {"loss", "reconstruction", "kl"}, each (B,).
    Kingma & Welling 2014, eq. 10; beta: Higgins et al. 2017.
    """
    reconstruction = nll(output.decoded, x)
    kl = output.posterior.kl()
    return {"loss": reconstruction + beta * kl, "reconstruction": reconstruction, "kl": kl}
