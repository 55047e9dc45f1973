"""The diagonal Gaussian that an encoder outputs: q(z|x) = N(mean, diag(exp(logvar)))."""

import torch

from helpers.budget import randn_like


class DiagonalGaussian:
    """Independent normal distributions, one per latent number.

    mean, logvar: (B, ...) of equal shape; the log-variance is clamped to [-30, 20], so that neither the
    standard deviation nor its inverse can overflow.  Kingma & Welling 2014, appendix B.
    """

    def __init__(self, mean: torch.Tensor, logvar: torch.Tensor):
        self.mean = mean
        self.logvar = logvar.clamp(-30.0, 20.0)

    @property
    def std(self) -> torch.Tensor:
        return torch.exp(0.5 * self.logvar)

    def sample(self, generator: torch.Generator | None = None) -> torch.Tensor:
        """One draw, differentiable in mean and logvar: mean + std · noise (the reparameterisation trick)."""
        return self.mean + self.std * randn_like(self.mean, generator)

    def mode(self) -> torch.Tensor:
        """The most probable z, which is the mean."""
        return self.mean

    def kl(self) -> torch.Tensor:
        """KL(q(z|x) ‖ N(0, I)) in nats per image: (B,), summed over all latent numbers, in float32 or better."""
        mean, logvar = (t if t.dtype == torch.float64 else t.float() for t in (self.mean, self.logvar))
        return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).flatten(1).sum(1)
