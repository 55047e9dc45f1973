"""VQ-VAE (notebook 04): a latent of entries from a codebook, and a prior that writes such latents.

van den Oord, Vinyals & Kavukcuoglu 2017.  Images are (B, 1, 28, 28) in [0, 1]; `decode` returns logits.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from helpers.budget import draw
from helpers.data import Batch
from helpers.losses import bernoulli_nll


class Codebook(nn.Module):
    """`size` vectors of `width` numbers; every place of a latent takes the nearest.  van den Oord et al. 2017.

    The vectors follow the mean of what chose them (their appendix A.1), and one that nobody chooses begins anew at a
    place that the encoder does use (Dhariwal et al. 2020, section 3).
    """

    def __init__(self, size: int = 64, width: int = 16, decay: float = 0.99):
        super().__init__()
        self.decay = decay
        vectors = torch.randn(size, width)
        for name, value in (("vectors", vectors), ("sums", vectors.clone()), ("counts", torch.ones(size))):
            self.register_buffer(name, value)

    def nearest(self, z: torch.Tensor) -> torch.Tensor:
        """(B, width, h, w) → the number of the nearest vector at each place, (B, h, w)."""
        return torch.cdist(z.movedim(1, 3).flatten(0, 2).float(), self.vectors).argmin(1).view(len(z), *z.shape[2:])

    def look_up(self, codes: torch.Tensor) -> torch.Tensor:
        """(B, h, w) → (B, width, h, w)."""
        return self.vectors[codes].movedim(3, 1)

    @torch.no_grad()
    def learn(self, z: torch.Tensor, codes: torch.Tensor, generator: torch.Generator | None = None) -> None:
        """Move every vector towards the mean of the places that chose it."""
        places, chosen = z.movedim(1, 3).flatten(0, 2).float(), codes.flatten()  # (N, width), (N,)
        self.counts.lerp_(chosen.bincount(minlength=len(self.counts)).float(), 1 - self.decay)
        self.sums.lerp_(torch.zeros_like(self.sums).index_add_(0, chosen, places), 1 - self.decay)
        dead = self.counts < 0.01 * len(places) / len(self.vectors)  # chosen a hundred times less often than the mean
        fresh = places[(draw(torch.rand, (len(self.vectors),), generator, device=z.device) * len(places)).long()]
        self.sums[dead], self.counts[dead] = fresh[dead], 1.0
        self.vectors.copy_(self.sums / self.counts[:, None])


class VQOutput(NamedTuple):
    """What `VQVAE.forward` returns: logits, the encoder's latent, the vectors that replaced it, and their numbers."""

    decoded: torch.Tensor
    z: torch.Tensor
    quantised: torch.Tensor
    codes: torch.Tensor


class VQVAE(nn.Module):
    """A convolutional autoencoder whose latent is 4×4 entries of a codebook.  van den Oord, Vinyals & Kavukcuoglu 2017."""

    def __init__(self, codes: int = 64, width: int = 16, hidden: int = 96):
        super().__init__()
        self.config = {"codes": codes, "width": width, "hidden": hidden}
        self.encoder = nn.Sequential(
            nn.Conv2d(1, hidden // 2, 4, stride=2, padding=1), nn.ReLU(),  # (B, hidden/2, 14, 14)
            nn.Conv2d(hidden // 2, hidden, 4, stride=2, padding=1), nn.ReLU(),  # (B, hidden, 7, 7)
            nn.Conv2d(hidden, hidden, 3, stride=2, padding=1), nn.ReLU(),  # (B, hidden, 4, 4)
            nn.Conv2d(hidden, width, 1),  # (B, width, 4, 4)
        )  # fmt: skip
        self.codebook = Codebook(codes, width)
        self.decoder = nn.Sequential(
            nn.Conv2d(width, hidden, 3, padding=1), nn.ReLU(),  # (B, hidden, 4, 4)
            nn.ConvTranspose2d(hidden, hidden, 3, stride=2, padding=1), nn.ReLU(),  # (B, hidden, 7, 7)
            nn.ConvTranspose2d(hidden, hidden // 2, 4, stride=2, padding=1), nn.ReLU(),  # (B, hidden/2, 14, 14)
            nn.ConvTranspose2d(hidden // 2, 1, 4, stride=2, padding=1),  # (B, 1, 28, 28)
        )  # fmt: skip

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, 28, 28) → the numbers of the codebook's entries, (B, 4, 4)."""
        return self.codebook.nearest(self.encoder(x))

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.codebook.look_up(codes))

    def forward(self, x: torch.Tensor, generator: torch.Generator | None = None) -> VQOutput:
        z = self.encoder(x).float()  # (B, width, 4, 4)
        codes = self.codebook.nearest(z.detach())
        quantised = self.codebook.look_up(codes)
        if self.training:
            self.codebook.learn(z.detach(), codes, generator)
        through = z + (quantised - z).detach()  # the decoder sees the entry; the gradient passes straight through
        return VQOutput(self.decoder(through), z, quantised, codes)


def vq_loss(model: VQVAE, batch: Batch, generator: torch.Generator, commitment: float = 25.0) -> dict[str, torch.Tensor]:
    """Reconstruction + commitment · distance of the encoder from the entries it chose; nats per image."""
    out = model(batch.images, generator)
    reconstruction = bernoulli_nll(out.decoded, batch.images)
    apart = (out.z - out.quantised).square().flatten(1).mean(1)
    return {"loss": reconstruction + commitment * apart, "reconstruction": reconstruction, "apart": apart}


class CodePrior(nn.Module):
    """p(codes), one after another in reading order: a GRU predicts each from those before it."""

    def __init__(self, codes: int = 64, hidden: int = 256):
        super().__init__()
        self.config = {"codes": codes, "hidden": hidden}
        self.embed = nn.Embedding(codes + 1, hidden)  # the last one begins a picture
        self.gru = nn.GRU(hidden, hidden, num_layers=2, batch_first=True)
        self.head = nn.Linear(hidden, codes)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """(B, T) → logits of each code, given those before it, (B, T, codes)."""
        begin = torch.full_like(codes[:, :1], self.embed.num_embeddings - 1)
        hidden, _ = self.gru(self.embed(torch.cat([begin, codes[:, :-1]], dim=1)))
        return self.head(hidden)

    @torch.no_grad()
    def sample(self, count: int, length: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """Codes (count, length), drawn one after another."""
        on = self.head.weight.device
        last, state, drawn = torch.full((count, 1), self.embed.num_embeddings - 1, device=on), None, []
        for _ in range(length):
            hidden, state = self.gru(self.embed(last), state)
            last = torch.multinomial(self.head(hidden[:, 0]).float().softmax(1), 1, generator=generator)
            drawn.append(last)
        return torch.cat(drawn, dim=1)


def code_loss(model: CodePrior, batch: Batch, generator: torch.Generator, codes: torch.Tensor) -> dict[str, torch.Tensor]:
    """-log p(codes), nats per image; batch.labels: positions in `codes` (N, T)."""
    wanted = codes[batch.labels]
    nll = F.cross_entropy(model(wanted).float().transpose(1, 2), wanted, reduction="none")
    return {"loss": nll.sum(1)}
