"""VQ-VAE (notebook 5): a latent of entries from a codebook, and a prior that writes such latents.

van den Oord, Vinyals & Kavukcuoglu 2017.  Images are (B, 1, 28, 28) in [0, 1]; `decode` returns
logits.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from helpers.models.losses import bernoulli_nll
from helpers.rng import draw


class Codebook(nn.Module):
    """`size` vectors of `width` dimensions; every place of a latent takes the nearest.

    The vectors are an exponential moving average of what chose them (van den Oord et al. 2017,
    appendix A.1).  A dead code, one that nobody chooses, restarts at a place that the encoder does
    use (Dhariwal et al. 2020, section 3).
    """

    def __init__(self, size: int = 64, width: int = 16, decay: float = 0.99):
        super().__init__()
        self.decay = decay
        vectors = torch.randn(size, width)
        self.register_buffer("vectors", vectors)
        self.register_buffer("sums", vectors.clone())
        self.register_buffer("counts", torch.ones(size))

    def nearest(self, z: torch.Tensor) -> torch.Tensor:
        """(B, width, h, w) → the number of the nearest vector at each place, (B, h, w)."""
        places = z.movedim(1, 3).flatten(0, 2).float()  # (B·h·w, width)
        return torch.cdist(places, self.vectors).argmin(1).view(len(z), *z.shape[2:])

    def lookup(self, codes: torch.Tensor) -> torch.Tensor:
        """(B, h, w) → (B, width, h, w)."""
        return self.vectors[codes].movedim(3, 1)

    @torch.no_grad()
    def update_ema(
        self, z: torch.Tensor, codes: torch.Tensor, generator: torch.Generator | None = None
    ) -> None:
        """Move every vector towards the mean of the places that chose it."""
        places = z.movedim(1, 3).flatten(0, 2).float()  # (B·h·w, width)
        chosen = codes.flatten()  # (B·h·w,)
        size = len(self.vectors)

        counts = chosen.bincount(minlength=size).float()
        sums = torch.zeros_like(self.sums).index_add_(0, chosen, places)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)

        # dead-code restart: chosen a hundred times less often than the average code
        dead = self.counts < 0.01 * len(places) / size
        picked = draw(torch.rand, (size,), generator, device=z.device) * len(places)
        fresh = places[picked.long()]
        self.sums[dead] = fresh[dead]
        self.counts[dead] = 1.0
        self.vectors.copy_(self.sums / self.counts[:, None])


class VQOutput(NamedTuple):
    """What `VQVAE.forward` returns.

    Logits, the encoder's latent, the vectors that replaced it, and their numbers.
    """

    decoded: torch.Tensor
    z: torch.Tensor
    quantised: torch.Tensor
    codes: torch.Tensor


class VQVAE(nn.Module):
    """A convolutional autoencoder whose latent is 4×4 entries of a codebook."""

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
            nn.ConvTranspose2d(hidden, hidden, 3, stride=2, padding=1),  # (B, hidden, 7, 7)
            nn.ReLU(),
            nn.ConvTranspose2d(hidden, hidden // 2, 4, stride=2, padding=1),  # (…, 14, 14)
            nn.ReLU(),
            nn.ConvTranspose2d(hidden // 2, 1, 4, stride=2, padding=1),  # (B, 1, 28, 28)
        )  # fmt: skip

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, 28, 28) → the numbers of the codebook's entries, (B, 4, 4)."""
        return self.codebook.nearest(self.encoder(x))

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.codebook.lookup(codes))

    def forward(self, x: torch.Tensor, generator: torch.Generator | None = None) -> VQOutput:
        z = self.encoder(x).float()  # (B, width, 4, 4)
        codes = self.codebook.nearest(z.detach())  # (B, 4, 4)
        quantised = self.codebook.lookup(codes)  # (B, width, 4, 4)
        if self.training:
            self.codebook.update_ema(z.detach(), codes, generator)

        # straight-through: the decoder sees the entry; the encoder is given its gradient unchanged
        through = z + (quantised - z).detach()
        return VQOutput(self.decoder(through), z, quantised, codes)


def vq_loss(
    model: VQVAE,
    batch: dict[str, torch.Tensor],
    generator: torch.Generator,
    weight: float = 25.0,
) -> dict[str, torch.Tensor]:
    """Reconstruction + weight · commitment loss; nats per image.

    The commitment loss is the squared distance of the encoder's output from the entries it chose.
    """
    out = model(batch["images"], generator)
    reconstruction = bernoulli_nll(out.decoded, batch["images"])
    commitment = (out.z - out.quantised).square().flatten(1).mean(1)
    return {
        "loss": reconstruction + weight * commitment,
        "reconstruction": reconstruction,
        "commitment": commitment,
    }


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
        given = torch.cat([begin, codes[:, :-1]], dim=1)  # (B, T)
        hidden, _ = self.gru(self.embed(given))
        return self.head(hidden)

    @torch.no_grad()
    def sample(
        self, count: int, length: int, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Codes (count, length), drawn one after another."""
        begin = self.embed.num_embeddings - 1
        last = torch.full((count, 1), begin, device=self.head.weight.device)
        state = None
        drawn = []
        for _ in range(length):
            hidden, state = self.gru(self.embed(last), state)
            probabilities = self.head(hidden[:, 0]).float().softmax(1)
            last = torch.multinomial(probabilities, 1, generator=generator)
            drawn.append(last)
        return torch.cat(drawn, dim=1)


def code_prior_loss(
    model: CodePrior, batch: dict[str, torch.Tensor], generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """-log p(codes), nats per image; batch["codes"]: (B, T)."""
    codes = batch["codes"]
    logits = model(codes).float().transpose(1, 2)  # (B, codes, T)
    return {"loss": F.cross_entropy(logits, codes, reduction="none").sum(1)}
