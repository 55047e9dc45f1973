"""The Fréchet distance and its interval against closed forms and SciPy; Gaussian codes."""

import numpy as np
import pytest
import scipy.linalg
import torch

from helpers.metrics.samples import GaussianCodes, bootstrap_interval, frechet_distance
from helpers.rng import generator_for


def gaussian_features(count: int, mean, root, seed: int) -> torch.Tensor:
    """Features whose sample mean and covariance are exactly `mean` and root · rootᵀ."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, len(mean), generator=generator, dtype=torch.float64)
    noise = noise - noise.mean(0)
    white = noise @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(noise.T))).T
    return white @ root.T + mean


def test_frechet_distance_of_diagonal_gaussians():
    one, two = torch.tensor([[1.0, 2.0, 0.5], [3.0, 2.0, 1.0]]).double()
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
    trials, hits, widths = 60, 0, []
    for trial in range(trials):
        sample = torch.randn(60, 1, generator=generator)
        low, high = bootstrap_interval(lambda s: s.mean().item(), sample, repeats=100, seed=trial)
        hits += low < 0 < high
        widths.append(high - low)
    assert 0.85 * trials <= hits
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


def test_the_bootstrap_interval_lies_around_the_statistic_itself():
    """Resampling adds noise, so a distance of resamples is larger than that of the samples."""
    a, b = torch.randn(2, 40, 6, generator=torch.Generator().manual_seed(0))
    distance = frechet_distance(a, b)
    low, high = bootstrap_interval(frechet_distance, a, b, repeats=50)
    assert low < distance < high
    assert abs((low + high) / 2 - distance) < 0.25 * (high - low)


def test_gaussian_codes_have_the_mean_and_covariance_of_the_codes():
    root = torch.tensor([[2.0, 0.0], [-1.5, 0.5]]).double()
    mean = torch.tensor([3.0, -1.0]).double()
    codes = gaussian_features(200, mean, root, 0).float()
    drawn = GaussianCodes(codes).sample(100_000, generator_for("codes"))
    assert drawn.dtype == torch.float32 and drawn.shape == (100_000, 2)
    torch.testing.assert_close(drawn.mean(0).double(), mean, rtol=0, atol=0.03)
    torch.testing.assert_close(torch.cov(drawn.T).double(), root @ root.T, rtol=0, atol=0.06)
    first, again = (GaussianCodes(codes).sample(5, generator_for(1)) for _ in range(2))
    assert torch.equal(first, again)


def test_gaussian_codes_of_one_dimension_and_of_a_dead_one():
    assert GaussianCodes(torch.randn(50, 1)).sample(3).shape == (3, 1)
    dead = torch.cat([torch.randn(50, 1), torch.full((50, 1), 0.25)], dim=1)
    assert GaussianCodes(dead).sample(10)[:, 1] == pytest.approx(0.25, abs=1e-3)
