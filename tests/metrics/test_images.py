"""PSNR, SSIM, sharpness, reconstructions and block PCA: against closed forms and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.optimize import brentq
from sklearn.decomposition import PCA
from torch import nn

from helpers import CourseError
from helpers.data.image_set import ImageSet
from helpers.metrics import images as image_metrics
from helpers.metrics.images import (
    BlockPCA,
    measure_reconstructions,
    psnr,
    reconstruct,
    sharpness,
    ssim,
)
from helpers.metrics.latents import latent_statistics
from helpers.models.conv_vae import ConvVAE, VAEConfig

HEIGHT, WIDTH = 16, 24


def photos(count: int = 6, height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> ImageSet:
    """Smooth random pictures, uint8 (count, 3, height, width)."""
    noise = np.random.default_rng(seed).normal(size=(count, 3, height, width))
    smooth = gaussian_filter(noise, sigma=(0, 0.5, 2, 1))
    stored = torch.from_numpy((smooth * 200 + 128).clip(0, 255)).to(torch.uint8)
    return ImageSet(stored, None, "smooth noise")


def tiny_model() -> ConvVAE:
    torch.manual_seed(0)
    return ConvVAE(VAEConfig((8, 8, 8), latent_channels=2, blocks=1, groups=2))


@pytest.fixture
def four_at_a_time(monkeypatch):
    """Data comes in parts of four images, and six images leave a smaller one."""

    def in_fours(data, device):
        for start in range(0, len(data), 4):
            yield {"images": data[start : start + 4].pixels(device)}

    monkeypatch.setattr(image_metrics, "in_chunks", in_fours)


# --- PSNR, SSIM, sharpness ---


def test_psnr_of_known_errors():
    x = torch.rand(3, 3, 5, 7) * 0.5
    errors = torch.tensor([0.1, 0.01, 0.5])
    expected = [-20 * math.log10(error) for error in errors]
    assert psnr(x + errors[:, None, None, None], x).tolist() == pytest.approx(expected, abs=1e-3)
    assert psnr(x, x).tolist() == [100.0] * 3


def test_ssim_of_one_window_is_its_formula():
    """Wang et al. 2004, eq. 13: eleven pixels square, weighted by a Gaussian of sigma 1.5."""
    a, b = torch.rand(2, 4, 3, 11, 11, generator=torch.Generator().manual_seed(0)).unbind()
    a, b = a / 10, (0.7 * a + 0.3 * b) / 10  # of little contrast, with something in common
    offsets = torch.arange(11) - 5
    weights = torch.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    weights = weights / weights.sum()

    def mean(image):
        return (weights * image.double()).sum((2, 3))  # (B, C)

    covariance = mean(a * b) - mean(a) * mean(b)
    variances = mean(a * a) - mean(a) ** 2 + mean(b * b) - mean(b) ** 2
    luminance = (2 * mean(a) * mean(b) + 1e-4) / (mean(a) ** 2 + mean(b) ** 2 + 1e-4)
    expected = luminance * (2 * covariance + 9e-4) / (variances + 9e-4)  # (B, C)
    torch.testing.assert_close(ssim(a, b), expected.mean(1).float(), rtol=0, atol=1e-5)


def test_ssim_is_1_for_equal_images_and_falls_with_noise_image_by_image():
    x = photos().pixels()
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    strength = torch.linspace(0.02, 0.3, len(x))[:, None, None, None]
    found = ssim((x + strength * noise).clamp(0, 1), x)
    assert found.shape == (6,) and found[0] > 0.9 and found[-1] < 0.5
    assert torch.equal(found.sort(descending=True).values, found)
    torch.testing.assert_close(ssim(x, x), torch.ones(6))


def test_ssim_of_images_smaller_than_its_window_is_one_sentence():
    with pytest.raises(CourseError, match="11×11 pixels; these images are 10×32"):
        ssim(torch.rand(1, 3, 10, 32), torch.rand(1, 3, 10, 32))


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_unequal_shapes_are_refused(measure):
    with pytest.raises(CourseError, match="compare equals"):
        measure(torch.rand(4, 3, 16, 24), torch.rand(3, 16, 24))


def test_sharpness_against_a_loop():
    x = torch.rand(2, 3, 4, 6)
    truth = []
    for image in x.double().numpy():
        down = [(a - b) ** 2 for c in image for a, b in zip(c[1:].flat, c[:-1].flat, strict=True)]
        across = [
            (a - b) ** 2 for c in image for a, b in zip(c[:, 1:].flat, c[:, :-1].flat, strict=True)
        ]
        truth.append(np.mean(down) + np.mean(across))
    assert sharpness(x).tolist() == pytest.approx(truth, rel=1e-5)


def test_blur_lowers_sharpness_and_noise_raises_it():
    x = photos().pixels()
    assert (sharpness(nn.functional.avg_pool2d(x, 3, 1, 1)) < sharpness(x)).all()
    assert (sharpness(x + 0.2 * torch.randn(x.shape)) > sharpness(x)).all()


# --- reconstructions ---


def test_reconstruct_is_the_same_as_one_image_at_a_time(four_at_a_time):
    model, data = tiny_model().train(), photos()
    with torch.no_grad():
        model.decoder.conv_out.weight.mul_(20)  # beyond black and white
    decoded = reconstruct(model, data)
    assert not model.training and not decoded.requires_grad and decoded.dtype == torch.float32
    assert decoded.shape == (6, 3, HEIGHT, WIDTH)
    assert decoded.min() == 0 and decoded.max() == 1
    for image, one in zip(decoded, data.images, strict=True):
        expected = model.decode(model.encode(one[None].float() / 255).mean).clamp(0, 1)
        torch.testing.assert_close(image, expected[0], rtol=0, atol=1e-5)


def test_measuring_gathers_the_figures(four_at_a_time):
    model, train, test = tiny_model(), photos(20), photos(6, seed=1)
    pixels, decoded = test.pixels(), reconstruct(model, test)
    latents = latent_statistics(model, test)
    expected = {
        "psnr": psnr(decoded, pixels).mean().item(),
        "ssim": ssim(decoded, pixels).mean().item(),
        "block_pca_psnr": psnr(BlockPCA(train, 4, 2).reconstruct(pixels), pixels).mean().item(),
        "sharpness": (sharpness(decoded).mean() / sharpness(pixels).mean()).item(),
        "kl": latents.kl.sum().item(),
        "noise": latents.noise.mean().item(),
        "active": latents.active,
        "dimensions": 2 * 4 * 6,
        "scaling_factor": latents.scaling_factor,
    }
    assert measure_reconstructions(model.train(), train, test) == pytest.approx(expected, rel=1e-5)


# --- block PCA ---


def blocks_of(images: torch.Tensor, factor: int) -> np.ndarray:
    """(blocks, 3 · factor²), image by image, row by row."""
    return np.stack([
        image[:, i : i + factor, j : j + factor].reshape(-1)
        for image in images.numpy()
        for i in range(0, images.shape[2], factor)
        for j in range(0, images.shape[3], factor)
    ])  # fmt: skip


@pytest.mark.parametrize(("factor", "dimensions"), [(4, 4), (8, 3)])
def test_block_pca_is_scikit_learns_pca_of_the_blocks(factor, dimensions):
    train, test = photos(20), photos(3, seed=1).pixels()
    blocks = blocks_of(train.pixels(), factor).astype(np.float64)
    pca = PCA(dimensions, svd_solver="full").fit(blocks)
    restored = pca.inverse_transform(pca.transform(blocks_of(test, factor))).clip(0, 1)
    found = BlockPCA(train, factor, dimensions).reconstruct(test)
    np.testing.assert_allclose(blocks_of(found, factor), restored, rtol=0, atol=1e-5)


def test_block_pca_gets_better_with_more_dimensions_and_is_exact_with_all():
    train, test = photos(30), photos(3, seed=1).pixels()
    codes = [BlockPCA(train, 4, dimensions) for dimensions in (1, 4, 16, 48)]
    quality = [psnr(code.reconstruct(test), test).mean().item() for code in codes]
    assert quality[0] + 3 < quality[1] < quality[2] < quality[3] and quality[3] > 80


def test_block_pca_clamps_to_the_range_of_pictures():
    stretched = photos(30).images.float().sub(128).mul(6).add(128).clamp(0, 255)
    extremes = ImageSet(stretched.to(torch.uint8), None, "extremes")
    decoded = BlockPCA(extremes, 8, 8).reconstruct(extremes.pixels())
    assert decoded.min() == 0 and decoded.max() == 1


@pytest.mark.parametrize(
    ("count", "factor", "images"),
    [(3000, 2, 97), (3000, 1, 24), (20, 2, 20), (3000, 16, 1627)],  # 16: 40 million values
)
def test_block_pca_of_a_large_set_is_fitted_to_some_of_it(count, factor, images):
    class Asked(Exception):
        """How many images are asked for."""

    class Large(ImageSet):
        def __getitem__(self, index):
            raise Asked(len(index))

    black = torch.zeros(1, 3, 64, 128, dtype=torch.uint8).expand(count, -1, -1, -1)
    with pytest.raises(Asked, match=f"^{images}$"):
        BlockPCA(Large(black, None, "black"), factor, 1)


def test_the_noisy_linear_code_has_the_error_of_reverse_water_filling():
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([0.1, 0.05, 0.02, 0.01, 0.005, 0.002] * 2)  # of the 12 values of a block
    values = 0.5 + spread * torch.randn(40, 400, 12, generator=generator)
    images = nn.functional.fold(values.transpose(1, 2), (40, 40), 2, stride=2)  # (40, 3, 40, 40)
    stored = (images * 255).round().clamp(0, 255).to(torch.uint8)
    linear = BlockPCA(ImageSet(stored, None, "noise"), 2, 12)
    variances = linear.variances.numpy()

    for nats in (3.0, 12.0):  # per block

        def surplus(level, nats=nats):
            return 0.5 * np.log(np.maximum(variances / level, 1)).sum() - nats

        level = brentq(surplus, 1e-9, 1)
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
    ("count", "dimensions", "words"),
    [(9, 49, "216 blocks of 48"), (9, 0, "0 dimensions"), (1, 24, "24 blocks")],
)
def test_more_dimensions_than_the_blocks_hold_are_one_sentence(count, dimensions, words):
    with pytest.raises(CourseError, match=words):
        BlockPCA(photos(count), 4, dimensions)
