"""Importance-weighted estimates of -log p(x), tighter than the ELBO."""

import math

import torch
from torch import nn

from helpers.models.distributions import DiagonalGaussian, log_prob
from helpers.models.losses import bernoulli_nll
from helpers.models.variants import HierarchicalVAE


def log_weight(posterior: DiagonalGaussian, z: torch.Tensor, nll: torch.Tensor) -> torch.Tensor:
    """log of p(x|z) p(z) / q(z|x) for a draw z of each posterior: (B,); nll: -log p(x|z), (B,)."""
    noise = (z - posterior.mean) / posterior.std
    each = noise.square() + posterior.logvar - z.square()  # 2 (log p(z) - log q(z|x))
    return 0.5 * each.flatten(1).sum(1) - nll


def importance_weighted(log_weights: torch.Tensor) -> torch.Tensor:
    """-log of the mean of k weights, whose logarithms are given: (k, B) → (B,)."""
    return math.log(len(log_weights)) - torch.logsumexp(log_weights, dim=0)


@torch.no_grad()
def importance_nll(
    model: nn.Module,
    x: torch.Tensor,
    k: int,
    generator: torch.Generator | None = None,
    nll=bernoulli_nll,
) -> torch.Tensor:
    """-log p(x), estimated from above with k samples per image: (B,), nats.

    -log 1/k Σ p(x|z_i) p(z_i) / q(z_i|x) with z_i ~ q(z|x).  k = 1 is one draw of the negative
    ELBO, and on average the estimate falls with k.  Burda, Grosse & Salakhutdinov 2016, eq. 8.
    """
    posterior = model.encode(x)
    log_weights = []
    for _ in range(k):
        z = posterior.sample(generator)
        log_weights.append(log_weight(posterior, z, nll(model.decode(z), x)))
    return importance_weighted(torch.stack(log_weights))


@torch.no_grad()
def naive_nll(
    model: nn.Module, x: torch.Tensor, k: int, generator: torch.Generator | None = None
) -> torch.Tensor:
    """-log p(x), estimated with k draws of the prior that all images share: (B,), nats.

    -log 1/k Σ p(x|z_i) with z_i ~ N(0, I): right on average before the logarithm, and of little use
    where hardly any z explains x.
    """
    z = torch.randn(k, model.config["latent"], generator=generator, device=x.device)
    log_weights = [-bernoulli_nll(logits.expand_as(x), x) for logits in model.decode(z)]
    return importance_weighted(torch.stack(log_weights))


@torch.no_grad()
def hierarchical_nll(
    model: HierarchicalVAE, x: torch.Tensor, k: int, generator: torch.Generator | None = None
) -> torch.Tensor:
    """`importance_nll` for two levels: (B,), nats, from k draws of both."""
    log_weights = []
    for _ in range(k):
        out = model(x, generator)
        levels = zip(out.z, out.priors, out.posteriors, strict=True)
        prior_over_q = sum(log_prob(z, p) - log_prob(z, q) for z, p, q in levels)
        log_weights.append(prior_over_q - bernoulli_nll(out.decoded, x))
    return importance_weighted(torch.stack(log_weights))
