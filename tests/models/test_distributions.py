"""The diagonal Gaussian: its samples, their gradients, its KL, its density and its clamp."""

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from helpers.models.distributions import (
    DiagonalGaussian,
    gaussian_kl,
    log_prob,
    reparameterise,
)
from helpers.rng import generator_for

SAMPLES = 200_000
MEAN = torch.tensor([-1.5, 0.0, 2.0]).double()
LOGVAR = torch.tensor([-2.0, 0.0, 1.0]).double()


def many() -> tuple[torch.Tensor, torch.Tensor]:
    """SAMPLES rows of the same three distributions, as leaves that collect gradients per row."""
    return MEAN.repeat(SAMPLES, 1).requires_grad_(), LOGVAR.repeat(SAMPLES, 1).requires_grad_()


def gaussian(key: str, *shape: int, dtype=torch.float64) -> DiagonalGaussian:
    mean, logvar = torch.randn(2, *shape, generator=generator_for(key), dtype=torch.float64)
    return DiagonalGaussian(mean.to(dtype), logvar.to(dtype))


def double(p: DiagonalGaussian) -> DiagonalGaussian:
    return DiagonalGaussian(p.mean.double(), p.logvar.double())


def as_torch(p: DiagonalGaussian) -> Independent:
    return Independent(Normal(p.mean, (p.logvar / 2).exp()), p.mean.ndim - 1)


def test_samples_have_the_right_mean_and_spread_and_are_independent():
    mean, logvar = many()
    z = DiagonalGaussian(mean, logvar).sample(generator_for("samples")).detach()
    std = (LOGVAR / 2).exp()
    assert ((z.mean(0) - MEAN).abs() < 5 * std / SAMPLES**0.5).all()
    assert ((z.std(0) - std).abs() < 5 * std / (2 * SAMPLES) ** 0.5).all()
    correlation = torch.corrcoef(z.T) - torch.eye(3)
    assert (correlation.abs() < 5 / SAMPLES**0.5).all()


def test_the_gradient_goes_through_the_sample():
    """E[z²] = mean² + exp(logvar): its gradients are 2 · mean and exp(logvar)."""
    mean, logvar = many()
    DiagonalGaussian(mean, logvar).sample(generator_for("gradient")).square().sum().backward()
    for gradient, truth in ((mean.grad, 2 * MEAN), (logvar.grad, LOGVAR.exp())):
        error = gradient.std(0) / SAMPLES**0.5
        assert ((gradient.mean(0) - truth).abs() < 5 * error).all()
        assert (error < 0.05).all()  # the test can tell


def test_the_noise_is_the_given_generators_or_else_torchs_own():
    posterior = DiagonalGaussian(torch.zeros(4, 2, 3), torch.zeros(4, 2, 3))
    first, again = (posterior.sample(generator_for("key", 1)) for _ in range(2))
    assert first.shape == (4, 2, 3)
    assert torch.equal(first, again)
    assert not torch.equal(first, posterior.sample(generator_for("key", 2)))

    torch.manual_seed(3)
    first = posterior.sample()
    torch.manual_seed(3)
    assert torch.equal(first, posterior.sample())
    assert not torch.equal(first, posterior.sample())


@pytest.mark.parametrize("shape", [(4, 2), (3, 4, 5, 2)])
def test_kl_and_density_are_those_of_torch(shape):
    q, p = gaussian("q", *shape), gaussian("p", *shape)
    standard = Independent(Normal(torch.zeros(shape).double(), 1.0), len(shape) - 1)
    kl = q.kl()
    assert kl.shape == shape[:1] and kl.dtype == torch.float64
    torch.testing.assert_close(kl, kl_divergence(as_torch(q), standard))
    torch.testing.assert_close(q.kl(p), kl_divergence(as_torch(q), as_torch(p)))
    torch.testing.assert_close(log_prob(q.mean, p), as_torch(p).log_prob(q.mean))


def test_half_precision_is_computed_in_float32():
    q, p = (gaussian(key, 3, 500, dtype=torch.bfloat16) for key in ("q", "p"))
    for found, truth in (
        (q.kl(), double(q).kl()),
        (q.kl(p), double(q).kl(double(p))),
        (log_prob(q.mean, p), log_prob(q.mean.double(), double(p))),
    ):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), truth, rtol=1e-5, atol=0)


@pytest.mark.parametrize("huge", [-1e30, 1e30])
def test_a_huge_log_variance_stays_finite(huge):
    mean = torch.zeros(2, 3, requires_grad=True)
    logvar = torch.full((2, 3), huge, requires_grad=True)
    posterior = DiagonalGaussian(mean, logvar)
    z = posterior.sample(generator_for("huge"))
    (posterior.kl().sum() + z.sum() + (z / posterior.std).sum()).backward()
    for value in (posterior.std, 1 / posterior.std, z, posterior.kl(), mean.grad, logvar.grad):
        assert torch.isfinite(value).all()


def test_the_clamp_is_from_minus_30_to_20():
    logvar = torch.tensor([[-31.0, -30.0, 0.5, 20.0, 21.0]])
    clamped = DiagonalGaussian(torch.zeros(1, 5), logvar).logvar
    assert clamped.tolist() == [[-30.0, -30.0, 0.5, 20.0, 20.0]]


def test_the_functions_are_the_methods():
    p = gaussian("functions", 6, 3)
    assert torch.equal(
        reparameterise(p.mean, p.logvar, generator_for(1)), p.sample(generator_for(1))
    )
    assert torch.equal(gaussian_kl(p.mean, p.logvar), p.kl())
