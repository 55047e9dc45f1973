"""The convolutional attention VAE: Stable Diffusion's autoencoder is one configuration of it (notebook 05).

Images are (B, 3, H, W) in [-1, 1], latents (B, latent_channels, H/f, W/f); H and W are divisible by f, and need not
be equal.  Rombach et al. 2022, appendix G; CompVis/latent-diffusion, configs/autoencoder/autoencoder_kl_32x32x4.yaml.
"""

from dataclasses import asdict, dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from helpers import CourseError
from helpers.blocks import AttentionBlock, Downsample, ResBlock, Upsample, group_norm
from helpers.data import Batch
from helpers.distributions import DiagonalGaussian
from helpers.losses import calibrated_gaussian_nll, negative_elbo
from helpers.mlp import VAEOutput


@dataclass(frozen=True)
class VAEConfig:
    """What a ConvVAE looks like.

    channels: the width of each level, from full resolution down; f = 2^(levels - 1).  blocks: residual blocks per encoder
    level (the decoder has one more).  groups: of every GroupNorm; each width must be divisible by it.  quant_conv: the
    1×1 convolutions around the latent.  scaling_factor: 1 / standard deviation of the latents, measured after training;
    the network never applies it.
    """

    channels: tuple[int, ...] = (128, 256, 512, 512)
    latent_channels: int = 4
    blocks: int = 2
    groups: int = 32
    heads: int = 1
    mid_attention: bool = True
    quant_conv: bool = True
    scaling_factor: float = 1.0

    @classmethod
    def stable_diffusion(cls) -> "VAEConfig":
        """kl-f8, the autoencoder of Stable Diffusion 1 and 2: 83,653,863 parameters in 248 tensors."""
        return cls(scaling_factor=0.18215)

    @classmethod
    def course(cls, factor: int = 8, latent_channels: int = 4) -> "VAEConfig":
        """The same architecture, small enough for a free GPU and for two CPU cores; factor: 4 or 8."""
        widths = {4: (16, 32, 64), 8: (8, 16, 32, 64)}
        if factor not in widths:
            raise CourseError(f"factor is {factor}; VAEConfig.course has 4 and 8.")
        return cls(widths[factor], latent_channels, blocks=1, groups=widths[factor][0] // 4)

    @property
    def factor(self) -> int:
        """How many times smaller the latent is than the image, along each side."""
        return 2 ** (len(self.channels) - 1)


def to_signed(pixels: torch.Tensor) -> torch.Tensor:
    """[0, 1] → [-1, 1], the range that the network works in."""
    return 2 * pixels - 1


def to_unit(images: torch.Tensor) -> torch.Tensor:
    """[-1, 1] → [0, 1], the range of pictures and of the quality measures."""
    return (images + 1) / 2


def check_size(x: torch.Tensor, factor: int) -> None:
    """CourseError with the sizes that would work, unless `factor` divides height and width of x (B, C, H, W)."""
    height, width = x.shape[2:]
    if height % factor or width % factor:
        near = [sorted({max(1, side // factor) * factor, -(-side // factor) * factor}) for side in (height, width)]
        works = [" or ".join(map(str, sizes)) for sizes in near]
        raise CourseError(
            f"An image of {height}×{width} does not divide by {factor}: a height of {works[0]} and a width of {works[1]} "
            "would work."
        )


class Stage(nn.Module):
    """One level: residual blocks, then a change of resolution (none at the last level)."""

    def __init__(self, inputs: int, outputs: int, blocks: int, groups: int, resample: nn.Module | None):
        super().__init__()
        widths = [inputs] + [outputs] * blocks
        self.blocks = nn.ModuleList(ResBlock(a, b, groups) for a, b in zip(widths, widths[1:], strict=False))
        self.resample = resample or nn.Identity()
        self.recompute = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            saving = self.recompute and torch.is_grad_enabled()
            x = checkpoint(block, x, use_reentrant=False) if saving else block(x)
        return self.resample(x)


class Middle(nn.Module):
    """Residual block, attention between all positions, residual block, at the lowest resolution."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        width = config.channels[-1]
        self.res1 = ResBlock(width, width, config.groups)
        self.attn = AttentionBlock(width, config.heads, config.groups) if config.mid_attention else nn.Identity()
        self.res2 = ResBlock(width, width, config.groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.res2(self.attn(self.res1(x)))


class Encoder(nn.Module):
    """Image (B, 3, H, W) → 2 · latent_channels feature maps (B, 2·latent, H/f, W/f)."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        channels, groups = config.channels, config.groups
        inputs = (channels[0], *channels[:-1])
        self.conv_in = nn.Conv2d(3, channels[0], 3, padding=1)
        self.stages = nn.ModuleList(
            Stage(a, b, config.blocks, groups, Downsample(b) if level < len(channels) - 1 else None)
            for level, (a, b) in enumerate(zip(inputs, channels, strict=True))
        )
        self.mid = Middle(config)
        self.norm_out = group_norm(channels[-1], groups)
        self.conv_out = nn.Conv2d(channels[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv_in(x)  # (B, C0, H, W)
        for stage in self.stages:
            h = stage(h)  # (B, Ci, H/2, W/2), but for the last one
        h = self.mid(h)  # (B, Cn, H/f, W/f)
        return self.conv_out(F.silu(self.norm_out(h)))  # (B, 2·latent, H/f, W/f)


class Decoder(nn.Module):
    """Latent (B, latent_channels, H/f, W/f) → image (B, 3, H, W): the encoder's mirror, one block more per level."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        channels, groups = config.channels[::-1], config.groups
        inputs = (channels[0], *channels[:-1])
        self.conv_in = nn.Conv2d(config.latent_channels, channels[0], 3, padding=1)
        self.mid = Middle(config)
        self.stages = nn.ModuleList(
            Stage(a, b, config.blocks + 1, groups, Upsample(b) if level < len(channels) - 1 else None)
            for level, (a, b) in enumerate(zip(inputs, channels, strict=True))
        )
        self.norm_out = group_norm(channels[-1], groups)
        self.conv_out = nn.Conv2d(channels[-1], 3, 3, padding=1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        h = self.mid(self.conv_in(z))  # (B, Cn, H/f, W/f)
        for stage in self.stages:
            h = stage(h)  # (B, Ci, 2H, 2W), but for the last one
        return self.conv_out(F.silu(self.norm_out(h)))  # (B, 3, H, W)


class ConvVAE(nn.Module):
    """Convolutional VAE with attention in the middle; VAEConfig or its dict.  Kingma & Welling 2014; Rombach et al. 2022.

    encode: images (B, 3, H, W) in [-1, 1] → DiagonalGaussian over (B, latent_channels, H/f, W/f), not scaled;
    decode: latents → images, about [-1, 1] (not clamped).  recompute(): less memory in training, more time.
    """

    def __init__(self, config: VAEConfig | None = None, **fields):
        super().__init__()
        settings = replace(config or VAEConfig.course(), **fields)
        self.settings = replace(settings, channels=tuple(settings.channels))
        latent = self.settings.latent_channels
        self.encoder, self.decoder = Encoder(self.settings), Decoder(self.settings)
        self.to_moments = nn.Conv2d(2 * latent, 2 * latent, 1) if self.settings.quant_conv else nn.Identity()
        self.from_latent = nn.Conv2d(latent, latent, 1) if self.settings.quant_conv else nn.Identity()
        last = self.to_moments if self.settings.quant_conv else self.encoder.conv_out
        nn.init.constant_(last.bias[latent:], -6.0)  # posteriors begin narrow, σ = 0.05: decoding pure noise teaches nothing

    @property
    def config(self) -> dict:
        return asdict(self.settings)

    def encode(self, x: torch.Tensor) -> DiagonalGaussian:
        check_size(x, self.settings.factor)
        mean, logvar = self.to_moments(self.encoder(x)).chunk(2, dim=1)  # 2 × (B, latent, H/f, W/f)
        return DiagonalGaussian(mean, logvar)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.from_latent(z))  # (B, latent, H/f, W/f) → (B, 3, H, W)

    def forward(self, x: torch.Tensor, generator: torch.Generator | None = None) -> VAEOutput:
        posterior = self.encode(x)
        z = posterior.sample(generator)
        return VAEOutput(self.decode(z), posterior, z)

    def recompute(self, on: bool = True) -> "ConvVAE":
        """Keep only each residual block's input for the backward pass and compute the rest again: less memory, more time."""
        for stage in (*self.encoder.stages, *self.decoder.stages):
            stage.recompute = on
        return self


def image_loss(
    model: nn.Module, batch: Batch, generator: torch.Generator, nll=calibrated_gaussian_nll, beta: float = 1.0
) -> dict[str, torch.Tensor]:
    """`negative_elbo` of images in [0, 1] for a model that works in [-1, 1]; errors are those of [0, 1] pixels."""
    output = model(to_signed(batch.images), generator)
    return negative_elbo(output._replace(decoded=to_unit(output.decoded)), batch.images, nll, beta)
