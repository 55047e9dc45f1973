"""The family of VAEs (notebook 04): each class is what changes in `MLPVAE`, each function what changes in its loss.

Images are (B, 1, 28, 28) in [0, 1]; `decode` returns logits, whose sigmoid is the image.  β-VAE is a VAE with another
β in `negative_elbo`; `DrawingVAE` is the one whose factors are measured.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from helpers.budget import draw, randn_like
from helpers.data import Batch
from helpers.distributions import DiagonalGaussian
from helpers.losses import bernoulli_nll, negative_elbo
from helpers.mlp import MLPVAE, Autoencoder, VAEOutput, mlp


class DrawingVAE(MLPVAE):
    """`MLPVAE` for coloured drawings, (B, 3, 32, 32) in [0, 1]: what β does is measured on dogs, whose factors are known."""

    SHAPE = (3, 32, 32)

    def __init__(self, latent: int = 10, hidden: tuple[int, ...] = (400, 400)):
        super().__init__(latent, hidden)
        numbers = math.prod(self.SHAPE)
        self.encoder, self.decoder = mlp(numbers, *hidden, 2 * latent), mlp(latent, *reversed(hidden), numbers)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.decoder(z).unflatten(1, self.SHAPE)  # (B, latent) → (B, 3, 32, 32)


class ConditionalVAE(nn.Module):
    """`MLPVAE` whose encoder and decoder are also told the label: q(z|x, y) and p(x|z, y).  Sohn, Lee & Yan 2015.

    What the label says need not be in z, and z is left with the style, if it is too small for more (notebook 04).
    """

    def __init__(self, latent: int = 3, hidden: tuple[int, ...] = (512, 256), classes: int = 10):
        super().__init__()
        self.config = {"latent": latent, "hidden": list(hidden), "classes": classes}
        self.classes = classes
        self.encoder = mlp(784 + classes, *hidden, 2 * latent)
        self.decoder = mlp(latent + classes, *reversed(hidden), 784)

    def _with(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, F.one_hot(labels, self.classes).to(x.dtype)], dim=1)  # (B, D) → (B, D + classes)

    def encode(self, x: torch.Tensor, labels: torch.Tensor) -> DiagonalGaussian:
        return DiagonalGaussian(*self.encoder(self._with(x.flatten(1), labels)).chunk(2, dim=1))

    def decode(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.decoder(self._with(z, labels)).unflatten(1, (1, 28, 28))

    def forward(self, x: torch.Tensor, labels: torch.Tensor, generator: torch.Generator | None = None) -> VAEOutput:
        posterior = self.encode(x, labels)
        z = posterior.sample(generator)
        return VAEOutput(self.decode(z, labels), posterior, z)


def conditional_loss(model: ConditionalVAE, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """The negative ELBO of log p(x|y), nats per image."""
    return negative_elbo(model(batch.images, batch.labels, generator), batch.images)


class AdversarialAutoencoder(Autoencoder):
    """An autoencoder and a discriminator that tells its codes from draws of N(0, I).  Makhzani et al. 2015, section 2."""

    def __init__(self, latent: int = 20, hidden: tuple[int, ...] = (400,)):
        super().__init__(latent, hidden)
        self.discriminator = mlp(latent, 128, 128, 1)


def adversarial_autoencoder_loss(
    model: AdversarialAutoencoder, batch: Batch, generator: torch.Generator, weight: float = 30.0
) -> dict[str, torch.Tensor]:
    """Reconstruction + weight · fooling + the discriminator's own loss; nats per image.

    One optimizer does for both players: the discriminator's loss sees codes without a gradient, and «fooling» sees the
    discriminator's weights without one.
    """
    z = model.encode(batch.images)
    reconstruction = bernoulli_nll(model.decode(z), batch.images)
    frozen = {name: fixed.detach() for name, fixed in model.discriminator.named_parameters()}
    fooling = F.softplus(-functional_call(model.discriminator, frozen, (z,)).float()).squeeze(1)
    drawn = randn_like(z, generator)
    telling = F.softplus(-model.discriminator(drawn).float()) + F.softplus(model.discriminator(z.detach()).float())
    loss = reconstruction + weight * fooling + telling.squeeze(1)
    return {"loss": loss, "reconstruction": reconstruction, "fooling": fooling, "telling": telling.squeeze(1)}


class HierarchicalOutput(NamedTuple):
    """What `HierarchicalVAE.forward` returns: logits; the posteriors, priors and samples of both levels, upper first."""

    decoded: torch.Tensor
    posteriors: tuple[DiagonalGaussian, DiagonalGaussian]
    priors: tuple[DiagonalGaussian, DiagonalGaussian]
    z: tuple[torch.Tensor, torch.Tensor]


class HierarchicalVAE(nn.Module):
    """Two levels: z2 ~ N(0, I), z1 ~ p(z1|z2), x ~ p(x|z1, z2).  Ladder VAE, Sønderby et al. 2016.

    The posterior of z1 merges what the image says with what z2 says, each weighted with its precision.  The decoder
    sees both levels, as in BIVA (Maaløe et al. 2019).
    """

    def __init__(self, latents: tuple[int, int] = (20, 10), hidden: tuple[int, int] = (400, 100)):
        super().__init__()
        self.config = {"latents": list(latents), "hidden": list(hidden)}
        (z1, z2), (h1, h2) = latents, hidden
        self.up1 = nn.Sequential(mlp(784, h1), nn.ReLU())
        self.up2 = nn.Sequential(mlp(h1, h2), nn.ReLU())
        self.q1, self.q2 = mlp(h1, 2 * z1), mlp(h2, 2 * z2)
        self.p1 = mlp(z2, h2, 2 * z1)
        self.decoder = mlp(z1 + z2, h1, 784)

    def prior(self, z2: torch.Tensor) -> DiagonalGaussian:
        """p(z1|z2)."""
        return _gaussian(self.p1(z2))

    def decode(self, z1: torch.Tensor, z2: torch.Tensor) -> torch.Tensor:
        return self.decoder(torch.cat([z1, z2], dim=1)).unflatten(1, (1, 28, 28))

    def forward(self, x: torch.Tensor, generator: torch.Generator | None = None) -> HierarchicalOutput:
        h1 = self.up1(x.flatten(1))
        upper = _gaussian(self.q2(self.up2(h1)))
        z2 = upper.sample(generator)
        prior = self.prior(z2)
        lower = precision_weighted(_gaussian(self.q1(h1)), prior)
        z1 = lower.sample(generator)
        standard = DiagonalGaussian(torch.zeros_like(upper.mean), torch.zeros_like(upper.logvar))
        return HierarchicalOutput(self.decode(z1, z2), (upper, lower), (standard, prior), (z2, z1))


def _gaussian(moments: torch.Tensor) -> DiagonalGaussian:
    """Means and log-variances (B, 2·latent) as a distribution in float32, whatever the layers are computed in.

    Where both variances are small, bfloat16's rounding of the means alone is millions of nats.
    """
    return DiagonalGaussian(*moments.float().chunk(2, dim=1))


def precision_weighted(a: DiagonalGaussian, b: DiagonalGaussian) -> DiagonalGaussian:
    """The product of two Gaussians, normalised: precisions add up, and each mean counts by its precision."""
    pa, pb = torch.exp(-a.logvar), torch.exp(-b.logvar)
    return DiagonalGaussian((a.mean * pa + b.mean * pb) / (pa + pb), -torch.log(pa + pb))


def kl_between(q: DiagonalGaussian, p: DiagonalGaussian) -> torch.Tensor:
    """KL(q ‖ p) of two diagonal Gaussians in nats per image, (B,)."""
    apart = (q.mean - p.mean).square() / p.logvar.exp()
    return 0.5 * (p.logvar - q.logvar + (q.logvar - p.logvar).exp() + apart - 1).float().flatten(1).sum(1)


def hierarchical_loss(
    model: HierarchicalVAE, batch: Batch, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """The negative ELBO of both levels, nats per image: reconstruction + KL of the upper + KL of the lower level."""
    out = model(batch.images, generator)
    reconstruction = bernoulli_nll(out.decoded, batch.images)
    upper, lower = (kl_between(q, p) for q, p in zip(out.posteriors, out.priors, strict=True))
    return {"loss": reconstruction + upper + lower, "reconstruction": reconstruction, "upper": upper, "lower": lower}


def log_density(z: torch.Tensor, p: DiagonalGaussian) -> torch.Tensor:
    """log p(z) in nats per image, (B,)."""
    return -0.5 * (math.log(2 * math.pi) + p.logvar + (z - p.mean).square() / p.logvar.exp()).flatten(1).sum(1)


@torch.no_grad()
def hierarchical_nll(
    model: HierarchicalVAE, x: torch.Tensor, k: int, generator: torch.Generator | None = None
) -> torch.Tensor:
    """`metrics.importance_nll` for two levels: -log p(x) in nats per image, (B,), from k draws of both."""
    log_weights = []
    for _ in range(k):
        out = model(x, generator)
        levels = zip(out.z, out.priors, out.posteriors, strict=True)
        prior_over_q = sum(log_density(z, p) - log_density(z, q) for z, p, q in levels)
        log_weights.append(prior_over_q - bernoulli_nll(out.decoded, x))
    return math.log(k) - torch.logsumexp(torch.stack(log_weights), dim=0)


class RecurrentVAE(nn.Module):
    """A digit as a sequence of 28 rows: one GRU reads them, another writes them.  VRAE, Fabius & van Amersfoort 2015.

    The writer is given z and the row before; in training some of those rows are hidden, or it would not listen to z
    (Bowman et al. 2016, section 3.1).
    """

    def __init__(self, latent: int = 20, hidden: int = 200):
        super().__init__()
        self.config = {"latent": latent, "hidden": hidden}
        self.reader, self.to_moments = nn.GRU(28, hidden, batch_first=True), nn.Linear(hidden, 2 * latent)
        self.begin = nn.Linear(latent, hidden)
        self.writer, self.to_row = nn.GRU(28 + latent, hidden, batch_first=True), nn.Linear(hidden, 28)

    def encode(self, x: torch.Tensor) -> DiagonalGaussian:
        """Images (B, 1, H, 28) with any number of rows H: half a digit can be read too."""
        _, state = self.reader(x.squeeze(1))  # (1, B, hidden)
        return DiagonalGaussian(*self.to_moments(state[0]).chunk(2, dim=1))

    def teach(self, z: torch.Tensor, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """Logits (B, 1, 28, 28) of every row given z and, where `seen` (B, 28) is true, the true row before it."""
        before = F.pad(x.squeeze(1)[:, :-1], (0, 0, 1, 0)) * seen[..., None]  # (B, 28, 28), the first one empty
        given = torch.cat([before, z[:, None].expand(-1, 28, -1)], dim=2)
        hidden, _ = self.writer(given, self.begin(z).tanh()[None])
        return self.to_row(hidden).unsqueeze(1)

    def decode(self, z: torch.Tensor, start: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (B, 1, 28, 28), row by row, each given the row it wrote before; start: rows (B, 1, H, 28) to begin with."""
        state, row, rows = self.begin(z).tanh()[None], z.new_zeros(len(z), 28), []
        for i in range(28):
            hidden, state = self.writer(torch.cat([row, z], dim=1)[:, None], state)
            logits = self.to_row(hidden[:, 0])
            rows.append(logits)
            row = start[:, 0, i] if start is not None and i < start.shape[2] else logits.sigmoid()
        return torch.stack(rows, dim=1).unsqueeze(1)

    def forward(self, x: torch.Tensor, generator: torch.Generator | None = None, hidden: float = 0.5) -> VAEOutput:
        posterior = self.encode(x)
        z = posterior.sample(generator)
        share = hidden if self.training else 0.0
        seen = draw(torch.rand, (len(x), 28), generator, device=x.device) >= share
        return VAEOutput(self.teach(z, x, seen), posterior, z)
