"""How good is it?  Likelihood bounds, active units, a judge for digits, and a Fréchet distance."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from helpers.budget import generator_for
from helpers.data import Batch, ImageSet, random_shift
from helpers.losses import bernoulli_nll
from helpers.training import fit


@torch.no_grad()
def importance_nll(
    model: nn.Module, x: torch.Tensor, k: int, generator: torch.Generator | None = None, nll=bernoulli_nll
) -> torch.Tensor:
    """-log p(x), estimated from above with k samples per image: (B,), nats.

    -log 1/k Σ p(x|z_i) p(z_i) / q(z_i|x) with z_i ~ q(z|x); k = 1 is one draw of the negative ELBO, and on average the
    estimate falls with k.  Burda, Grosse & Salakhutdinov 2016, eq. 8.
    """
    posterior = model.encode(x)
    log_weights = []
    for _ in range(k):
        z = posterior.sample(generator)
        noise = (z - posterior.mean) / posterior.std
        log_prior_over_q = 0.5 * (noise.square() + posterior.logvar - z.square()).flatten(1).sum(1)
        log_weights.append(log_prior_over_q - nll(model.decode(z), x))
    return math.log(k) - torch.logsumexp(torch.stack(log_weights), dim=0)  # (k, B) → (B,)


@torch.no_grad()
def encode_all(
    model: nn.Module, data: ImageSet, batch_size: int = 2000, generator: torch.Generator | None = None
) -> torch.Tensor:
    """The code of every image, (N, latent), on the CPU: an autoencoder's code, or the posterior's mean.

    With a generator it is a draw of the posterior instead.
    """
    on, codes = next(model.parameters()).device, []
    for start in range(0, len(data), batch_size):
        code = model.encode(data[start : start + batch_size].pixels(on))
        if not isinstance(code, torch.Tensor):
            code = code.mode() if generator is None else code.sample(generator)
        codes.append(code.cpu())
    return torch.cat(codes)


def active_units(means: torch.Tensor, threshold: float = 0.01) -> int:
    """How many latent numbers say something: Var_x(E[z_j|x]) > threshold.  means: (N, latent).  Burda et al. 2016, eq. 9."""
    return int((means.var(dim=0) > threshold).sum())


class DigitJudge(nn.Module):
    """A small convolutional classifier: (B, 1, 28, 28) in [0, 1] → 10 logits; `features` are the 64 numbers before them."""

    def __init__(self):
        super().__init__()
        self.config: dict = {}
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(),  # (B, 16, 14, 14)
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),  # (B, 32, 7, 7)
            nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU(),  # (B, 64)
        )  # fmt: skip
        self.classify = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classify(self.features(x))


def judge_loss(model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Cross-entropy in nats per image."""
    return {"loss": F.cross_entropy(model(batch.images).float(), batch.labels, reduction="none")}


def train_judge(train: ImageSet, epochs: int, seed: int = 0) -> DigitJudge:
    """A DigitJudge trained on shifted images, so that it does not ask where in the picture a digit stands."""
    torch.manual_seed(seed)
    judge = DigitJudge()
    fit(judge, judge_loss, train, epochs=epochs, batch_size=min(128, len(train)), lr=3e-3, augment=random_shift, seed=seed)
    return judge


@torch.no_grad()
def judge_images(judge: DigitJudge, images: torch.Tensor, batch_size: int = 2000) -> tuple[torch.Tensor, torch.Tensor]:
    """(probabilities (N, 10), features (N, 64)) of images (N, 1, 28, 28), on the CPU."""
    on = next(judge.parameters()).device
    features = torch.cat([judge.features(part.to(on)) for part in images.split(batch_size)])
    return judge.classify(features).softmax(1).cpu(), features.cpu()


def frechet_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Fréchet distance of two Gaussians fitted to features (N, D) and (M, D); 0 for equal ones.

    |mean_a - mean_b|² + tr(A + B - 2 (AB)^½).  Heusel et al. 2017, eq. 6 (there on Inception's features: FID).
    """
    a, b = a.double(), b.double()
    cov_a, cov_b = (torch.cov(s.T).reshape(s.shape[1], s.shape[1]) for s in (a, b))  # a matrix, for one feature too
    product = torch.linalg.eigvals(cov_a @ cov_b)  # real and ≥ 0 but for rounding
    root = product.real.clamp_min(0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + a.var(0).sum() + b.var(0).sum() - 2 * root)


def bootstrap_interval(statistic, *samples: torch.Tensor, repeats: int = 200, seed: int = 0) -> tuple[float, float]:
    """95 % interval of `statistic`: the spread over resamples (with replacement) of each sample's rows.  Efron 1979.

    Centred on the statistic itself, because resampling adds noise of its own and a distance only grows by it.
    """
    generator = generator_for("bootstrap", seed)
    values = [
        statistic(*(s[torch.randint(len(s), (len(s),), generator=generator)] for s in samples)) for _ in range(repeats)
    ]
    low, high = np.quantile(values, [0.025, 0.975]) - np.mean(values)
    return float(statistic(*samples) + low), float(statistic(*samples) + high)


def mutual_information(codes: torch.Tensor, values: torch.Tensor, bins: int = 20) -> torch.Tensor:
    """How many nats each of D latent numbers tells about a factor: codes (N, D), in equal bins, and values (N,) → (D,)."""
    low, high = codes.amin(0), codes.amax(0)
    binned = ((codes - low) / (high - low).clamp_min(1e-12) * bins).long().clamp_max(bins - 1)  # (N, D)
    kinds, values = values.unique(return_inverse=True)
    told = []
    for column in binned.T:
        counts = torch.bincount(column * len(kinds) + values, minlength=bins * len(kinds))
        joint = counts.view(bins, -1).double() / len(values)
        independent = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
        told.append(torch.xlogy(joint, joint / independent.clamp_min(1e-300)).sum())
    return torch.stack(told).float()


def mutual_information_gap(codes: torch.Tensor, factors: dict[str, torch.Tensor]) -> dict[str, float]:
    """For each factor (N,): by how much one latent number alone tells it, codes (N, D), as a share of the factor's entropy.

    The most telling number's mutual information minus the second's; 1 where one number tells all and no other anything,
    0 where two tell equally much.  The mean over the factors is the MIG of Chen et al. 2018, section 4.1.  The codes are
    draws: means of a number that the VAE does not use differ by a hair, and bins as narrow as a hair would tell them apart.
    """
    gaps = {}
    for name, values in factors.items():
        share = values.unique(return_counts=True)[1] / len(values)
        first, second = mutual_information(codes, values).topk(2).values
        gaps[name] = ((first - second) / -(share * share.log()).sum()).item()
    return gaps


class GaussianCodes:
    """A full-covariance Gaussian fitted to codes (N, latent): what an autoencoder can sample from."""

    def __init__(self, codes: torch.Tensor):
        codes = codes.double()
        self.mean = codes.mean(0)
        covariance = torch.cov(codes.T).reshape(codes.shape[1], codes.shape[1])
        self.root = torch.linalg.cholesky(covariance + 1e-9 * torch.eye(codes.shape[1], dtype=torch.float64))

    def sample(self, count: int, generator: torch.Generator | None = None) -> torch.Tensor:
        noise = torch.randn(count, len(self.mean), generator=generator, dtype=torch.float64)
        return (self.mean + noise @ self.root.T).float()
