"""PSNR, SSIM, sharpness, block PCA and latent statistics: against NumPy, SciPy, scikit-learn, torch.distributions."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.optimize import brentq
from sklearn.decomposition import PCA
from torch import nn
from torch.distributions import Normal, kl_divergence

from helpers import CourseError, image_metrics
from helpers.conv_vae import ConvVAE, VAEConfig, to_signed, to_unit
from helpers.data import ImageSet
from helpers.distributions import DiagonalGaussian
from helpers.image_metrics import BlockPCA, latent_statistics, measure, psnr, reconstruct, sharpness, ssim

HEIGHT, WIDTH = 16, 24


def photos(count: int = 6, height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> ImageSet:
    """Smooth random pictures, uint8 (count, 3, height, width)."""
    noise = np.random.default_rng(seed).normal(size=(count, 3, height, width))
    smooth = gaussian_filter(noise, sigma=(0, 0.5, 2, 1))
    return ImageSet(torch.from_numpy((smooth * 200 + 128).clip(0, 255)).to(torch.uint8), None, "smooth noise")


def tiny_model(**fields) -> ConvVAE:
    torch.manual_seed(0)
    return ConvVAE(VAEConfig((8, 8, 8), latent_channels=2, blocks=1, groups=2, **fields))


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    x = photos().pixels()
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    return (x + noise * torch.linspace(0.01, 0.3, len(x))[:, None, None, None]).clamp(0, 1), x


# --- PSNR, SSIM, sharpness ---


def test_psnr_of_known_errors():
    x = torch.rand(3, 3, 5, 7) * 0.5
    errors = torch.tensor([0.1, 0.01, 0.5])
    expected = [-20 * math.log10(error) for error in errors]
    assert psnr(x + errors[:, None, None, None], x).tolist() == pytest.approx(expected, abs=1e-3)
    assert psnr(x, x).tolist() == [100.0] * 3


def test_ssim_against_scipy():
    decoded, x = pair()
    truth = []
    for a, b in zip(decoded.double().numpy(), x.double().numpy(), strict=True):

        def blur(image):  # radius int(3.5 · 1.5 + 0.5) = 5: eleven pixels
            return gaussian_filter(image, sigma=(0, 1.5, 1.5), truncate=3.5)

        mean_a, mean_b = blur(a), blur(b)
        var_a, var_b, both = blur(a**2) - mean_a**2, blur(b**2) - mean_b**2, blur(a * b) - mean_a * mean_b
        index = (2 * mean_a * mean_b + 1e-4) * (2 * both + 9e-4) / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))
        truth.append(index[:, 5:-5, 5:-5].mean())
    assert ssim(decoded, x).tolist() == pytest.approx(truth, abs=1e-4)
    assert truth[0] > 0.9 > 0.5 > truth[-1]
    torch.testing.assert_close(ssim(x, x), torch.ones(len(x)))


def test_ssim_of_images_smaller_than_its_window_is_one_sentence():
    assert ssim(torch.rand(1, 3, 11, 12), torch.rand(1, 3, 11, 12)).shape == (1,)
    with pytest.raises(CourseError, match="11×11 pixels; these images are 10×32"):
        ssim(torch.rand(1, 3, 10, 32), torch.rand(1, 3, 10, 32))


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_unequal_shapes_are_refused(measure):
    with pytest.raises(CourseError, match="compare equals"):
        measure(torch.rand(4, 3, 16, 24), torch.rand(3, 16, 24))


def test_sharpness_against_a_loop():
    x = torch.rand(2, 3, 4, 6)
    truth = []
    for image in x:
        down = [(image[c, i + 1, j] - image[c, i, j]) ** 2 for c in range(3) for i in range(3) for j in range(6)]
        across = [(image[c, i, j + 1] - image[c, i, j]) ** 2 for c in range(3) for i in range(4) for j in range(5)]
        truth.append(float(sum(down) / len(down) + sum(across) / len(across)))
    assert sharpness(x).tolist() == pytest.approx(truth, rel=1e-5)


def test_blur_lowers_sharpness_and_noise_raises_it():
    x = photos().pixels()
    blurred = nn.functional.avg_pool2d(x, 3, 1, 1)
    assert (sharpness(blurred) < sharpness(x)).all() and (sharpness(x) < sharpness(x + 0.2 * torch.randn(x.shape))).all()


# --- reconstructions ---


def test_reconstruct_is_the_same_as_one_image_at_a_time(monkeypatch):
    monkeypatch.setattr(image_metrics, "fitting_batch", lambda data: 4)  # 6 images: a whole part and a smaller one
    model, data = tiny_model().train(), photos()
    decoded = reconstruct(model, data)
    assert not model.training and not decoded.requires_grad and decoded.dtype == torch.float32
    assert decoded.shape == (6, 3, HEIGHT, WIDTH)
    for image, one in zip(decoded, data.images, strict=True):
        x = to_signed(one[None].float() / 255)
        expected = to_unit(model.decode(model.encode(x).mean)).clamp(0, 1)
        torch.testing.assert_close(image, expected[0], rtol=0, atol=1e-5)


def test_reconstructions_stay_in_the_range_of_pictures():
    model = tiny_model()
    with torch.no_grad():
        model.decoder.conv_out.weight.mul_(100)
    decoded = reconstruct(model, photos())
    assert decoded.min() == 0 and decoded.max() == 1


# --- block PCA ---


def blocks_of(images: torch.Tensor, factor: int) -> np.ndarray:
    """(blocks, 3 · factor²), image by image, row by row."""
    return np.stack([
        image[:, i : i + factor, j : j + factor].reshape(-1)
        for image in images.numpy()
        for i in range(0, images.shape[2], factor)
        for j in range(0, images.shape[3], factor)
    ])  # fmt: skip


@pytest.mark.parametrize(("factor", "numbers"), [(4, 4), (8, 3)])
def test_block_pca_is_scikit_learns_pca_of_the_blocks(factor, numbers):
    train, test = photos(20), photos(3, seed=1).pixels()
    pca = PCA(numbers, svd_solver="full").fit(blocks_of(train.pixels(), factor).astype(np.float64))
    restored = pca.inverse_transform(pca.transform(blocks_of(test, factor)))
    truth, places = torch.zeros(test.shape), iter(restored)
    for n in range(len(test)):
        for i in range(0, HEIGHT, factor):
            for j in range(0, WIDTH, factor):
                block = torch.from_numpy(next(places)).view(3, factor, factor)
                truth[n, :, i : i + factor, j : j + factor] = block.clamp(0, 1)
    torch.testing.assert_close(BlockPCA(train, factor, numbers).reconstruct(test), truth, rtol=0, atol=1e-5)


def test_block_pca_gets_better_with_more_numbers_and_is_exact_with_all():
    train, test = photos(30), photos(3, seed=1).pixels()
    quality = [psnr(BlockPCA(train, 4, numbers).reconstruct(test), test).mean().item() for numbers in (1, 4, 16, 48)]
    assert quality == sorted(quality) and quality[0] + 3 < quality[1] < quality[2] and quality[3] > 80


def test_block_pca_clamps_to_the_range_of_pictures():
    extremes = ImageSet(photos(30).images.float().sub(128).mul(6).add(128).clamp(0, 255).to(torch.uint8), None, "extremes")
    decoded = BlockPCA(extremes, 8, 8).reconstruct(extremes.pixels())
    assert decoded.min() == 0 and decoded.max() == 1


def test_block_pca_of_a_large_set_is_fitted_to_some_of_it(monkeypatch):
    seen, cov = [], torch.cov
    monkeypatch.setattr(torch, "cov", lambda blocks: seen.append(blocks.shape[1]) or cov(blocks))
    large = ImageSet(torch.zeros(1, 3, 64, 128, dtype=torch.uint8).expand(300, -1, -1, -1), None, "black")
    BlockPCA(large, 2, 1)
    BlockPCA(large, 1, 1)
    BlockPCA(large[:20], 2, 1)
    assert seen == [97 * 2048, 24 * 8192, 20 * 2048]


def test_large_blocks_are_fewer_so_that_they_fit_into_memory(monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "cov", lambda blocks: seen.append(blocks.shape) or torch.eye(len(blocks)).double())
    large = ImageSet(torch.zeros(1, 3, 64, 128, dtype=torch.uint8).expand(3000, -1, -1, -1), None, "black")
    BlockPCA(large, 16, 1)
    assert seen == [(768, 1627 * 32)]  # 40 million values


def test_block_pca_repeats():
    train, test = photos(20), photos(2, seed=1).pixels()
    assert torch.equal(BlockPCA(train, 4, 5).reconstruct(test), BlockPCA(train, 4, 5).reconstruct(test))


def test_the_noisy_linear_code_has_the_error_of_reverse_water_filling():
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([0.1, 0.05, 0.02, 0.01, 0.005, 0.002] * 2)  # of the 12 values of a 2×2 block
    values = 0.5 + spread * torch.randn(40, 400, 12, generator=generator)
    images = torch.nn.functional.fold(values.transpose(1, 2), (40, 40), 2, stride=2)  # (40, 3, 40, 40)
    linear = BlockPCA(ImageSet((images * 255).round().clamp(0, 255).to(torch.uint8), None, "noise"), 2, 12)
    variances = linear.variances.numpy()
    for nats in (3.0, 12.0):  # per block
        level = brentq(lambda at, nats=nats: 0.5 * np.log(np.maximum(variances / at, 1)).sum() - nats, 1e-9, 1)
        decoded = linear.reconstruct_noisy(images, nats * 400, torch.Generator().manual_seed(1))
        mse = (decoded - images).square().mean().item()
        assert mse == pytest.approx(np.minimum(level, variances).mean(), rel=0.03)
    exact = linear.reconstruct_noisy(images, 1e5, torch.Generator().manual_seed(1))
    assert (exact - images).abs().max() < 0.01


def test_blocks_that_do_not_fit_are_one_sentence():
    with pytest.raises(CourseError, match="^Images of 18×24 cannot be cut into blocks of 4×4.$"):
        BlockPCA(photos(2, height=18), 4, 2)
    linear = BlockPCA(photos(2), 4, 2)
    with pytest.raises(CourseError, match="Images of 16×22"):
        linear.reconstruct(torch.rand(1, 3, 16, 22))


@pytest.mark.parametrize(
    ("count", "numbers", "words"), [(9, 49, "216 blocks of 48"), (9, 0, "0 numbers"), (1, 24, "24 blocks")]
)
def test_more_numbers_than_the_blocks_hold_are_one_sentence(count, numbers, words):
    with pytest.raises(CourseError, match=words):
        BlockPCA(photos(count), 4, numbers)


# --- latents ---


class KnownPosterior(nn.Module):
    """Image n has the posterior N(mean[n], std²), (2, 1, 3) numbers: its first pixel says which n it is."""

    def __init__(self, means: torch.Tensor, std: torch.Tensor):
        super().__init__()
        self.means, self.std = means, std
        self.weight = nn.Parameter(torch.zeros(1))

    def encode(self, x):
        which = ((x[:, 0, 0, 0] + 1) / 2 * 255).round().long()
        mean = self.means[which]
        return DiagonalGaussian(mean, (2 * self.std.log()).expand_as(mean))


def known(count: int = 250) -> tuple[KnownPosterior, ImageSet]:
    """Channel 0 spreads its means by 2 around 1, with noise 0.5; channel 1 says next to nothing."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([2.0, 0.01]).view(2, 1, 1)
    means = torch.randn(count, 2, 1, 3, generator=generator) * spread + torch.tensor([1.0, 0.0]).view(2, 1, 1)
    images = torch.arange(count).view(count, 1, 1, 1).expand(count, 3, 4, 12).to(torch.uint8)
    return KnownPosterior(means, torch.tensor([0.5, 1.0]).view(2, 1, 1)), ImageSet(images, None, "known")


def test_latent_statistics_of_a_known_posterior(monkeypatch):
    monkeypatch.setattr(image_metrics, "fitting_batch", lambda data: 100)
    model, data = known()
    statistics = latent_statistics(model.train(), data)
    assert not model.training
    torch.testing.assert_close(statistics.mean, torch.tensor([1.0, 0.0]), rtol=0, atol=0.25)
    torch.testing.assert_close(statistics.std, torch.tensor([(4 + 0.25) ** 0.5, 1.0]), rtol=0.1, atol=0)
    divergence = kl_divergence(Normal(model.means, model.std.expand_as(model.means)), Normal(0.0, 1.0))
    torch.testing.assert_close(statistics.kl, divergence.sum((2, 3)).mean(0))
    torch.testing.assert_close(statistics.noise, torch.tensor([0.25, 100.0]), rtol=0.1, atol=0)
    assert (statistics.active, statistics.numbers) == (3, 6)
    everything = torch.cat([statistics.std[:1].square() + 1, statistics.std[1:].square()]).mean() - 0.25
    assert statistics.scaling_factor == pytest.approx(float(everything) ** -0.5, rel=0.1)


def test_latent_statistics_repeat_and_depend_on_the_seed():
    model, data = known()
    first, again, other = (latent_statistics(model, data, seed) for seed in (0, 0, 1))
    assert all(torch.equal(getattr(first, name), getattr(again, name)) for name in ("mean", "std", "kl", "noise"))
    assert first.scaling_factor == again.scaling_factor != other.scaling_factor


def test_the_scaling_factor_brings_samples_to_standard_deviation_1():
    model, data = tiny_model(), photos(20)
    factor = latent_statistics(model, data).scaling_factor
    z = model.encode(to_signed(data.pixels())).sample(torch.Generator().manual_seed(5)).detach()
    assert float(z.std()) * factor == pytest.approx(1, abs=0.03)


def test_measure_gathers_the_figures(monkeypatch):
    model, train, test = tiny_model(), photos(20), photos(7, seed=1)
    pixels, decoded, latents = test.pixels(), reconstruct(model, test), latent_statistics(model, test)
    expected = {
        "psnr": psnr(decoded, pixels).mean().item(),
        "ssim": ssim(decoded, pixels).mean().item(),
        "block_pca_psnr": psnr(BlockPCA(train, 4, 2).reconstruct(pixels), pixels).mean().item(),
        "sharpness": (sharpness(decoded).mean() / sharpness(pixels).mean()).item(),
        "kl": latents.kl.sum().item(),
        "noise": latents.noise.mean().item(),
        "active": latents.active,
        "numbers": 2 * 4 * 6,
        "scaling_factor": latents.scaling_factor,
    }
    assert measure(model, train, test) == pytest.approx(expected, rel=1e-5)
    monkeypatch.setattr(image_metrics, "fitting_batch", lambda data: 3)
    parted = measure(model, train, test)
    assert parted["psnr"] == pytest.approx(expected["psnr"], rel=1e-5) and parted["kl"] == pytest.approx(expected["kl"])
