"""Two published recipes for VAEs on dogs, written afresh from their descriptions, as baselines.

Changed, for fairness: the dogs are cropped instead of squashed, and come at the size that all
contenders have.  The published networks take and give pixels in [-1, 1].
"""

import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from helpers.data.image_set import ImageSet
from helpers.env import data_dir, device
from helpers.models.conv_vae import ConvVAE, VAEConfig
from helpers.models.distributions import DiagonalGaussian


class OneByOne(Dataset):
    """Images opened, resized, cropped and normalised one at a time: what the courses write.

    (3, R, R) in [-1, 1].  Drawn dogs, and photographs outside $COURSE_DATA/dogs, come from the
    set's tensor.
    """

    def __init__(self, data: ImageSet):
        folder = data_dir() / "dogs"
        size = data.images.shape[3]
        self.images = data.images
        self.files = [folder / name for name in data.names] if folder.is_dir() else []
        self.transform = transforms.Compose(
            [
                transforms.Resize(size),
                transforms.CenterCrop(size),
                transforms.ToTensor(),
                transforms.Normalize([0.5] * 3, [0.5] * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        if not self.files:
            return 2 * (self.images[index].float() / 255) - 1
        with Image.open(self.files[index]) as image:
            return self.transform(image.convert("RGB"))


# --- the chapter ---


class VisualBlock(nn.Module):
    """GroupNorm(32), SiLU, convolution, twice; the sum is scaled by a learned number."""

    def __init__(self, channels: int, outputs: int | None = None):
        super().__init__()
        outputs = outputs or channels
        self.residual = nn.Sequential(
            nn.GroupNorm(32, channels), nn.SiLU(), nn.Conv2d(channels, outputs, 3, padding=1),
            nn.GroupNorm(32, outputs), nn.SiLU(), nn.Conv2d(outputs, outputs, 3, padding=1),
        )  # fmt: skip
        self.shortcut = nn.Identity() if channels == outputs else nn.Conv2d(channels, outputs, 1)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.shortcut(x) + self.scale * self.residual(x)


class SoftmaxAttention(nn.Module):
    """Four heads, one projection for queries, keys and values, the weights written out."""

    def __init__(self, channels: int, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(32, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x):
        b, c, h, w = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (B, H·W, C)
        split = self.qkv(tokens).view(b, h * w, 3, self.heads, c // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)  # 3 × (B, heads, H·W, C/heads)
        weights = (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(dim=3)
        mixed = (weights @ v).transpose(1, 2).flatten(2)
        return x + self.out(mixed).transpose(1, 2).view(b, c, h, w)


class ChapterVAE(nn.Module):
    """The chapter's network.

    Its decoder's two changes of width, missing as published, are put in.
    """

    def __init__(self):
        super().__init__()

        def down(a, b):
            return nn.Conv2d(a, b, 3, stride=2, padding=1)

        def grow():
            return nn.Upsample(scale_factor=2, mode="nearest")

        self.encoder = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), VisualBlock(32), VisualBlock(32),
            down(32, 64), VisualBlock(64), VisualBlock(64),
            down(64, 128), VisualBlock(128), VisualBlock(128),
            down(128, 128), VisualBlock(128), SoftmaxAttention(128), VisualBlock(128),
            nn.GroupNorm(32, 128), nn.Conv2d(128, 8, 3, padding=1),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Conv2d(4, 128, 3, padding=1),
            VisualBlock(128), SoftmaxAttention(128), VisualBlock(128),
            grow(), VisualBlock(128), VisualBlock(128),
            grow(), VisualBlock(128), VisualBlock(128, 64),
            grow(), VisualBlock(64), VisualBlock(64, 32), VisualBlock(32),
            nn.GroupNorm(32, 32), nn.Conv2d(32, 3, 3, padding=1),
        )  # fmt: skip

    def posterior(self, x):
        return self.encoder(x).chunk(2, dim=1)

    def latent(self, mean):
        """What the decoder takes of a posterior's mean."""
        return mean

    def loss(self, x):
        """Squared error as a mean, plus the KL as a mean."""
        mean, logvar = self.posterior(x)
        decoded = self.decoder(mean + torch.randn_like(mean) * (logvar / 2).exp())
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return F.mse_loss(decoded, x) + kl


# --- the original course ---


class OriginalVAE(nn.Module):
    """The original course's: Stable Diffusion's network (or another one).

    Its KL is that of the two halves of the scaled sample.
    """

    SCALE = 0.18215

    def __init__(self, config: VAEConfig | None = None):
        super().__init__()
        self.vae = ConvVAE(config or VAEConfig.stable_diffusion())
        for layer in self.vae.modules():
            if isinstance(layer, nn.Conv2d):
                # as published: PyTorch's own start, without this course's zeros and narrow noise
                layer.reset_parameters()

    def posterior(self, x):
        moments = self.vae.to_moments(self.vae.encoder(x))
        posterior = DiagonalGaussian(*moments.chunk(2, dim=1))
        return posterior.mean, posterior.logvar

    def latent(self, mean):
        return self.SCALE * mean

    def decoder(self, z):
        return self.vae.decoder(self.vae.from_latent(z / self.SCALE))

    def loss(self, x):
        """Squared error as a mean, plus 0.00025 · the "KL" summed over the batch."""
        mean, logvar = self.posterior(x)
        z = self.SCALE * (mean + torch.randn_like(mean) * (logvar / 2).exp())
        # two channels of a sample, taken for means and log-variances
        half_mean, half_logvar = z.chunk(2, dim=1)
        kl = 0.5 * (half_mean.square() + half_logvar.exp() - 1 - half_logvar).sum()
        return F.mse_loss(self.decoder(z), x) + 0.00025 * kl


RECIPES: dict[str, tuple[Callable, int]] = {  # what makes the model, batch size
    "chapter": (ChapterVAE, 64),
    "original": (OriginalVAE, 8),
    # sees more images in the time
    "original, with the course's network": (partial(OriginalVAE, VAEConfig.course(8)), 8),
}


def train_published(name: str, train: ImageSet, seconds: float, seed: int) -> tuple[nn.Module, int]:
    """(model, images seen) of Adam 1e-4 in fp32 over a per-image DataLoader."""
    torch.manual_seed(seed)
    make, batch_size = RECIPES[name]
    on = device()
    model = make().to(on)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    loader = DataLoader(OneByOne(train), batch_size=min(batch_size, len(train)), shuffle=True)
    seen = 0
    started = time.perf_counter()
    while True:
        for x in loader:
            optimizer.zero_grad()
            loss = model.loss(x.to(on))
            loss.backward()
            optimizer.step()
            seen += len(x)
            float(loss.detach())  # a GPU has finished
            if time.perf_counter() - started > seconds:
                return model.eval(), seen


@torch.no_grad()
def measure_published(model: nn.Module, data: ImageSet) -> tuple[torch.Tensor, dict[str, float]]:
    """(every image decoded from the posterior's mean, figures of what the encoder really gives).

    The images: (N, 3, H, W) in [0, 1].  The figures: "kl" in nats per image, and "noise",
    σ / standard deviation of the means.
    """
    on = next(model.parameters()).device
    decoded, pairs = [], []
    for i in range(0, len(data), 32):
        mean, logvar = model.posterior(2 * data[i : i + 32].pixels(on) - 1)
        images = (model.decoder(model.latent(mean)) + 1) / 2
        decoded.append(images.clamp(0, 1).cpu())
        pairs.append((mean.cpu(), logvar.cpu()))
    mean, logvar = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).flatten(1).sum(1).mean()
    noise = (logvar / 2).exp().mean((0, 2, 3)) / mean.std((0, 2, 3))
    return torch.cat(decoded), {"kl": kl.item(), "noise": noise.mean().item()}
