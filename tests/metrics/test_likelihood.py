"""Importance-weighted likelihoods against models whose likelihood is known."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal

from helpers.metrics.likelihood import hierarchical_nll, importance_nll, log_weight, naive_nll
from helpers.models.distributions import DiagonalGaussian, log_prob
from helpers.models.losses import bernoulli_nll, gaussian_nll
from helpers.models.mlp_vae import MLPVAE
from helpers.models.variants import HierarchicalVAE, hierarchical_loss
from helpers.rng import generator_for

SIGMA = 0.5
NLL = partial(gaussian_nll, sigma=SIGMA)


class LinearVAE(nn.Module):
    """x = W z + noise with orthogonal columns in W: log p(x) and the true posterior are known.

    error: how far the approximate posterior is from the true one.
    """

    def __init__(self, error: float = 0.0):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        columns = torch.linalg.qr(torch.randn(6, 2, generator=generator).double()).Q
        self.w = columns * torch.tensor([1.5, 0.7])  # (6, 2)
        self.offset = torch.linspace(-1, 1, 6).double()
        self.variance = 1 / (self.w.square().sum(0) / SIGMA**2 + 1)
        self.error = error

    def encode(self, x):
        mean = (x.flatten(1) - self.offset) @ self.w / SIGMA**2 * self.variance
        logvar = (self.variance * (1 + self.error)).log().expand_as(mean)
        return DiagonalGaussian(mean + self.error, logvar)

    def decode(self, z):
        return (z @ self.w.T + self.offset).unflatten(1, (1, 2, 3))

    def true_nll(self, x):
        covariance = self.w @ self.w.T + SIGMA**2 * torch.eye(6)
        return -MultivariateNormal(self.offset, covariance).log_prob(x.flatten(1))


def some_x(count: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 1, 2, 3, generator=generator, dtype=torch.float64)


def together(estimates: torch.Tensor) -> torch.Tensor:
    """Estimates of k samples, (repeats, B), as one estimate of repeats · k samples, (B,)."""
    return math.log(len(estimates)) - torch.logsumexp(-estimates, dim=0)


@pytest.mark.parametrize("k", [1, 7])
def test_with_the_true_posterior_every_k_gives_the_exact_likelihood(k):
    model = LinearVAE()
    estimate = importance_nll(model, some_x(), k, generator_for(0), NLL)
    torch.testing.assert_close(estimate, model.true_nll(some_x()), rtol=1e-9, atol=1e-9)


def test_with_many_samples_it_converges_to_the_exact_likelihood():
    model, x = LinearVAE(error=0.5), some_x()
    many = x.repeat(800, 1, 1, 1)
    estimates = importance_nll(model, many, 10, generator_for(0), NLL).unflatten(0, (800, 5))
    torch.testing.assert_close(together(estimates), model.true_nll(x), rtol=0, atol=0.08)


def test_one_sample_is_on_average_the_negative_elbo_and_more_are_tighter():
    model, copies = LinearVAE(error=0.5), 20_000
    x = some_x(1)
    many = x.expand(copies, 1, 2, 3)
    means = {}
    for k in (1, 4, 16):
        estimates = importance_nll(model, many, k, generator_for(k), NLL)
        means[k] = estimates.mean()
        assert estimates.std() / copies**0.5 < 0.03
    posterior = model.encode(x)
    spread = (model.w.square() * posterior.logvar.exp()).sum() / (2 * SIGMA**2)
    negative_elbo = NLL(model.decode(posterior.mean), x) + spread + posterior.kl()
    assert abs(means[1] - negative_elbo.item()) < 0.1
    truth = model.true_nll(x).item()
    assert means[1] > means[4] + 0.1 > means[16] + 0.15 > truth + 0.15


def test_the_estimate_of_a_vae_repeats_and_builds_no_graph():
    model = MLPVAE(2, (8,))
    x = torch.rand(3, 1, 28, 28)
    first, again = (importance_nll(model, x, 3, generator_for(5)) for _ in range(2))
    assert torch.equal(first, again) and not first.requires_grad
    one = importance_nll(model, x, 1, generator_for(5))
    posterior = model.encode(x)
    z = posterior.sample(generator_for(5))
    log_q = Normal(posterior.mean, posterior.std).log_prob(z).sum(1)
    log_p = Normal(0.0, 1.0).log_prob(z).sum(1)
    expected = bernoulli_nll(model.decode(z), x) + log_q - log_p
    torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-3)


def test_a_weight_is_the_quotient_of_the_densities():
    p = DiagonalGaussian(*torch.randn(2, 4, 3, generator=generator_for("q")))
    z = p.sample(generator_for("z"))
    nll = torch.tensor([70.0, 80.0, 90.0, 100.0])
    expected = Normal(0.0, 1.0).log_prob(z).sum(1) - log_prob(z, p) - nll
    torch.testing.assert_close(log_weight(p, z, nll), expected, rtol=1e-5, atol=1e-4)


def test_without_an_encoder_it_converges_to_the_integral_over_the_prior():
    torch.manual_seed(0)
    model = MLPVAE(1, (8,))
    axis = torch.arange(-6, 6, 0.05)
    with torch.no_grad():
        decoded = model.decode(axis[:, None])
        prior = Normal(0.0, 1.0).log_prob(axis)
        each = [prior - bernoulli_nll(decoded, x.expand_as(decoded)) for x in digits()]
    exact = -torch.logsumexp(torch.stack(each), dim=1) - math.log(0.05)
    estimate = naive_nll(model, digits(), 20_000, generator_for("naive"))
    torch.testing.assert_close(estimate, exact, rtol=0, atol=0.1)


def test_codes_of_the_naive_estimate_are_draws_of_the_prior():
    torch.manual_seed(0)
    model, seen = MLPVAE(4, (8,)), []
    decode = model.decode
    model.decode = lambda z: seen.append(z) or decode(z)
    naive_nll(model, digits(), 50, generator_for("naive"))
    assert torch.equal(torch.cat(seen), torch.randn(50, 4, generator=generator_for("naive")))


def digits(repeats: int = 1) -> torch.Tensor:
    x = torch.rand(3, 1, 28, 28, generator=generator_for("digits")).round()
    return x.repeat(repeats, 1, 1, 1)


def test_two_levels_give_the_integral_over_both():
    """-log ∫∫ p(x|z1, z2) p(z1|z2) p(z2) dz1 dz2, with one dimension each, on a grid."""
    torch.manual_seed(0)
    model = HierarchicalVAE((1, 1), (8, 4))
    step = 0.2
    axis = torch.arange(-6, 6, step)
    z2, z1 = (grid.reshape(-1, 1) for grid in torch.meshgrid(axis, axis, indexing="ij"))
    with torch.no_grad():
        decoded = model.decode(z1, z2)  # (3600, 1, 28, 28)
        prior = Normal(0.0, 1.0).log_prob(z2)[:, 0] + log_prob(z1, model.prior(z2))
        each = [prior - bernoulli_nll(decoded, x.expand_as(decoded)) for x in digits()]
    exact = -torch.logsumexp(torch.stack(each), dim=1) - math.log(step**2)

    estimates = hierarchical_nll(model, digits(300), 20, generator_for("many"))
    torch.testing.assert_close(together(estimates.unflatten(0, (300, 3))), exact, rtol=0, atol=0.1)


def test_one_sample_of_both_levels_is_on_average_their_loss():
    torch.manual_seed(0)
    model, repeats = HierarchicalVAE((5, 3), (24, 12)), 400
    with torch.no_grad():
        terms = hierarchical_loss(model, {"images": digits(repeats)}, generator_for(0))
    bound = terms["loss"].unflatten(0, (repeats, 3)).mean(0)
    one = hierarchical_nll(model, digits(repeats), 1, generator_for("one"))
    torch.testing.assert_close(one.unflatten(0, (repeats, 3)).mean(0), bound, rtol=0, atol=0.5)
    assert (hierarchical_nll(model, digits(), 200, generator_for("many")) < bound).all()
