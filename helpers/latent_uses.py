"""What a latent space can be used for (notebook 03): strangers, gaps, classes from few labels, directions, compression.

Models are VAEs with `encode` and `decode` to logits; images are (N, 1, 28, 28) in [0, 1].
"""

import io

import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import nn

from helpers.budget import generator_for
from helpers.losses import bernoulli_nll


@torch.no_grad()
def strangeness(model: nn.Module, x: torch.Tensor, seed: int = 0) -> dict[str, torch.Tensor]:
    """Three scores (N,), each larger for stranger images.

    "reconstruction error": squared error per image, decoded from the posterior's mean; "negative ELBO": nats, of one draw;
    "latent distance": squared distance of the posterior's mean from the middle of the prior.
    """
    posterior = model.encode(x)
    mean = posterior.mode()
    z = posterior.sample(generator_for("strangeness", seed, device=x.device))
    return {
        "reconstruction error": (model.decode(mean).sigmoid() - x).square().flatten(1).sum(1),
        "negative ELBO": bernoulli_nll(model.decode(z), x) + posterior.kl(),
        "latent distance": mean.square().sum(1),
    }


def masks(count: int) -> dict[str, torch.Tensor]:
    """{name of what is hidden: bool (count, 1, 28, 28), true where a pixel is known}."""
    lower = torch.ones(count, 1, 28, 28, dtype=torch.bool)
    lower[:, :, 14:] = False
    square = torch.ones_like(lower)
    square[:, :, 9:19, 9:19] = False
    scattered = torch.rand(count, 1, 28, 28, generator=generator_for("scattered")) < 0.5
    return {"the lower half": lower, "a square": square, "half of the pixels": scattered}


@torch.no_grad()
def complete_by_iteration(
    model: nn.Module, x: torch.Tensor, known: torch.Tensor, start: torch.Tensor, rounds: int = 50
) -> torch.Tensor:
    """Fill where `known` (like x, bool) is false: begin with `start`, then encode and decode, again and again.

    Rezende, Mohamed & Wierstra 2014, appendix F.
    """
    filled = torch.where(known, x, start)
    for _ in range(rounds):
        filled = torch.where(known, x, model.decode(model.encode(filled).mode()).sigmoid())
    return filled


def complete_by_search(
    model: nn.Module, x: torch.Tensor, known: torch.Tensor, start: torch.Tensor, steps: int = 200, lr: float = 0.1
) -> torch.Tensor:
    """Fill where `known` is false with what the most probable z decodes to: -log p(known pixels|z) - log p(z) is least."""
    with torch.no_grad():
        z = model.encode(torch.where(known, x, start)).mode()
    z = z.clone().requires_grad_()
    optimizer = torch.optim.Adam([z], lr=lr)
    for _ in range(steps):
        nll = nn.functional.binary_cross_entropy_with_logits(model.decode(z), x, weight=known.float(), reduction="sum")
        (gradient,) = torch.autograd.grad(nll + 0.5 * z.square().sum(), z)  # of z alone: the model is left as it is
        z.grad = gradient
        optimizer.step()
    with torch.no_grad():
        return torch.where(known, x, model.decode(z).sigmoid())


def complete_by_neighbour(train: torch.Tensor, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Fill where `known` is false from the image of `train` (M, 1, 28, 28) that is nearest on the known pixels."""
    nearest = []
    for image, mask in zip(x, known, strict=True):
        nearest.append(train[(train - image).square().mul(mask).flatten(1).sum(1).argmin()])
    return torch.where(known, x, torch.stack(nearest))


def few_labels(labels: torch.Tensor, count: int, seed: int = 0) -> torch.Tensor:
    """The positions of `count` labelled images, equally many of each class, drawn at random."""
    order = torch.randperm(len(labels), generator=generator_for("few labels", seed))
    classes = labels.unique()
    return torch.cat([order[labels[order] == c][: count // len(classes)] for c in classes])


def probe(codes: torch.Tensor, labels: torch.Tensor, test_codes: torch.Tensor, test_labels: torch.Tensor) -> float:
    """Share of test codes (M, D) that a linear classifier, fitted to codes (N, D), tells right.

    The codes are not scaled: a number that the VAE does not use would be blown up to the size of the others.
    """
    classifier = LogisticRegression(max_iter=1000).fit(codes.numpy(), labels.numpy())
    return float(classifier.score(test_codes.numpy(), test_labels.numpy()))


def measured_slant(images: torch.Tensor) -> torch.Tensor:
    """Columns per row (N,) by which the ink moves sideways: its covariance with the row over the row's variance."""
    row, column = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    ink = images[:, 0] / images[:, 0].sum((1, 2), keepdim=True)
    rows = row - (ink * row).sum((1, 2), keepdim=True)
    columns = column - (ink * column).sum((1, 2), keepdim=True)
    return (ink * rows * columns).sum((1, 2)) / (ink * rows**2).sum((1, 2))


def jpeg(images: torch.Tensor, quality: int) -> tuple[float, float]:
    """(bytes per image without the header's tables, squared error per pixel) of grey images (N, 1, 28, 28)."""
    sizes, decoded = [], []
    for image in images:
        file = io.BytesIO()
        Image.fromarray((255 * image[0]).round().byte().numpy()).save(file, "JPEG", quality=quality)
        data = file.getvalue()
        sizes.append(len(data) - data.index(b"\xff\xda"))  # what follows the last header: the picture itself
        decoded.append(torch.frombuffer(bytearray(Image.open(file).tobytes()), dtype=torch.uint8).view(1, 28, 28) / 255)
    return sum(sizes) / len(sizes), (torch.stack(decoded) - images).square().mean().item()
