"""Metrics against what is known exactly: linear Gaussian models, closed forms, SciPy."""

from functools import partial

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.metrics import mutual_info_score
from torch import nn
from torch.distributions import MultivariateNormal

from helpers.budget import generator_for
from helpers.data import ImageSet, load_digits
from helpers.distributions import DiagonalGaussian
from helpers.losses import bernoulli_nll, gaussian_nll
from helpers.metrics import (
    GaussianCodes,
    active_units,
    bootstrap_interval,
    encode_all,
    frechet_distance,
    importance_nll,
    judge_images,
    mutual_information,
    mutual_information_gap,
    train_judge,
)
from helpers.mlp import MLPVAE, Autoencoder

SIGMA = 0.5


class LinearVAE(nn.Module):
    """x = W z + noise, with orthogonal columns in W: log p(x) is known, and the true posterior is diagonal."""

    def __init__(self, error: float = 0.0):
        super().__init__()
        columns = torch.linalg.qr(torch.randn(6, 2, generator=torch.Generator().manual_seed(0)).double()).Q
        self.w = columns * torch.tensor([1.5, 0.7])  # (6, 2)
        self.offset = torch.linspace(-1, 1, 6).double()
        strength = self.w.square().sum(0) / SIGMA**2
        self.variance, self.error = 1 / (strength + 1), error

    def encode(self, x):
        mean = (x.flatten(1) - self.offset) @ self.w / SIGMA**2 * self.variance
        return DiagonalGaussian(mean + self.error, (self.variance * (1 + self.error)).log().expand_as(mean))

    def decode(self, z):
        return (z @ self.w.T + self.offset).unflatten(1, (1, 2, 3))

    def true_nll(self, x):
        covariance = self.w @ self.w.T + SIGMA**2 * torch.eye(6)
        return -MultivariateNormal(self.offset, covariance).log_prob(x.flatten(1))


def some_x(count: int = 5) -> torch.Tensor:
    return torch.randn(count, 1, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


NLL = partial(gaussian_nll, sigma=SIGMA)


@pytest.mark.parametrize("k", [1, 2, 7])
def test_with_the_true_posterior_every_k_gives_the_exact_likelihood(k):
    model = LinearVAE()
    estimate = importance_nll(model, some_x(), k, generator_for(0), NLL)
    torch.testing.assert_close(estimate, model.true_nll(some_x()), rtol=1e-9, atol=1e-9)


def test_with_many_samples_it_converges_to_the_exact_likelihood():
    model = LinearVAE(error=0.5)
    estimate = importance_nll(model, some_x(), 4000, generator_for(0), NLL)
    torch.testing.assert_close(estimate, model.true_nll(some_x()), rtol=0, atol=0.08)
    assert estimate.shape == (5,)


def test_one_sample_is_on_average_the_negative_elbo_and_more_are_tighter():
    model, copies = LinearVAE(error=0.5), 20_000
    x = some_x(1)
    many = x.expand(copies, 1, 2, 3)
    means = {}
    for k in (1, 4, 16):
        estimates = importance_nll(model, many, k, generator_for(k), NLL)
        means[k], error = estimates.mean(), estimates.std() / copies**0.5
        assert error < 0.03
    posterior = model.encode(x)
    spread = (model.w.square() * posterior.logvar.exp()).sum() / (2 * SIGMA**2)
    negative_elbo = NLL(model.decode(posterior.mean), x) + spread + posterior.kl()
    assert abs(means[1] - negative_elbo.item()) < 0.1
    assert means[1] > means[4] + 0.1 > means[16] + 0.15 > model.true_nll(x).item() + 0.15


def test_importance_estimates_build_no_graph_and_repeat():
    model = MLPVAE(2, (8,))
    x = torch.rand(3, 1, 28, 28)
    first, again = (importance_nll(model, x, 3, generator_for(5)) for _ in range(2))
    assert torch.equal(first, again) and not first.requires_grad
    one = importance_nll(model, x, 1, generator_for(5))
    posterior = model.encode(x)
    z = posterior.sample(generator_for(5))
    log_q = torch.distributions.Normal(posterior.mean, posterior.std).log_prob(z).sum(1)
    log_p = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    torch.testing.assert_close(one, bernoulli_nll(model.decode(z), x) + log_q - log_p, rtol=1e-4, atol=1e-3)


def test_active_units():
    means = torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.2, 0.01, 0.0]) + 5
    assert active_units(means) == 2 and active_units(means, threshold=0.5) == 1


def test_encode_all_gives_the_mean_of_every_image_in_order():
    data = ImageSet(torch.randint(0, 255, (7, 1, 28, 28), dtype=torch.uint8), None, "noise")
    vae, plain = MLPVAE(2, (8,)), Autoencoder(2, (8,))
    for batch_size in (3, 100):
        torch.testing.assert_close(encode_all(vae, data, batch_size), vae.encode(data.pixels()).mean)
        torch.testing.assert_close(encode_all(plain, data, batch_size), plain.encode(data.pixels()))
    assert not encode_all(vae, data).requires_grad


def test_encode_all_draws_with_a_generator():
    data = ImageSet(torch.randint(0, 255, (7, 1, 28, 28), dtype=torch.uint8), None, "noise")
    vae, plain = MLPVAE(2, (8,)), Autoencoder(2, (8,))
    posterior = vae.encode(data.pixels())
    drawn = torch.stack([encode_all(vae, data, 3, generator_for("codes", i)) for i in range(500)])
    torch.testing.assert_close(drawn.mean(0), posterior.mean, rtol=0, atol=0.25)
    torch.testing.assert_close(drawn.std(0), posterior.std, rtol=0.15, atol=0)
    torch.testing.assert_close(encode_all(plain, data, generator=generator_for("codes")), encode_all(plain, data))


def gaussian_features(count: int, mean, root, seed: int) -> torch.Tensor:
    """Features whose sample mean and covariance are exactly `mean` and root · rootᵀ."""
    noise = torch.randn(count, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    noise = noise - noise.mean(0)
    white = noise @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(noise.T))).T
    return white @ root.T + mean


def test_frechet_distance_of_diagonal_gaussians():
    one, two = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([3.0, 2.0, 1.0]).double()
    mean = torch.tensor([1.0, -2.0, 0.5]).double()
    a = gaussian_features(50, torch.zeros(3).double(), one.diag(), 0)
    b = gaussian_features(80, mean, two.diag(), 1)
    truth = mean.square().sum() + (one - two).square().sum()
    assert frechet_distance(a, b) == pytest.approx(truth.item(), rel=1e-9)


def test_frechet_distance_of_any_gaussians_against_scipy():
    generator = torch.Generator().manual_seed(0)
    roots = torch.randn(2, 5, 5, generator=generator, dtype=torch.float64)
    a = gaussian_features(60, torch.zeros(5).double(), roots[0], 0)
    b = gaussian_features(60, torch.ones(5).double(), roots[1], 1)
    covariances = [(root @ root.T).numpy() for root in roots]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    truth = 5 + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(truth, rel=1e-6)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)
    assert isinstance(frechet_distance(a.float(), b.float()), float)


@pytest.mark.parametrize("shape", [(100, 8), (100, 1), (20, 64)])
def test_frechet_distance_of_equal_samples_is_zero(shape):
    a = torch.randn(shape, generator=torch.Generator().manual_seed(0)).relu()
    assert abs(frechet_distance(a, a)) < 1e-4


def test_the_bootstrap_interval_covers_the_truth_about_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    hits, widths = 0, []
    for trial in range(100):
        sample = torch.randn(60, 1, generator=generator)
        low, high = bootstrap_interval(lambda s: s.mean().item(), sample, seed=trial)
        hits += low < 0 < high
        widths.append(high - low)
    assert 85 <= hits <= 100
    assert np.mean(widths) == pytest.approx(2 * 1.96 / 60**0.5, rel=0.1)


def test_the_bootstrap_resamples_each_sample_and_repeats():
    a, b = torch.arange(30.0)[:, None], torch.arange(50.0)[:, None]

    def difference(one, other):
        assert len(one) == 30 and len(other) == 50
        return (one.mean() - other.mean()).item()

    interval = bootstrap_interval(difference, a, b, repeats=50, seed=1)
    assert interval == bootstrap_interval(difference, a, b, repeats=50, seed=1)
    assert interval != bootstrap_interval(difference, a, b, repeats=50, seed=2)
    assert interval[0] < -10 < interval[1]


def test_gaussian_codes_have_the_mean_and_covariance_of_the_codes():
    root = torch.tensor([[2.0, 0.0], [-1.5, 0.5]]).double()
    mean = torch.tensor([3.0, -1.0]).double()
    codes = gaussian_features(200, mean, root, 0).float()
    drawn = GaussianCodes(codes).sample(100_000, generator_for("codes"))
    assert drawn.dtype == torch.float32 and drawn.shape == (100_000, 2)
    torch.testing.assert_close(drawn.mean(0).double(), mean, rtol=0, atol=0.03)
    torch.testing.assert_close(torch.cov(drawn.T).double(), root @ root.T, rtol=0, atol=0.06)
    again = GaussianCodes(codes)
    assert torch.equal(again.sample(5, generator_for(1)), again.sample(5, generator_for(1)))


def test_gaussian_codes_of_one_number_and_of_a_dead_one():
    assert GaussianCodes(torch.randn(50, 1)).sample(3).shape == (3, 1)
    dead = torch.cat([torch.randn(50, 1), torch.full((50, 1), 0.25)], dim=1)
    assert GaussianCodes(dead).sample(10)[:, 1] == pytest.approx(0.25, abs=1e-3)


def test_a_judge_learns_digits_in_four_epochs():
    train, test = load_digits("train"), load_digits("test")
    judge = train_judge(train, epochs=4)
    probabilities, features = judge_images(judge, test.pixels(), batch_size=100)
    assert probabilities.shape == (360, 10) and features.shape == (360, 64)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(360))
    assert (probabilities.argmax(1) == test.labels).float().mean() > 0.6  # chance is 0.1
    torch.testing.assert_close(judge(test.pixels()).softmax(1), probabilities)
    assert frechet_distance(features, features[torch.randperm(360)]) < 1e-3
    worse = judge_images(judge, test.pixels().flip(2))[1]
    assert frechet_distance(features, worse) > 1


def test_mutual_information_is_scikit_learns():
    values = torch.randint(4, (3000,), generator=generator_for("values"))
    codes = torch.randn(3000, 3, generator=generator_for("codes")) + values[:, None] * torch.tensor([0.0, 0.5, 3.0])
    found = mutual_information(codes, values, bins=10)
    for column, nats in zip(codes.T.numpy(), found, strict=True):
        edges = np.linspace(column.min(), column.max(), 11)[1:-1]
        assert nats.item() == pytest.approx(mutual_info_score(values.numpy(), np.digitize(column, edges)), abs=2e-3)
    assert found[0] < 0.02 and found[1] < found[2]


def test_the_gap_is_whole_where_one_number_tells_and_none_where_two_do():
    coat, ears = (torch.randint(n, (4000,), generator=generator_for("factor", n)) for n in (6, 2))
    noise = torch.randn(4000, 2, generator=generator_for("noise"))
    alone = torch.stack([coat.float(), ears.float(), *noise.T], dim=1)
    gaps = mutual_information_gap(alone, {"coat": coat, "ears": ears})
    assert gaps["coat"] == pytest.approx(1, abs=0.05) and gaps["ears"] == pytest.approx(1, abs=0.05)
    twice = torch.stack([coat.float(), 5.0 - coat.float(), ears.float(), noise[:, 0]], dim=1)
    gaps = mutual_information_gap(twice, {"coat": coat, "ears": ears})
    assert gaps["coat"] == pytest.approx(0, abs=1e-4) and gaps["ears"] > 0.95


def test_a_number_that_never_changes_tells_nothing():
    values = torch.arange(100) % 4
    assert mutual_information(torch.ones(100, 1), values).item() == pytest.approx(0, abs=1e-6)
