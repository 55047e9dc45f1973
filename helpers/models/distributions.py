"""The diagonal Gaussian that an encoder outputs: q(z|x) = N(mean, diag(exp(logvar)))."""

import math
from typing import NamedTuple

import torch

from helpers.rng import randn_like


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """float32, also under autocast; float64 stays float64.  Sums of many terms need the digits."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


class DiagonalGaussian:
    """Independent normal distributions, one per latent dimension.

    mean, logvar: (B, ...) of equal shape.  The log-variance is clamped to [-30, 20], so that
    neither the standard deviation nor its inverse can overflow.  Kingma & Welling 2014, appendix B.
    """

    def __init__(self, mean: torch.Tensor, logvar: torch.Tensor):
        self.mean = mean
        self.logvar = logvar.clamp(-30.0, 20.0)

    @property
    def std(self) -> torch.Tensor:
        return torch.exp(0.5 * self.logvar)

    def sample(self, generator: torch.Generator | None = None) -> torch.Tensor:
        """One draw, differentiable in mean and logvar: mean + std · noise.

        This is the reparameterisation trick: the randomness stands in the noise alone.
        """
        return self.mean + self.std * randn_like(self.mean, generator)

    def mode(self) -> torch.Tensor:
        """The most probable z, which is the mean."""
        return self.mean

    def kl(self, other: "DiagonalGaussian | None" = None) -> torch.Tensor:
        """KL(self ‖ other) in nats per image, (B,), summed over all latent dimensions.

        Without `other` it is the KL to N(0, I).  In float32 or better.
        """
        mean = at_least_float32(self.mean)
        logvar = at_least_float32(self.logvar)
        if other is None:
            each = mean.square() + logvar.exp() - 1.0 - logvar
        else:
            other_mean = at_least_float32(other.mean)
            other_logvar = at_least_float32(other.logvar)
            squared_distance = (mean - other_mean).square() / other_logvar.exp()
            each = other_logvar - logvar + (logvar - other_logvar).exp() + squared_distance - 1.0
        return 0.5 * each.flatten(1).sum(1)


def reparameterise(
    mean: torch.Tensor, logvar: torch.Tensor, generator: torch.Generator | None = None
) -> torch.Tensor:
    """`DiagonalGaussian.sample` as a function: one draw, differentiable in mean and logvar."""
    return DiagonalGaussian(mean, logvar).sample(generator)


def gaussian_kl(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """`DiagonalGaussian.kl` to N(0, I) as a function: nats per image, (B,)."""
    return DiagonalGaussian(mean, logvar).kl()


def log_prob(z: torch.Tensor, p: DiagonalGaussian) -> torch.Tensor:
    """log p(z) in nats per image, (B,), in float32 or better."""
    logvar = at_least_float32(p.logvar)
    squared_distance = (at_least_float32(z) - at_least_float32(p.mean)).square() / logvar.exp()
    each = math.log(2 * math.pi) + logvar + squared_distance
    return -0.5 * each.flatten(1).sum(1)


class VAEOutput(NamedTuple):
    """What every VAE's forward returns.

    decoded: the decoded sample (images, or logits of them); posterior: q(z|x), which approximates
    the true posterior; z: the sample.
    """

    decoded: torch.Tensor
    posterior: DiagonalGaussian
    z: torch.Tensor
