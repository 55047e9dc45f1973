"""How good is a reconstruction?  PSNR, SSIM, sharpness, and the linear code that is to be beaten.

Images are (B, C, H, W) in [0, 1]; every measure gives one number per image, (B,).
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from helpers import CourseError
from helpers.data.image_set import ImageSet
from helpers.data.loader import in_chunks
from helpers.metrics.latents import latent_statistics
from helpers.rng import generator_for

SSIM_WINDOW = 11  # pixels


def _check_equal_shapes(decoded: torch.Tensor, x: torch.Tensor) -> None:
    if decoded.shape != x.shape:  # they could broadcast without a word
        raise CourseError(
            f"The decoded images are {tuple(decoded.shape)} and the originals {tuple(x.shape)}: "
            "compare equals."
        )


def psnr(decoded: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB: -10 · log10(mean squared error).

    3 dB more is half the squared error.
    """
    _check_equal_shapes(decoded, x)
    mse = (decoded.float() - x.float()).square().flatten(1).mean(1)
    return -10 * torch.log10(mse.clamp_min(1e-10))  # at most 100 dB


def ssim(decoded: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Structural similarity: 1 for equal images.

    scikit-image's, with the window of Wang et al. 2004: Gaussian, 11×11, σ 1.5.
    """
    from skimage.metrics import structural_similarity

    _check_equal_shapes(decoded, x)
    if min(x.shape[2:]) < SSIM_WINDOW:
        raise CourseError(
            f"SSIM looks through a window of {SSIM_WINDOW}×{SSIM_WINDOW} pixels; these images are "
            f"{x.shape[2]}×{x.shape[3]}."
        )
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    pairs = zip(decoded.float().cpu().numpy(), x.float().cpu().numpy(), strict=True)
    found = [
        structural_similarity(a, b, data_range=1.0, channel_axis=0, **settings) for a, b in pairs
    ]
    return torch.tensor(found, dtype=torch.float32)


def sharpness(images: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of neighbouring pixels; compare it with the original's.

    Blur lowers it, noise raises it.
    """
    across = images.diff(dim=3).square().flatten(1).mean(1)
    down = images.diff(dim=2).square().flatten(1).mean(1)
    return across + down


@torch.no_grad()
def reconstruct(model: nn.Module, data: ImageSet) -> torch.Tensor:
    """Each image decoded from its posterior's mode: (N, 3, H, W) in [0, 1], float32, on the CPU."""
    model.eval()
    decoded = []
    for batch in in_chunks(data, next(model.parameters()).device):
        z = model.encode(batch["images"]).mode()
        decoded.append(model.decode(z).clamp(0, 1).float().cpu())
    return torch.cat(decoded)


class BlockPCA:
    """The linear code of as many dimensions: what an autoencoder of that latent size has to beat.

    Each factor × factor block of 3 · factor² values → `dimensions` and back.  Fitted to about
    200,000 blocks (fewer above f8) of a training set, in images drawn by `seed`.  CourseError where
    the factor does not divide the images, or a block has fewer values than `dimensions`.
    """

    def __init__(self, train: ImageSet, factor: int, dimensions: int, seed: int = 0):
        self.factor = factor
        values = 3 * factor**2
        count = min(200_000, 40_000_000 // values)  # large blocks: at most 320 MB as float64
        enough = max(1, count * factor**2 // train.images.shape[2:].numel())
        order = torch.randperm(len(train), generator=generator_for("block PCA", seed))
        blocks = self._blocks(train[order[:enough]].pixels()).double()
        if not 1 <= dimensions <= min(len(blocks) - 1, blocks.shape[1]):
            raise CourseError(
                f"{dimensions} dimensions cannot be fitted to {len(blocks)} blocks of "
                f"{blocks.shape[1]} values each."
            )
        self.mean = blocks.mean(0)
        variances, axes = torch.linalg.eigh(torch.cov(blocks.T))
        self.axes = axes[:, -dimensions:]  # (3·f², dimensions), orthonormal
        self.variances = variances[-dimensions:].clamp_min(0)

    def _blocks(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[2:]
        if height % self.factor or width % self.factor:
            raise CourseError(
                f"Images of {height}×{width} cannot be cut into blocks of "
                f"{self.factor}×{self.factor}."
            )
        unfolded = F.unfold(images, self.factor, stride=self.factor)  # (B, 3·f², blocks)
        return unfolded.transpose(1, 2).flatten(0, 1)  # (B·blocks, 3·f²)

    def reconstruct(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) in [0, 1] → the same through the code, clamped to [0, 1]."""
        return self._decode((self._blocks(images) - self.mean) @ self.axes, images.shape)

    def reconstruct_noisy(
        self, images: torch.Tensor, nats: float, generator: torch.Generator
    ) -> torch.Tensor:
        """The same through a code with noise that says no more than `nats` per image.

        The best linear VAE of that KL.  For Gaussian blocks no code of that rate does better:
        reverse water-filling, Cover & Thomas 2006, section 10.3.3.
        """
        codes = (self._blocks(images) - self.mean) @ self.axes  # (B·blocks, dimensions)
        level = self._water_level(nats * len(images) / len(codes))
        # axes with less variance than the level are dropped
        gain = (1 - level / self.variances).clamp_min(0)  # (dimensions,)
        noise = torch.randn(codes.shape, generator=generator, dtype=codes.dtype)
        return self._decode(gain * codes + (level * gain).sqrt() * noise, images.shape)

    def _water_level(self, nats: float) -> float:
        """The error per axis at which a block's code says `nats`.

        Σ max(0, ½ log(variance / level)) = nats; the rate falls as the level rises, so halve.
        """
        low, high = math.log(1e-12), math.log(float(self.variances.max()))
        for _ in range(60):
            middle = (low + high) / 2
            rate = 0.5 * (self.variances.clamp_min(1e-12).log() - middle).clamp_min(0).sum()
            low, high = (middle, high) if rate > nats else (low, middle)
        return math.exp(high)

    def _decode(self, codes: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        blocks = (codes @ self.axes.T + self.mean).float().unflatten(0, (shape[0], -1))
        folded = F.fold(blocks.transpose(1, 2), shape[2:], self.factor, stride=self.factor)
        return folded.clamp(0, 1)  # (B, 3, H, W)


def measure_reconstructions(model: nn.Module, train: ImageSet, test: ImageSet) -> dict[str, float]:
    """The figures of a trained ConvVAE on the held-out images `test`.

    "psnr", "ssim", "block_pca_psnr": means over the images, the last one of `BlockPCA` fitted to
    `train`.  "sharpness": as a share of the originals'.  "kl", "noise", "active", "dimensions",
    "scaling_factor": `latent_statistics`, kl summed and noise averaged over channels.
    """
    linear = BlockPCA(train, model.config.factor, model.config.latent_channels)
    model.eval()
    on = next(model.parameters()).device
    found = []
    for batch in in_chunks(test, on):  # in parts: a thousand photographs as floats are gigabytes
        pixels = batch["images"].cpu()
        with torch.no_grad():
            decoded = model.decode(model.encode(batch["images"]).mode()).clamp(0, 1).float().cpu()
        scores = [psnr(decoded, pixels), ssim(decoded, pixels)]
        scores += [psnr(linear.reconstruct(pixels), pixels)]
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
        "dimensions": latents.dimensions,
        "scaling_factor": latents.scaling_factor,
    }
