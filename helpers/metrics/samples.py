"""How good are samples?  A Fréchet distance, its interval, and the rival of every VAE's prior."""

import numpy as np
import torch

from helpers.rng import generator_for


def frechet_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Fréchet distance of two Gaussians fitted to features (N, D) and (M, D); 0 for equal ones.

    |mean_a - mean_b|² + tr(A + B - 2 (AB)^½).  Heusel et al. 2017, eq. 6 (there on Inception's
    features: FID).
    """
    a = a.double()
    b = b.double()
    product = torch.linalg.eigvals(_covariance(a) @ _covariance(b))  # real and ≥ 0 but for rounding
    root = product.real.clamp_min(0).sqrt().sum()
    apart = (a.mean(0) - b.mean(0)).square().sum()
    return float(apart + a.var(0).sum() + b.var(0).sum() - 2 * root)


def _covariance(samples: torch.Tensor) -> torch.Tensor:
    """(N, D) → (D, D), a matrix for a single feature too."""
    return torch.cov(samples.T).reshape(samples.shape[1], samples.shape[1])


def bootstrap_interval(
    statistic, *samples: torch.Tensor, repeats: int = 200, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of `statistic`: its spread over resamples (with replacement) of the rows.

    Centred on the statistic itself, because resampling adds noise of its own and a distance only
    grows by it.  Efron 1979.
    """
    generator = generator_for("bootstrap", seed)
    values = []
    for _ in range(repeats):
        resampled = (s[torch.randint(len(s), (len(s),), generator=generator)] for s in samples)
        values.append(statistic(*resampled))
    low, high = np.quantile(values, [0.025, 0.975]) - np.mean(values)
    found = statistic(*samples)
    return float(found + low), float(found + high)


class GaussianCodes:
    """A full-covariance Gaussian fitted to codes (N, latent), for an autoencoder to sample from."""

    def __init__(self, codes: torch.Tensor):
        codes = codes.double()
        self.mean = codes.mean(0)
        ridge = 1e-9 * torch.eye(codes.shape[1], dtype=torch.float64)
        self.root = torch.linalg.cholesky(_covariance(codes) + ridge)

    def sample(self, count: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """`count` draws, (count, latent)."""
        shape = (count, len(self.mean))
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        return (self.mean + noise @ self.root.T).float()
