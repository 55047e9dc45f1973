"""What a latent holds: the codes of a set, active units, statistics, mutual information."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from helpers.data.image_set import ImageSet
from helpers.data.loader import in_chunks
from helpers.models.distributions import DiagonalGaussian
from helpers.rng import generator_for


@torch.no_grad()
def encode_all(
    model: nn.Module, data: ImageSet, generator: torch.Generator | None = None
) -> torch.Tensor:
    """The code of every image, (N, latent), on the CPU: the posterior's mean, or a tensor itself.

    With a generator it is a draw of the posterior instead.
    """
    codes = []
    for batch in in_chunks(data, next(model.parameters()).device):
        code = model.encode(batch["images"])
        if not isinstance(code, torch.Tensor):  # a posterior, also of a notebook's own class
            code = code.mode() if generator is None else code.sample(generator)
        codes.append(code.cpu())
    return torch.cat(codes)


def active_units(means: torch.Tensor, threshold: float = 0.01) -> int:
    """How many latent dimensions say something: Var_x(E[z_j|x]) > threshold; means: (N, latent).

    Burda et al. 2016, eq. 9.
    """
    return int((means.var(dim=0) > threshold).sum())


def aggregate_posterior(
    mean: torch.Tensor, logvar: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (latent,) and covariance (latent, latent) of the mixture of all posteriors.

    mean, logvar: of N posteriors, (N, latent).  The covariance is that of the means plus the mean
    of the variances.  Hoffman & Johnson 2016 compare this mixture with the prior.
    """
    covariance = torch.cov(mean.T, correction=0) + torch.diag(logvar.exp().mean(0))
    return mean.mean(0), covariance


def slerp(a: torch.Tensor, b: torch.Tensor, t: float) -> torch.Tensor:
    """The point at share t of the great circle from a to b, both (latent,).  Shoemake 1985."""
    angle = torch.acos(torch.dot(a, b) / (a.norm() * b.norm()))
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)


@dataclass(frozen=True)
class LatentStatistics:
    """What a data set's latents look like; the tensors have one entry per latent channel.

    mean, std: of posterior samples.
    kl: nats per image.
    noise: posterior σ / std of the posterior means, 0 for a deterministic encoder and large where a
    channel says nothing.
    active: `active_units` of the `dimensions` = C·H·W of a latent.
    scaling_factor: 1 / std of all samples together.
    """

    mean: torch.Tensor
    std: torch.Tensor
    kl: torch.Tensor
    noise: torch.Tensor
    active: int
    dimensions: int
    scaling_factor: float


@torch.no_grad()
def latent_statistics(model: nn.Module, data: ImageSet, seed: int = 0) -> LatentStatistics:
    """LatentStatistics over all images of `data`.

    Rombach et al. 2022, appendix G, take the scaling factor from the first batch of training; here
    it is the whole set's.
    """
    model.eval()
    on = next(model.parameters()).device
    generator = generator_for("latent statistics", seed, device=on)
    means, sigmas, samples = [], [], []
    kl = 0.0
    for batch in in_chunks(data, on):
        posterior = model.encode(batch["images"])  # over (B, C, h, w)
        means.append(posterior.mean.cpu())
        sigmas.append(posterior.std.cpu())
        samples.append(posterior.sample(generator).cpu())
        by_channel = (t.transpose(0, 1) for t in (posterior.mean, posterior.logvar))  # (C, B, h, w)
        kl = kl + DiagonalGaussian(*by_channel).kl().cpu()  # (C,)
    mean = torch.cat(means)  # (N, C, h, w)
    sigma = torch.cat(sigmas)
    sample = torch.cat(samples)
    spread = mean.std(dim=(0, 2, 3))
    return LatentStatistics(
        mean=sample.mean((0, 2, 3)),
        std=sample.std(dim=(0, 2, 3)),
        kl=kl / len(data),
        noise=sigma.mean((0, 2, 3)) / spread.clamp_min(1e-12),
        active=active_units(mean.flatten(1)),
        dimensions=mean[0].numel(),
        scaling_factor=1 / float(sample.std()),
    )


def mutual_information(codes: torch.Tensor, values: torch.Tensor, bins: int = 20) -> torch.Tensor:
    """How many nats each of D latent dimensions tells about a factor.

    codes (N, D), cut into equal bins, and values (N,) → (D,).
    """
    from sklearn.metrics import mutual_info_score  # a second to import, and used here alone

    told = []
    for column in codes.T.numpy():
        edges = np.linspace(column.min(), column.max(), bins + 1)[1:-1]
        told.append(mutual_info_score(values.numpy(), np.digitize(column, edges)))
    return torch.tensor(told, dtype=torch.float32)


def mutual_information_gap(
    codes: torch.Tensor, factors: dict[str, torch.Tensor]
) -> dict[str, float]:
    """For each factor (N,): by how much one latent dimension alone tells it; codes (N, D).

    The most telling dimension's mutual information minus the second's, as a share of the factor's
    entropy: 1 where one dimension tells all and no other anything, 0 where two tell equally much.
    The mean over the factors is the MIG of Chen et al. 2018, section 4.1.  The codes are draws:
    means of a dimension that the VAE does not use differ by a hair, and bins as narrow as a hair
    would tell them apart.
    """
    gaps = {}
    for name, values in factors.items():
        share = values.unique(return_counts=True)[1] / len(values)
        entropy = -(share * share.log()).sum()
        first, second = mutual_information(codes, values).topk(2).values
        gaps[name] = ((first - second) / entropy).item()
    return gaps
