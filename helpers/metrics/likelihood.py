"""Importance-weighted estimates of -log p(x), tighter than the ELBO."""

import math

import torch
from torch import nn

from helpers.models.distributions import log_prob
from helpers.models.losses import bernoulli_nll
from helpers.models.variants import HierarchicalVAE


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
        noise = (z - posterior.mean) / posterior.std
        each = noise.square() + posterior.logvar - z.square()
        log_prior_over_q = 0.5 * each.flatten(1).sum(1)
        log_weights.append(log_prior_over_q - nll(model.decode(z), x))
    return math.log(k) - torch.logsumexp(torch.stack(log_weights), dim=0)  # (k, B) → (B,)


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
    return math.log(k) - torch.logsumexp(torch.stack(log_weights), dim=0)
