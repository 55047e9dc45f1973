"""Variants of the VAE (notebook 5): what changes in `MLPVAE`, and what changes in its loss.

Images are (B, 1, 28, 28) in [0, 1]; `decode` returns logits, whose sigmoid is the image.  β-VAE is
a VAE with another β in `negative_elbo`; `DrawingVAE` is the one whose factors are measured.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from helpers.models.distributions import DiagonalGaussian, VAEOutput
from helpers.models.losses import bernoulli_nll, negative_elbo
from helpers.models.mlp_vae import MLPVAE, Autoencoder, mlp
from helpers.rng import draw, randn_like


class DrawingVAE(MLPVAE):
    """`MLPVAE` for coloured drawings, (B, 3, 32, 32) in [0, 1].

    What β does is measured on drawn dogs, whose factors are known.
    """

    SHAPE = (3, 32, 32)

    def __init__(self, latent: int = 10, hidden: tuple[int, ...] = (400, 400)):
        super().__init__(latent, hidden)
        pixels = math.prod(self.SHAPE)
        self.encoder = mlp(pixels, *hidden, 2 * latent)
        self.decoder = mlp(latent, *reversed(hidden), pixels)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.decoder(z).unflatten(1, self.SHAPE)  # (B, latent) → (B, 3, 32, 32)


class ConditionalVAE(nn.Module):
    """`MLPVAE` whose encoder and decoder are also told the label: q(z|x, y) and p(x|z, y).

    What the label says need not be in z, and z is left with the style, if it is too small for more
    (notebook 5).  Sohn, Lee & Yan 2015.
    """

    def __init__(self, latent: int = 3, hidden: tuple[int, ...] = (512, 256), classes: int = 10):
        super().__init__()
        self.config = {"latent": latent, "hidden": list(hidden), "classes": classes}
        self.classes = classes
        self.encoder = mlp(784 + classes, *hidden, 2 * latent)
        self.decoder = mlp(latent + classes, *reversed(hidden), 784)

    def _with(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        one_hot = F.one_hot(labels, self.classes).to(x.dtype)
        return torch.cat([x, one_hot], dim=1)  # (B, D) → (B, D + classes)

    def encode(self, x: torch.Tensor, labels: torch.Tensor) -> DiagonalGaussian:
        mean, logvar = self.encoder(self._with(x.flatten(1), labels)).chunk(2, dim=1)
        return DiagonalGaussian(mean, logvar)

    def decode(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.decoder(self._with(z, labels)).unflatten(1, (1, 28, 28))

    def forward(
        self, x: torch.Tensor, labels: torch.Tensor, generator: torch.Generator | None = None
    ) -> VAEOutput:
        posterior = self.encode(x, labels)
        z = posterior.sample(generator)
        return VAEOutput(self.decode(z, labels), posterior, z)


def conditional_loss(
    model: ConditionalVAE, batch: dict[str, torch.Tensor], generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """The negative ELBO of log p(x|y), nats per image."""
    return negative_elbo(model(batch["images"], batch["labels"], generator), batch["images"])


class AdversarialAutoencoder(Autoencoder):
    """An autoencoder and a discriminator that tells its codes from draws of N(0, I).

    Makhzani et al. 2015, section 2.
    """

    def __init__(self, latent: int = 20, hidden: tuple[int, ...] = (400,)):
        super().__init__(latent, hidden)
        self.discriminator = mlp(latent, 128, 128, 1)


def adversarial_autoencoder_loss(
    model: AdversarialAutoencoder,
    batch: dict[str, torch.Tensor],
    generator: torch.Generator,
    weight: float = 30.0,
) -> dict[str, torch.Tensor]:
    """Reconstruction + weight · generator loss + the discriminator's own loss; nats per image.

    One optimizer does for both players: the discriminator loss sees codes without a gradient, and
    the generator loss sees the discriminator's weights without one.
    """
    z = model.encode(batch["images"])
    reconstruction = bernoulli_nll(model.decode(z), batch["images"])

    frozen = {name: w.detach() for name, w in model.discriminator.named_parameters()}
    logits = functional_call(model.discriminator, frozen, (z,)).float()
    generator_loss = F.softplus(-logits).squeeze(1)

    drawn = randn_like(z, generator)
    real, fake = model.discriminator(drawn).float(), model.discriminator(z.detach()).float()
    discriminator_loss = (F.softplus(-real) + F.softplus(fake)).squeeze(1)
    return {
        "loss": reconstruction + weight * generator_loss + discriminator_loss,
        "reconstruction": reconstruction,
        "generator": generator_loss,
        "discriminator": discriminator_loss,
    }


class HierarchicalOutput(NamedTuple):
    """What `HierarchicalVAE.forward` returns.

    Logits, and the posteriors, priors and samples of both levels, the upper level first.
    """

    decoded: torch.Tensor
    posteriors: tuple[DiagonalGaussian, DiagonalGaussian]
    priors: tuple[DiagonalGaussian, DiagonalGaussian]
    z: tuple[torch.Tensor, torch.Tensor]


class HierarchicalVAE(nn.Module):
    """Two levels: z2 ~ N(0, I), z1 ~ p(z1|z2), x ~ p(x|z1, z2).  Ladder VAE, Sønderby et al. 2016.

    The posterior of z1 merges what the image says with what z2 says, each weighted with its
    precision.  The decoder sees both levels, as in BIVA (Maaløe et al. 2019).
    """

    def __init__(self, latents: tuple[int, int] = (20, 10), hidden: tuple[int, int] = (400, 100)):
        super().__init__()
        self.config = {"latents": list(latents), "hidden": list(hidden)}
        z1, z2 = latents
        h1, h2 = hidden
        self.up1 = nn.Sequential(mlp(784, h1), nn.ReLU())
        self.up2 = nn.Sequential(mlp(h1, h2), nn.ReLU())
        self.q1 = mlp(h1, 2 * z1)
        self.q2 = mlp(h2, 2 * z2)
        self.p1 = mlp(z2, h2, 2 * z1)
        self.decoder = mlp(z1 + z2, h1, 784)

    def prior(self, z2: torch.Tensor) -> DiagonalGaussian:
        """p(z1|z2)."""
        return _gaussian(self.p1(z2))

    def decode(self, z1: torch.Tensor, z2: torch.Tensor) -> torch.Tensor:
        return self.decoder(torch.cat([z1, z2], dim=1)).unflatten(1, (1, 28, 28))

    def forward(
        self, x: torch.Tensor, generator: torch.Generator | None = None
    ) -> HierarchicalOutput:
        h1 = self.up1(x.flatten(1))  # (B, 784) → (B, h1)
        upper = _gaussian(self.q2(self.up2(h1)))
        z2 = upper.sample(generator)

        prior = self.prior(z2)
        lower = precision_weighted(_gaussian(self.q1(h1)), prior)
        z1 = lower.sample(generator)

        standard = DiagonalGaussian(torch.zeros_like(upper.mean), torch.zeros_like(upper.logvar))
        decoded = self.decode(z1, z2)
        return HierarchicalOutput(decoded, (upper, lower), (standard, prior), (z2, z1))


def _gaussian(moments: torch.Tensor) -> DiagonalGaussian:
    """Means and log-variances (B, 2·latent) as a distribution in float32, also under autocast.

    Where both variances are small, bfloat16's rounding of the means alone is millions of nats.
    """
    mean, logvar = moments.float().chunk(2, dim=1)
    return DiagonalGaussian(mean, logvar)


def precision_weighted(a: DiagonalGaussian, b: DiagonalGaussian) -> DiagonalGaussian:
    """The product of two Gaussians, normalised.

    Precisions add up, and each mean counts by its precision.
    """
    precision_a = torch.exp(-a.logvar)
    precision_b = torch.exp(-b.logvar)
    total = precision_a + precision_b
    mean = (a.mean * precision_a + b.mean * precision_b) / total
    return DiagonalGaussian(mean, -torch.log(total))


def hierarchical_loss(
    model: HierarchicalVAE, batch: dict[str, torch.Tensor], generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """The negative ELBO of both levels, nats per image: reconstruction + KL of each level."""
    out = model(batch["images"], generator)
    reconstruction = bernoulli_nll(out.decoded, batch["images"])
    upper, lower = (q.kl(p) for q, p in zip(out.posteriors, out.priors, strict=True))
    return {
        "loss": reconstruction + upper + lower,
        "reconstruction": reconstruction,
        "upper": upper,
        "lower": lower,
    }


class RecurrentVAE(nn.Module):
    """A digit as a sequence of 28 rows: one GRU reads them, another writes them.

    VRAE, Fabius & van Amersfoort 2015.  The writer is given z and the row before; in training some
    of those rows are hidden, or it would not listen to z (Bowman et al. 2016, section 3.1).
    """

    def __init__(self, latent: int = 20, hidden: int = 200):
        super().__init__()
        self.config = {"latent": latent, "hidden": hidden}
        self.reader = nn.GRU(28, hidden, batch_first=True)
        self.to_moments = nn.Linear(hidden, 2 * latent)
        self.begin = nn.Linear(latent, hidden)
        self.writer = nn.GRU(28 + latent, hidden, batch_first=True)
        self.to_row = nn.Linear(hidden, 28)

    def encode(self, x: torch.Tensor) -> DiagonalGaussian:
        """Images (B, 1, H, 28) with any number of rows H: half a digit can be read too."""
        _, state = self.reader(x.squeeze(1))  # (1, B, hidden)
        mean, logvar = self.to_moments(state[0]).chunk(2, dim=1)
        return DiagonalGaussian(mean, logvar)

    def teacher_forcing(self, z: torch.Tensor, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """Logits (B, 1, 28, 28) of every row, given z and the true row before it.

        That row is given where `seen` (B, 28) is true, and is empty elsewhere.
        """
        before = F.pad(x.squeeze(1)[:, :-1], (0, 0, 1, 0))  # (B, 28, 28), the first row empty
        before = before * seen[..., None]
        given = torch.cat([before, z[:, None].expand(-1, 28, -1)], dim=2)  # (B, 28, 28 + latent)
        hidden, _ = self.writer(given, self.begin(z).tanh()[None])
        return self.to_row(hidden).unsqueeze(1)

    def decode(self, z: torch.Tensor, start: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (B, 1, 28, 28), row by row, each given the row that was written before it.

        start: rows (B, 1, H, 28) to begin with.
        """
        state = self.begin(z).tanh()[None]
        row = z.new_zeros(len(z), 28)
        rows = []
        for i in range(28):
            hidden, state = self.writer(torch.cat([row, z], dim=1)[:, None], state)
            logits = self.to_row(hidden[:, 0])
            rows.append(logits)
            given = start is not None and i < start.shape[2]
            row = start[:, 0, i] if given else logits.sigmoid()
        return torch.stack(rows, dim=1).unsqueeze(1)

    def forward(
        self,
        x: torch.Tensor,
        generator: torch.Generator | None = None,
        hidden: float = 0.5,
    ) -> VAEOutput:
        """hidden: the share of rows that the writer does not see in training."""
        posterior = self.encode(x)
        z = posterior.sample(generator)
        share = hidden if self.training else 0.0
        seen = draw(torch.rand, (len(x), 28), generator, device=x.device) >= share
        return VAEOutput(self.teacher_forcing(z, x, seen), posterior, z)
