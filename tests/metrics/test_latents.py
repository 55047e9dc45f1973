"""What a latent holds: against torch.distributions, scikit-learn, and posteriors that are known."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from helpers.data.image_set import ImageSet
from helpers.metrics import latents
from helpers.metrics.latents import (
    active_units,
    aggregate_posterior,
    encode_all,
    latent_statistics,
    mutual_information,
    mutual_information_gap,
    slerp,
)
from helpers.models.conv_vae import ConvVAE, VAEConfig
from helpers.models.distributions import DiagonalGaussian
from helpers.models.mlp_vae import MLPVAE, Autoencoder
from helpers.rng import generator_for

# --- codes ---


def noise(count: int, *shape: int) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (count, *shape), dtype=torch.uint8, generator=generator)
    return ImageSet(images, torch.arange(count), "noise")


def test_encode_all_gives_the_mean_of_every_image_in_order():
    data = noise(1100, 1, 28, 28)  # more than one part
    vae, plain = MLPVAE(2, (8,)), Autoencoder(2, (8,))
    codes = encode_all(vae, data)
    torch.testing.assert_close(codes, vae.encode(data.pixels()).mean)
    torch.testing.assert_close(encode_all(plain, data), plain.encode(data.pixels()))
    assert not codes.requires_grad


def test_encode_all_draws_with_a_generator():
    vae, plain = MLPVAE(2, (8,)), Autoencoder(2, (8,))
    one = noise(1, 1, 28, 28)
    many = one[torch.zeros(2000, dtype=torch.long)]
    posterior = vae.encode(one.pixels())
    drawn = encode_all(vae, many, generator_for("codes"))
    torch.testing.assert_close(drawn.mean(0), posterior.mean[0], rtol=0, atol=0.15)
    torch.testing.assert_close(drawn.std(0), posterior.std[0], rtol=0.1, atol=0)
    torch.testing.assert_close(
        encode_all(plain, one, generator_for("codes")), encode_all(plain, one)
    )


def test_active_units():
    means = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    means = means * torch.tensor([1.0, 0.2, 0.01, 0.0]) + 5
    assert active_units(means) == 2 and active_units(means, threshold=0.5) == 1


# --- statistics ---


class KnownPosterior(nn.Module):
    """Image n has the posterior N(means[n], std²); the brightness of its first pixel is n."""

    def __init__(self, means: torch.Tensor, std: torch.Tensor):
        super().__init__()
        self.means = means
        self.std = std
        self.weight = nn.Parameter(torch.zeros(1))

    def encode(self, x):
        mean = self.means[(x[:, 0, 0, 0] * 255).round().long()]
        return DiagonalGaussian(mean, (2 * self.std.log()).expand_as(mean))


def known(count: int = 250) -> tuple[KnownPosterior, ImageSet]:
    """Channel 0 spreads its means by 2 around 1, with noise 0.5; channel 1 says next to nothing."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([2.0, 0.01]).view(2, 1, 1)
    centre = torch.tensor([1.0, 0.0]).view(2, 1, 1)
    means = centre + spread * torch.randn(count, 2, 1, 3, generator=generator)
    images = torch.arange(count).view(count, 1, 1, 1).expand(count, 3, 4, 12).to(torch.uint8)
    std = torch.tensor([0.5, 1.0]).view(2, 1, 1)
    return KnownPosterior(means, std), ImageSet(images, None, "known")


def test_latent_statistics_of_a_known_posterior(monkeypatch):
    def in_hundreds(data, device):
        for start in range(0, len(data), 100):
            yield {"images": data[start : start + 100].pixels(device)}

    monkeypatch.setattr(latents, "in_chunks", in_hundreds)
    model, data = known()
    statistics = latent_statistics(model.train(), data)
    assert not model.training
    torch.testing.assert_close(statistics.mean, torch.tensor([1.0, 0.0]), rtol=0, atol=0.25)
    torch.testing.assert_close(statistics.std, torch.tensor([4.25**0.5, 1.0]), rtol=0.1, atol=0)
    posterior = Normal(model.means, model.std.expand_as(model.means))
    divergence = kl_divergence(posterior, Normal(0.0, 1.0))  # (N, 2, 1, 3)
    torch.testing.assert_close(statistics.kl, divergence.sum((2, 3)).mean(0))
    torch.testing.assert_close(statistics.noise, torch.tensor([0.25, 100.0]), rtol=0.1, atol=0)
    assert (statistics.active, statistics.dimensions) == (3, 6)
    variance = (4.25 + 1.0) / 2 + 0.25  # of both channels together: within, and between
    assert statistics.scaling_factor == pytest.approx(variance**-0.5, rel=0.1)


def test_latent_statistics_repeat_and_depend_on_the_seed():
    model, data = known()
    first, again, other = (latent_statistics(model, data, seed) for seed in (0, 0, 1))
    assert torch.equal(first.mean, again.mean) and torch.equal(first.std, again.std)
    assert first.scaling_factor == again.scaling_factor != other.scaling_factor


def test_the_scaling_factor_brings_samples_to_standard_deviation_1():
    torch.manual_seed(0)
    model = ConvVAE(VAEConfig((8, 8, 8), latent_channels=2, blocks=1, groups=2))
    data = noise(20, 3, 16, 24)
    factor = latent_statistics(model, data).scaling_factor
    z = model.encode(data.pixels()).sample(generator_for("another draw")).detach()
    assert float(z.std()) * factor == pytest.approx(1, abs=0.03)


# --- mutual information ---


def test_mutual_information_of_a_noisy_copy_is_known():
    """With chance e one of four equally likely values is taken for a wrong one, at random."""
    generator, e = generator_for("values"), 0.3
    values = torch.randint(4, (40_000,), generator=generator)
    wrong = torch.rand(len(values), generator=generator) < e
    other = (values + torch.randint(1, 4, values.shape, generator=generator)) % 4
    noisy = torch.where(wrong, other, values)
    codes = torch.stack([noisy.float(), values * -2.5, torch.ones(len(values)), noisy * 1e-6], 1)
    confusion = e * math.log(e / 3) + (1 - e) * math.log(1 - e)
    expected = torch.tensor([math.log(4) + confusion, math.log(4), 0, math.log(4) + confusion])
    torch.testing.assert_close(mutual_information(codes, values), expected, rtol=0, atol=0.01)


def test_few_bins_cannot_tell_what_many_can():
    values = torch.arange(600) % 6
    codes = values[:, None].float()
    told = [mutual_information(codes, values, bins).item() for bins in (1, 2, 20)]
    assert told == pytest.approx([0, math.log(2), math.log(6)], abs=1e-5)


def test_the_gap_is_whole_where_one_dimension_tells_and_none_where_two_do():
    coat, ears = (torch.randint(n, (4000,), generator=generator_for("factor", n)) for n in (6, 2))
    noise = torch.randn(4000, 2, generator=generator_for("noise"))
    alone = torch.stack([coat.float(), ears.float(), *noise.T], dim=1)
    gaps = mutual_information_gap(alone, {"coat": coat, "ears": ears})
    assert gaps["coat"] == pytest.approx(1, abs=0.05) and gaps["ears"] == pytest.approx(1, abs=0.05)
    twice = torch.stack([coat.float(), 5.0 - coat.float(), ears.float(), noise[:, 0]], dim=1)
    gaps = mutual_information_gap(twice, {"coat": coat, "ears": ears})
    assert gaps["coat"] == pytest.approx(0, abs=1e-4) and gaps["ears"] > 0.95


# --- the aggregate posterior, and walks ---


def test_the_aggregate_posterior_has_the_moments_of_draws_of_all():
    mean, logvar = torch.randn(2, 30, 3, generator=generator_for("pools"))
    mean = mean @ torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
    centre, covariance = aggregate_posterior(mean, logvar)
    pools = DiagonalGaussian(mean.repeat(10_000, 1), logvar.repeat(10_000, 1))
    draws = pools.sample(generator_for("draws"))
    torch.testing.assert_close(centre, draws.mean(0), rtol=0, atol=0.02)
    torch.testing.assert_close(covariance, torch.cov(draws.T), rtol=0.02, atol=0.05)


def test_the_covariance_is_the_second_moment_less_that_of_the_mean():
    mean, logvar = torch.randn(2, 5, 3, generator=generator_for("few pools")).double()
    each = [torch.outer(m, m) + torch.diag(v) for m, v in zip(mean, logvar.exp(), strict=True)]
    centre = mean.mean(0)
    expected = torch.stack(each).mean(0) - torch.outer(centre, centre)
    torch.testing.assert_close(aggregate_posterior(mean, logvar), (centre, expected))


def test_the_angle_does_not_depend_on_the_lengths():
    a, b = torch.randn(2, 7, generator=generator_for("ends")).double()
    b = 3 * b
    angle = torch.acos(torch.cosine_similarity(a, b, dim=0))
    expected = (torch.sin(0.7 * angle) * a + torch.sin(0.3 * angle) * b) / torch.sin(angle)
    torch.testing.assert_close(slerp(a, b, 0.3), expected)


def test_a_great_circle_keeps_the_length_and_divides_the_angle():
    a, b = (2 * torch.nn.functional.normalize(torch.randn(7), dim=0) for _ in range(2))
    angle = torch.acos(torch.dot(a, b) / 4)
    for t in (0.0, 0.3, 1.0):
        point = slerp(a, b, t)
        assert point.norm().item() == pytest.approx(2, rel=1e-4)
        cosine = torch.dot(point, a) / 4
        assert cosine.item() == pytest.approx(math.cos(t * angle), abs=1e-4)
