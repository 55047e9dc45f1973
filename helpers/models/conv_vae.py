"""The convolutional attention VAE: Stable Diffusion's autoencoder is one configuration of it.

Images are (B, 3, H, W) in [0, 1], latents (B, latent_channels, H/f, W/f); H and W are divisible by
f, and need not be equal.  The networks inside see pixels in [-1, 1], as Stable Diffusion's do:
`ConvVAE` converts, and nobody else has to.  Notebook 8; Rombach et al. 2022, appendix G;
CompVis/latent-diffusion, configs/autoencoder/autoencoder_kl_32x32x4.yaml.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from helpers import CourseError
from helpers.models.blocks import (
    AttentionBlock,
    Downsample,
    LinearShortcut,
    ResBlock,
    Upsample,
    group_norm,
)
from helpers.models.distributions import DiagonalGaussian, VAEOutput, at_least_float32
from helpers.models.losses import calibrated_gaussian_nll, negative_elbo

RECOMPUTE = partial(checkpoint, use_reentrant=False)


@dataclass(frozen=True)
class VAEConfig:
    """What a ConvVAE looks like.

    channels: the width of each level, from the finest down; f = patch · 2^(levels - 1).
    blocks: residual blocks per encoder level (the decoder has one more).
    patch: the finest level sees the picture as patches of patch × patch pixels; Stable Diffusion's
    sees single pixels.
    linear_shortcut: a linear code beside the network, which learns what that one cannot do.
    groups: of every GroupNorm; each width must be divisible by it.
    quant_conv: the 1×1 convolutions around the latent.
    scaling_factor: 1 / standard deviation of the latents, measured after training; the network
    never applies it.
    pipeline: what else only diffusers' pipelines read, under its names, such as shift_factor.
    """

    channels: tuple[int, ...] = (128, 256, 512, 512)
    latent_channels: int = 4
    blocks: int = 2
    patch: int = 1
    linear_shortcut: bool = False
    groups: int = 32
    heads: int = 1
    mid_attention: bool = True
    quant_conv: bool = True
    scaling_factor: float = 1.0
    pipeline: dict = field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "channels", tuple(self.channels))  # a file's header has a list

    @classmethod
    def stable_diffusion(cls) -> "VAEConfig":
        """kl-f8, the autoencoder of Stable Diffusion 1 and 2: 83,653,863 parameters."""
        return cls(scaling_factor=0.18215)

    @classmethod
    def course(cls, factor: int = 8, latent_channels: int = 4) -> "VAEConfig":
        """The same architecture, small enough for two CPU cores; factor: 4 or 8."""
        widths = {4: (16, 32, 64), 8: (8, 16, 32, 64)}
        if factor not in widths:
            raise CourseError(f"factor is {factor}; VAEConfig.course has 4 and 8.")
        return cls(widths[factor], latent_channels, blocks=1, groups=widths[factor][0] // 4)

    @property
    def factor(self) -> int:
        """How many times smaller the latent is than the image, along each side."""
        return self.patch * 2 ** (len(self.channels) - 1)


def photo_config(factor: int = 8, latent_channels: int = 4) -> VAEConfig:
    """What reconstructs photographs best in minutes; factor: 4 or 8.

    All work is done on patches of 4×4 pixels, beside a linear shortcut, and without attention,
    which costs more than it brings at this size.
    """
    widths = {4: (64,), 8: (64, 128)}
    if factor not in widths:
        raise CourseError(f"factor is {factor}; photo_config has 4 and 8.")
    network = VAEConfig(widths[factor], latent_channels, blocks=1, patch=4, groups=16)
    return replace(network, mid_attention=False, quant_conv=False, linear_shortcut=True)


def is_autoencoder_kl(config: VAEConfig) -> bool:
    """Whether diffusers' AutoencoderKL can be such a network."""
    return config.heads == 1 and config.patch == 1 and not config.linear_shortcut


def check_size(x: torch.Tensor, factor: int) -> None:
    """CourseError unless `factor` divides height and width of x (B, C, H, W).

    It names the sizes that would work.
    """
    height, width = x.shape[2:]
    if height % factor or width % factor:
        works = []
        for side in (height, width):
            near = {max(1, side // factor) * factor, -(-side // factor) * factor}
            works.append(" or ".join(map(str, sorted(near))))
        raise CourseError(
            f"An image of {height}×{width} does not divide by {factor}: "
            f"a height of {works[0]} and a width of {works[1]} would work."
        )


class Stage(nn.Module):
    """One level: residual blocks, then a change of resolution (none at the last level)."""

    def __init__(
        self, inputs: int, outputs: int, blocks: int, groups: int, resample: nn.Module | None
    ):
        super().__init__()
        widths = [inputs] + [outputs] * blocks
        self.blocks = nn.ModuleList(
            ResBlock(a, b, groups) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.resample = resample or nn.Identity()
        self.checkpointing: Callable | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                x = self.checkpointing(block, x)
            else:
                x = block(x)
        return self.resample(x)


class MidBlock(nn.Module):
    """Residual block, attention between all positions, residual block, at the lowest resolution."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        width = config.channels[-1]
        self.res1 = ResBlock(width, width, config.groups)
        self.attn = (
            AttentionBlock(width, config.heads, config.groups)
            if config.mid_attention
            else nn.Identity()
        )
        self.res2 = ResBlock(width, width, config.groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.res2(self.attn(self.res1(x)))


class Encoder(nn.Module):
    """Pixels in [-1, 1], (B, 3, H, W) → 2 · latent_channels maps, (B, 2·latent, H/f, W/f)."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        channels = config.channels
        inputs = (channels[0], *channels[:-1])
        last = len(channels) - 1
        if config.patch == 1:
            self.conv_in = nn.Conv2d(3, channels[0], 3, padding=1)
        else:
            self.conv_in = nn.Conv2d(3, channels[0], config.patch, stride=config.patch)
        self.stages = nn.ModuleList(
            Stage(a, b, config.blocks, config.groups, Downsample(b) if level < last else None)
            for level, (a, b) in enumerate(zip(inputs, channels, strict=True))
        )
        self.mid = MidBlock(config)
        self.norm_out = group_norm(channels[-1], config.groups)
        self.conv_out = nn.Conv2d(channels[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv_in(x)  # (B, C0, H/patch, W/patch)
        for stage in self.stages:
            h = stage(h)  # half the height and width, but for the last one
        h = self.mid(h)  # (B, Cn, H/f, W/f)
        return self.conv_out(F.silu(self.norm_out(h)))  # (B, 2·latent, H/f, W/f)


class Decoder(nn.Module):
    """Latent (B, latent_channels, H/f, W/f) → pixels in about [-1, 1], (B, 3, H, W).

    The encoder's mirror, with one block more per level.
    """

    def __init__(self, config: VAEConfig):
        super().__init__()
        channels = config.channels[::-1]
        inputs = (channels[0], *channels[:-1])
        last = len(channels) - 1
        self.conv_in = nn.Conv2d(config.latent_channels, channels[0], 3, padding=1)
        self.mid = MidBlock(config)
        self.stages = nn.ModuleList(
            Stage(a, b, config.blocks + 1, config.groups, Upsample(b) if level < last else None)
            for level, (a, b) in enumerate(zip(inputs, channels, strict=True))
        )
        self.norm_out = group_norm(channels[-1], config.groups)
        if config.patch == 1:
            self.conv_out = nn.Conv2d(channels[-1], 3, 3, padding=1)
        else:
            self.conv_out = nn.ConvTranspose2d(channels[-1], 3, config.patch, stride=config.patch)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        h = self.mid(self.conv_in(z))  # (B, Cn, H/f, W/f)
        for stage in self.stages:
            h = stage(h)  # twice the height and width, but for the last one
        return self.conv_out(F.silu(self.norm_out(h)))  # (B, 3, H, W)


class GradientCheckpointing:
    """What a network of an `encoder` and a `decoder` needs to be trained with less memory."""

    def set_gradient_checkpointing(self, on: bool = True, function: Callable = RECOMPUTE):
        """Keep only each residual block's input for the backward pass and compute the rest again.

        Less memory in training, about a third more time, the same gradients.
        function(block, x): how that is done.
        """
        for stage in (*self.encoder.stages, *self.decoder.stages):
            stage.checkpointing = function if on else None
        return self


class ConvVAE(GradientCheckpointing, nn.Module):
    """Convolutional VAE with attention in the middle; made of a VAEConfig, or of its fields.

    encode: images (B, 3, H, W) in [0, 1] → DiagonalGaussian over (B, latent_channels, H/f, W/f),
    not scaled; decode: latents → images, about [0, 1] (not clamped).
    Kingma & Welling 2014; Rombach et al. 2022.
    """

    def __init__(self, config: VAEConfig | None = None, **fields):
        super().__init__()
        config = replace(config or VAEConfig.course(), **fields)
        self.config = config
        latent, quant = config.latent_channels, config.quant_conv
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.to_moments = nn.Conv2d(2 * latent, 2 * latent, 1) if quant else nn.Identity()
        self.from_latent = nn.Conv2d(latent, latent, 1) if quant else nn.Identity()
        last = self.to_moments if quant else self.encoder.conv_out
        # posteriors begin narrow, σ = 0.05: decoding pure noise teaches nothing
        nn.init.constant_(last.bias[latent:], -6.0)

        linear = LinearShortcut(config.factor, latent) if config.linear_shortcut else None
        self.linear = linear and linear.lead(last, self.decoder.conv_out)

    def encode(self, x: torch.Tensor) -> DiagonalGaussian:
        check_size(x, self.config.factor)
        pixels = 2 * x - 1
        moments = self.to_moments(self.encoder(pixels))  # (B, 2·latent, H/f, W/f)
        mean, logvar = moments.chunk(2, dim=1)  # 2 × (B, latent, H/f, W/f)
        if self.linear:
            mean = mean + self.linear.encode(pixels)
        return DiagonalGaussian(mean, logvar)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        decoded = self.decoder(self.from_latent(z))  # (B, latent, H/f, W/f) → (B, 3, H, W)
        if self.linear:
            decoded = decoded + self.linear.decode(z)
        return (at_least_float32(decoded) + 1) / 2  # half precision would round once more

    def forward(self, x: torch.Tensor, generator: torch.Generator | None = None) -> VAEOutput:
        posterior = self.encode(x)
        z = posterior.sample(generator)
        return VAEOutput(self.decode(z), posterior, z)


def image_loss(
    model: nn.Module,
    batch: dict[str, torch.Tensor],
    generator: torch.Generator,
    nll=calibrated_gaussian_nll,
    beta: float = 1.0,
) -> dict[str, torch.Tensor]:
    """`negative_elbo` of batch["images"], (B, 3, H, W) in [0, 1], for `fit`."""
    return negative_elbo(model(batch["images"], generator), batch["images"], nll, beta)
