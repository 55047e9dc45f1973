"""The five blocks that Stable Diffusion's autoencoder is made of (notebook 8).

Feature maps are (B, C, H, W), tokens (B, T, C).  Rombach et al. 2022; the numbers (eps, padding,
order of the layers) are those of CompVis/latent-diffusion, ldm/modules/diffusionmodules/model.py.
"""

import torch
import torch.nn.functional as F
from torch import nn

from helpers import CourseError

EPS = 1e-6  # GroupNorm's usual 1e-5 loads the same weights and is silently wrong


def group_norm(channels: int, groups: int) -> nn.GroupNorm:
    """GroupNorm: each group of channels of each image gets mean 0 and variance 1.  Wu & He 2018."""
    if channels % groups:
        raise CourseError(
            f"{channels} channels cannot be shared by {groups} groups: "
            "choose groups that divide every width."
        )
    return nn.GroupNorm(groups, channels, eps=EPS)


class ResBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))): (B, inputs, H, W) → (B, outputs, H, W).

    The shortcut is the identity, or a 1×1 convolution where the width changes.  He et al. 2016
    (the pre-activation form); conv2 starts at zero: Goyal et al. 2017, section 5.1.
    """

    def __init__(self, inputs: int, outputs: int, groups: int = 32):
        super().__init__()
        self.norm1 = group_norm(inputs, groups)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = group_norm(outputs, groups)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

        # a fresh block is its shortcut: the network begins shallow and deepens as it learns
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(F.silu(self.norm1(x)))  # (B, outputs, H, W)
        h = self.conv2(F.silu(self.norm2(h)))
        return self.shortcut(x) + h


class SelfAttention(nn.Module):
    """Multi-head self-attention over tokens (B, T, C) → (B, T, C).

    Each head compares queries with keys in C / heads dimensions; `weights` gives what it looks at.
    Vaswani et al. 2017, section 3.2.
    """

    def __init__(self, channels: int, heads: int = 1):
        super().__init__()
        if channels % heads:
            raise CourseError(f"{channels} channels cannot be shared by {heads} heads.")
        self.heads = heads
        self.q = nn.Linear(channels, channels)
        self.k = nn.Linear(channels, channels)
        self.v = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def split(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)  # → (B, heads, T, C/heads)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        q = self.split(self.q(tokens))  # (B, heads, T, C/heads)
        k = self.split(self.k(tokens))
        v = self.split(self.v(tokens))
        mixed = F.scaled_dot_product_attention(q, k, v)  # never holds the (T, T) weights in memory
        return self.out(mixed.transpose(1, 2).flatten(2))  # (B, heads, T, C/heads) → (B, T, C)

    def weights(self, tokens: torch.Tensor) -> torch.Tensor:
        """softmax(q kᵀ / √d), (B, heads, T, T): row t says how much token t takes from each."""
        q = self.split(self.q(tokens))
        k = self.split(self.k(tokens))
        return (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(dim=3)


class AttentionBlock(SelfAttention):
    """Self-attention between the positions of a feature map, normalised and residual.

    (B, C, H, W) → (B, C, H, W).
    """

    def __init__(self, channels: int, heads: int = 1, groups: int = 32):
        super().__init__(channels, heads)
        self.norm = group_norm(channels, groups)

    def tokens(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x).flatten(2).transpose(1, 2)  # (B, C, H, W) → (B, H·W, C)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = super().forward(self.tokens(x))
        return x + mixed.transpose(1, 2).reshape(x.shape)  # (B, H·W, C) → (B, C, H, W)


class Downsample(nn.Module):
    """Half the height and width: a 3×3 convolution of stride 2.

    Padded by one pixel at the right and bottom only, as the published weights expect it.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # (B, C, H, W) → (B, C, H/2, W/2)


class Upsample(nn.Module):
    """Twice the height and width: every pixel repeated, then a 3×3 convolution.

    A transposed convolution leaves a checkerboard where the stride does not divide the kernel:
    Odena et al., Distill 2016.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        doubled = F.interpolate(x, scale_factor=2.0, mode="nearest")  # (B, C, 2H, 2W)
        return self.conv(doubled)


class LinearShortcut(nn.Module):
    """A linear autoencoder of blocks: a strided convolution, and a transposed one back.

    encode: (B, 3, H, W) → (B, latent_channels, H/f, W/f); decode: the way back.  Beside a deep
    network and begun as block PCA it leaves that network what no linear code can do; compare the
    shortcuts of Chen et al. 2024 (Deep Compression Autoencoder), which have no weights.
    """

    def __init__(self, factor: int, latent_channels: int):
        super().__init__()
        self.encode = nn.Conv2d(3, latent_channels, factor, stride=factor)
        self.decode = nn.ConvTranspose2d(latent_channels, 3, factor, stride=factor)

    @torch.no_grad()
    def lead(self, last_encoder: nn.Conv2d, last_decoder: nn.Module) -> "LinearShortcut":
        """Make the last layers of the deep networks small: they begin as corrections of this."""
        last_encoder.weight[: self.encode.out_channels] *= 0.1  # the means
        nn.init.zeros_(last_decoder.weight)
        nn.init.zeros_(last_decoder.bias)
        return self

    @torch.no_grad()
    def start_as(self, pca) -> None:
        """Become a `BlockPCA` of pictures in [0, 1], here in [-1, 1]; the largest axis comes first.

        Each code then has variance 1 over the blocks that the PCA was fitted to.
        """
        axes = pca.axes.flip(1)  # (3·f², latent_channels)
        mean = 2 * pca.mean - 1
        sd = 2 * pca.variances.flip(0).clamp_min(1e-12).sqrt()
        shape = self.encode.weight.shape  # (latent, 3, f, f), in both convolutions
        self.encode.weight.copy_((axes / sd).T.reshape(shape))
        self.encode.bias.copy_(-(mean @ axes) / sd)
        self.decode.weight.copy_((axes * sd).T.reshape(shape))
        self.decode.bias.copy_(mean.view(3, -1).mean(1))  # one number per colour
