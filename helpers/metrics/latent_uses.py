"""What a latent space can be used for (notebook 4).

Anomaly detection, inpainting, classification from few labels, directions, compression.  Models are
VAEs with `encode`, and `decode` to logits; images are (N, 1, 28, 28) in [0, 1].
"""

import io

import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import nn

from helpers.models.losses import bernoulli_nll
from helpers.rng import generator_for


@torch.no_grad()
def anomaly_scores(model: nn.Module, x: torch.Tensor, seed: int = 0) -> dict[str, torch.Tensor]:
    """Three anomaly scores, each (N,): the larger, the more of an outlier an image is.

    "reconstruction error": squared error per image, decoded from the posterior's mean.
    "negative ELBO": nats per image, estimated with one draw.
    "latent distance": squared distance of the posterior's mean from 0, the middle of the prior.
    """
    posterior = model.encode(x)
    mean = posterior.mode()
    # the key chooses the noise: with another word the published numbers would change
    z = posterior.sample(generator_for("strangeness", seed, device=x.device))
    return {
        "reconstruction error": (model.decode(mean).sigmoid() - x).square().flatten(1).sum(1),
        "negative ELBO": bernoulli_nll(model.decode(z), x) + posterior.kl(),
        "latent distance": mean.square().sum(1),
    }


def inpainting_masks(count: int) -> dict[str, torch.Tensor]:
    """{name of what is hidden: bool (count, 1, 28, 28), true where a pixel is known}."""
    lower = torch.ones(count, 1, 28, 28, dtype=torch.bool)
    lower[:, :, 14:] = False
    square = torch.ones_like(lower)
    square[:, :, 9:19, 9:19] = False
    scattered = torch.rand(count, 1, 28, 28, generator=generator_for("scattered")) < 0.5
    return {"the lower half": lower, "a square": square, "half of the pixels": scattered}


@torch.no_grad()
def inpaint_by_iteration(
    model: nn.Module, x: torch.Tensor, known: torch.Tensor, start: torch.Tensor, rounds: int = 50
) -> torch.Tensor:
    """Fill in the pixels where `known` (bool, like x) is false: encode and decode, many times.

    It begins with `start` in their place, and puts the known pixels back after each round.
    Rezende, Mohamed & Wierstra 2014, appendix F.
    """
    filled = torch.where(known, x, start)
    for _ in range(rounds):
        decoded = model.decode(model.encode(filled).mode()).sigmoid()
        filled = torch.where(known, x, decoded)
    return filled


def inpaint_by_search(
    model: nn.Module,
    x: torch.Tensor,
    known: torch.Tensor,
    start: torch.Tensor,
    steps: int = 200,
    lr: float = 0.1,
) -> torch.Tensor:
    """Fill in the pixels where `known` is false with what the most probable z decodes to.

    That z has the least -log p(known pixels|z) - log p(z).  Adam looks for it, beginning at the
    code of `start`; the model is left as it is.
    """
    with torch.no_grad():
        z = model.encode(torch.where(known, x, start)).mode()
    z = z.clone().requires_grad_()
    optimizer = torch.optim.Adam([z], lr=lr)
    weight = known.float()

    for _ in range(steps):
        nll = F.binary_cross_entropy_with_logits(model.decode(z), x, weight=weight, reduction="sum")
        # with respect to z alone: backward() would leave gradients in the model
        (gradient,) = torch.autograd.grad(nll + 0.5 * z.square().sum(), z)
        z.grad = gradient
        optimizer.step()

    with torch.no_grad():
        return torch.where(known, x, model.decode(z).sigmoid())


def inpaint_by_neighbour(train: torch.Tensor, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Fill in the pixels where `known` is false from the nearest image of `train` (M, 1, 28, 28).

    It is the one with the least squared error on the known pixels.
    """
    nearest = []
    for image, mask in zip(x, known, strict=True):
        squared_error = (train - image).square().mul(mask)  # (M, 1, 28, 28)
        nearest.append(train[squared_error.flatten(1).sum(1).argmin()])
    return torch.where(known, x, torch.stack(nearest))


def stratified_subset(labels: torch.Tensor, count: int, seed: int = 0) -> torch.Tensor:
    """Positions in `labels` (N,), drawn at random: count // classes of each class."""
    order = torch.randperm(len(labels), generator=generator_for("few labels", seed))
    classes = labels.unique()
    return torch.cat([order[labels[order] == c][: count // len(classes)] for c in classes])


def probe(
    codes: torch.Tensor, labels: torch.Tensor, test_codes: torch.Tensor, test_labels: torch.Tensor
) -> float:
    """A linear probe: the share of test codes (M, D) that a linear classifier gets right.

    It is fitted to codes (N, D).  They are not scaled: a latent dimension that the VAE does not use
    would be blown up to the size of the others.
    """
    classifier = LogisticRegression(max_iter=1000).fit(codes.numpy(), labels.numpy())
    return float(classifier.score(test_codes.numpy(), test_labels.numpy()))


def measured_slant(images: torch.Tensor) -> torch.Tensor:
    """How far the ink moves sideways, in columns per row, (N,).

    The covariance of its column and its row over the variance of its row.
    """
    row, column = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    ink = images[:, 0] / images[:, 0].sum((1, 2), keepdim=True)  # (N, 28, 28), the sum is 1
    rows = row - (ink * row).sum((1, 2), keepdim=True)
    columns = column - (ink * column).sum((1, 2), keepdim=True)
    return (ink * rows * columns).sum((1, 2)) / (ink * rows**2).sum((1, 2))


def jpeg(images: torch.Tensor, quality: int) -> tuple[float, float]:
    """What JPEG makes of grey images (N, 1, 28, 28): (bytes per image, squared error per pixel).

    The tables in the header do not count as bytes: they could be agreed on beforehand.
    """
    sizes = []
    decoded = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray((255 * image[0]).round().byte().numpy()).save(file, "JPEG", quality=quality)
        data = file.getvalue()
        header = data.index(b"\xff\xda")  # the bytes before the picture itself
        sizes.append(len(data) - header)
        pixels = torch.frombuffer(bytearray(Image.open(file).tobytes()), dtype=torch.uint8)
        decoded.append(pixels.view(1, 28, 28) / 255)
    error = (torch.stack(decoded) - images).square().mean().item()
    return sum(sizes) / len(sizes), error
