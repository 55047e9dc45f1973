"""The diagonal Gaussian: its samples, their gradients, its KL and its clamp."""

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from helpers.budget import generator_for
from helpers.distributions import DiagonalGaussian

SAMPLES = 200_000
MEAN, LOGVAR = torch.tensor([-1.5, 0.0, 2.0]).double(), torch.tensor([-2.0, 0.0, 1.0]).double()


def many() -> tuple[torch.Tensor, torch.Tensor]:
    """SAMPLES rows of the same three distributions, as leaves that collect gradients per row."""
    return MEAN.repeat(SAMPLES, 1).requires_grad_(), LOGVAR.repeat(SAMPLES, 1).requires_grad_()


def test_samples_have_the_right_mean_and_spread():
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


def test_the_same_generator_gives_the_same_sample():
    posterior = DiagonalGaussian(torch.zeros(4, 2, 3), torch.zeros(4, 2, 3))
    first, again = (posterior.sample(generator_for("key", 1)) for _ in range(2))
    other = posterior.sample(generator_for("key", 2))
    assert first.shape == (4, 2, 3)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_without_a_generator_torchs_own_is_used():
    posterior = DiagonalGaussian(torch.zeros(4, 2), torch.zeros(4, 2))
    torch.manual_seed(3)
    first = posterior.sample()
    torch.manual_seed(3)
    assert torch.equal(first, posterior.sample()) and not torch.equal(first, posterior.sample())


def test_the_mode_is_the_mean():
    mean = torch.randn(4, 2)
    assert torch.equal(DiagonalGaussian(mean, torch.ones(4, 2)).mode(), mean)


@pytest.mark.parametrize("shape", [(4, 2), (3, 4, 5, 2)])
def test_kl_against_torch(shape):
    mean, logvar = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    dims = len(shape) - 1
    q = Independent(Normal(mean, (logvar / 2).exp()), dims)
    p = Independent(Normal(torch.zeros_like(mean), 1.0), dims)
    kl = DiagonalGaussian(mean, logvar).kl()
    assert kl.shape == shape[:1] and kl.dtype == torch.float64
    torch.testing.assert_close(kl, kl_divergence(q, p))


def test_kl_of_half_precision_is_computed_in_float32():
    mean, logvar = torch.full((2, 500), 0.11, dtype=torch.bfloat16), torch.full((2, 500), 0.05, dtype=torch.bfloat16)
    truth = DiagonalGaussian(mean.double(), logvar.double()).kl()
    kl = DiagonalGaussian(mean, logvar).kl()
    assert kl.dtype == torch.float32
    torch.testing.assert_close(kl.double(), truth, rtol=1e-5, atol=0)


@pytest.mark.parametrize("huge", [-1e30, -1e4, 1e4, 1e30])
def test_a_huge_log_variance_stays_finite(huge):
    mean, logvar = torch.zeros(2, 3, requires_grad=True), torch.full((2, 3), huge, requires_grad=True)
    posterior = DiagonalGaussian(mean, logvar)
    z = posterior.sample(generator_for("huge"))
    (posterior.kl().sum() + z.sum() + (z / posterior.std).sum()).backward()
    for value in (posterior.std, 1 / posterior.std, z, posterior.kl(), mean.grad, logvar.grad):
        assert torch.isfinite(value).all()


def test_the_clamp_is_from_minus_30_to_20():
    logvar = torch.tensor([[-31.0, -30.0, 0.5, 20.0, 21.0]])
    assert DiagonalGaussian(torch.zeros(1, 5), logvar).logvar.tolist() == [[-30.0, -30.0, 0.5, 20.0, 20.0]]
