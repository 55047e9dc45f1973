"""How good is a reconstruction, and what does the latent hold?  PSNR, SSIM, sharpness, block PCA, latent statistics.

Images are (B, C, H, W) in [0, 1]; every measure gives one number per image, (B,).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from helpers import CourseError
from helpers.budget import generator_for
from helpers.conv_vae import ConvVAE, to_signed, to_unit
from helpers.data import ImageSet
from helpers.metrics import active_units
from helpers.trainer import fitting_batch

SSIM_WINDOW = 11  # pixels


def _insist_equal_shapes(decoded: torch.Tensor, x: torch.Tensor) -> None:
    if decoded.shape != x.shape:  # they could broadcast without a word
        raise CourseError(
            f"The decoded images are {tuple(decoded.shape)} and the originals {tuple(x.shape)}: compare equals."
        )


def psnr(decoded: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB: -10 · log10(mean squared error).  3 dB more is half the squared error."""
    _insist_equal_shapes(decoded, x)
    mse = (decoded.float() - x.float()).square().flatten(1).mean(1)
    return -10 * torch.log10(mse.clamp_min(1e-10))  # at most 100 dB


def ssim(decoded: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Structural similarity: 1 for equal images.  Wang et al. 2004: 11×11 Gaussian window of σ 1.5, no padding."""
    _insist_equal_shapes(decoded, x)
    if min(x.shape[2:]) < SSIM_WINDOW:
        raise CourseError(f"SSIM looks through a window of 11×11 pixels; these images are {x.shape[2]}×{x.shape[3]}.")
    offsets = torch.arange(SSIM_WINDOW, device=x.device) - SSIM_WINDOW // 2  # -5 … 5
    taps = torch.exp(-offsets.square() / (2 * 1.5**2))
    window = torch.outer(taps, taps)
    channels = x.shape[1]
    window = (window / window.sum()).expand(channels, 1, -1, -1)

    def smooth(image: torch.Tensor) -> torch.Tensor:
        return F.conv2d(image, window, groups=channels)  # (B, C, H, W) → (B, C, H-10, W-10)

    a, b = decoded.float(), x.float()
    mean_a, mean_b = smooth(a), smooth(b)
    var_a, var_b = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2
    covariance = smooth(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
    structure = (2 * covariance + 0.03**2) / (var_a + var_b + 0.03**2)
    return (luminance * structure).flatten(1).mean(1)


def sharpness(images: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of neighbouring pixels: blur lowers it, noise raises it.  Compare with the original's."""
    across, down = images.diff(dim=3), images.diff(dim=2)
    return across.square().flatten(1).mean(1) + down.square().flatten(1).mean(1)


@torch.no_grad()
def reconstruct(model: ConvVAE, data: ImageSet) -> torch.Tensor:
    """Every image decoded from its posterior's mode: (N, 3, H, W) in [0, 1], float32, on the CPU."""
    model.eval()
    on, rows = next(model.parameters()).device, fitting_batch(data)
    parts = (data[i : i + rows].pixels(on) for i in range(0, len(data), rows))
    return torch.cat([to_unit(model.decode(model.encode(to_signed(part)).mode())).clamp(0, 1).cpu() for part in parts])


class BlockPCA:
    """The linear code of equal rate: each factor × factor block of 3 · factor² values → `numbers` values and back.

    Fitted to about 200,000 blocks (fewer above f8) of a training set, in images drawn by `seed`: what an autoencoder of
    that latent size has to beat.  CourseError where the factor does not divide the images, or the numbers are more than a
    block has values.
    """

    def __init__(self, train: ImageSet, factor: int, numbers: int, seed: int = 0):
        self.factor = factor
        blocks = min(200_000, 40_000_000 // (3 * factor**2))  # large blocks are many values: at most 320 MB as float64
        enough = max(1, blocks * factor**2 // train.images.shape[2:].numel())
        some = torch.randperm(len(train), generator=generator_for("block PCA", seed))[:enough]
        blocks = self._blocks(train[some].pixels()).double()
        if not 1 <= numbers <= min(len(blocks) - 1, blocks.shape[1]):
            raise CourseError(
                f"{numbers} numbers cannot be fitted to {len(blocks)} blocks of {blocks.shape[1]} values each."
            )
        self.mean = blocks.mean(0)
        variances, axes = torch.linalg.eigh(torch.cov(blocks.T))
        self.axes, self.variances = axes[:, -numbers:], variances[-numbers:].clamp_min(0)  # (3·f², numbers), orthonormal

    def _blocks(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[2:]
        if height % self.factor or width % self.factor:
            raise CourseError(f"Images of {height}×{width} cannot be cut into blocks of {self.factor}×{self.factor}.")
        return F.unfold(images, self.factor, stride=self.factor).transpose(1, 2).flatten(0, 1)  # (B·blocks, 3·f²)

    def reconstruct(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) in [0, 1] → the same through the code, clamped to [0, 1]."""
        return self._decode((self._blocks(images) - self.mean) @ self.axes, images.shape)

    def reconstruct_noisy(self, images: torch.Tensor, nats: float, generator: torch.Generator) -> torch.Tensor:
        """The same through a code with noise that says no more than `nats` per image: the best linear VAE of that KL.

        For Gaussian blocks no code of that rate does better: reverse water-filling, Cover & Thomas 2006, section 10.3.3.
        """
        codes = (self._blocks(images) - self.mean) @ self.axes  # (B·blocks, numbers)
        level = self._water_level(nats * len(images) / len(codes))
        kept = (1 - level / self.variances).clamp_min(0)  # (numbers,): axes with less variance than the level are dropped
        noise = torch.randn(codes.shape, generator=generator, dtype=codes.dtype)
        return self._decode(kept * codes + (level * kept).sqrt() * noise, images.shape)

    def _water_level(self, nats: float) -> float:
        """The error per axis at which a block's code says `nats`: Σ max(0, ½ log(variance / level)) = nats."""
        low, high = math.log(1e-12), math.log(float(self.variances.max()))
        for _ in range(60):  # halving: the rate falls as the level rises
            middle = (low + high) / 2
            rate = 0.5 * (self.variances.clamp_min(1e-12).log() - middle).clamp_min(0).sum()
            low, high = (middle, high) if rate > nats else (low, middle)
        return math.exp(high)

    def _decode(self, codes: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        blocks = (codes @ self.axes.T + self.mean).float().unflatten(0, (shape[0], -1))
        return F.fold(blocks.transpose(1, 2), shape[2:], self.factor, stride=self.factor).clamp(0, 1)


@dataclass(frozen=True)
class LatentStatistics:
    """What a data set's latents look like; the tensors have one entry per latent channel.

    mean, std: of posterior samples; kl: nats per image; noise: posterior σ / std of the posterior means, 0 for a
    deterministic encoder and large where a channel says nothing; active: `active_units` of the `numbers` = C·H·W latent
    numbers; scaling_factor: 1 / std of all samples together.
    """

    mean: torch.Tensor
    std: torch.Tensor
    kl: torch.Tensor
    noise: torch.Tensor
    active: int
    numbers: int
    scaling_factor: float


@torch.no_grad()
def latent_statistics(model: ConvVAE, data: ImageSet, seed: int = 0) -> LatentStatistics:
    """LatentStatistics over all images of `data`.  scaling_factor: 1 / standard deviation of all posterior samples.

    Rombach et al. 2022, appendix G, take it from the first batch of training; here it is the whole set.
    """
    model.eval()
    on, rows = next(model.parameters()).device, fitting_batch(data)
    generator = generator_for("latent statistics", seed, device=on)
    means, sigmas, samples, kl = [], [], [], 0.0
    for i in range(0, len(data), rows):
        posterior = model.encode(to_signed(data[i : i + rows].pixels(on)))
        means.append(posterior.mean.cpu())
        sigmas.append(posterior.std.cpu())
        samples.append(posterior.sample(generator).cpu())
        each = 0.5 * (posterior.mean**2 + posterior.std**2 - 1 - posterior.logvar)  # (B, C, h, w)
        kl = kl + each.sum((0, 2, 3)).cpu()
    mean, sigma, sample = torch.cat(means), torch.cat(sigmas), torch.cat(samples)
    spread = mean.std(dim=(0, 2, 3))
    return LatentStatistics(
        mean=sample.mean((0, 2, 3)),
        std=sample.std(dim=(0, 2, 3)),
        kl=kl / len(data),
        noise=sigma.mean((0, 2, 3)) / spread.clamp_min(1e-12),
        active=active_units(mean.flatten(1)),
        numbers=mean[0].numel(),
        scaling_factor=1 / float(sample.std()),
    )


def measure(model: ConvVAE, train: ImageSet, test: ImageSet) -> dict[str, float]:
    """The figures of a trained model on the held-out images `test`.

    {"psnr", "ssim", "block_pca_psnr"}: means over the images, the last one of `BlockPCA` fitted to `train`; "sharpness": as
    a share of the originals'; {"kl", "noise", "active", "numbers", "scaling_factor"}: `latent_statistics`, kl summed and
    noise averaged over channels.
    """
    linear = BlockPCA(train, model.settings.factor, model.settings.latent_channels)
    rows, found = fitting_batch(test), []
    for i in range(0, len(test), rows):  # in parts: a thousand photographs as floats are gigabytes
        part = test[i : i + rows]
        pixels, decoded = part.pixels(), reconstruct(model, part)
        scores = psnr(decoded, pixels), ssim(decoded, pixels), psnr(linear.reconstruct(pixels), pixels)
        found.append(torch.stack([*scores, sharpness(decoded), sharpness(pixels)]))  # (5, B)
    quality, similarity, linear_quality, sharp, original = torch.cat(found, dim=1).mean(1).tolist()
    latents = latent_statistics(model, test)
    return {
        "psnr": quality,
        "ssim": similarity,
        "block_pca_psnr": linear_quality,
        "sharpness": sharp / max(original, 1e-12),
        "kl": latents.kl.sum().item(),
        "noise": latents.noise.mean().item(),
        "active": latents.active,
        "numbers": latents.numbers,
        "scaling_factor": latents.scaling_factor,
    }
