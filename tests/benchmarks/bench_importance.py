"""-log p(x) by importance weighting, k = 1 … 1000, of grey and of binarised pixels.

Every fifth test image, three seeds.  About 4 minutes.
"""

import torch

from helpers.data.image_set import ImageSet
from helpers.metrics.likelihood import importance_nll
from helpers.models.losses import negative_elbo
from helpers.rng import generator_for
from helpers.training.loop import evaluate
from tests.benchmarks.common import (
    SEEDS,
    mean_sd,
    mnist_split,
    over_seeds,
    publish,
    train_vae,
    vae_loss,
)

NEEDS = ()
WRITES = ("results/importance",)

KS = (1, 10, 100, 1000)


def binarised_loss(model, batch, generator) -> dict[str, torch.Tensor]:
    """Dynamic binarisation: each pixel is drawn anew, 1 with its grey value as probability.

    Burda et al. 2016.
    """
    grey = batch["images"]
    x = (torch.rand(grey.shape, generator=generator, device=grey.device) < grey).float()
    return negative_elbo(model(x, generator), x)


def binarised(images: ImageSet) -> ImageSet:
    """The same images with pixels drawn once, 0 or 1."""
    grey = images.pixels()
    binary = torch.rand(grey.shape, generator=generator_for("binarise")) < grey
    return ImageSet(255 * binary.to(torch.uint8), None, "binarised")


def measure(train: ImageSet, held_out: ImageSet, loss, seed: int) -> tuple[float, dict[int, float]]:
    """(held-out negative ELBO, {k: estimate}) of one training, in nats per image."""
    model, _, _ = train_vae(train, seed, loss=loss)
    model.cpu()
    bound = evaluate(model, vae_loss, held_out)["loss"]
    estimates = {}
    for k in KS:
        chunks = held_out.pixels().split(500)
        parts = [importance_nll(model, x, k, generator_for("k", k)) for x in chunks]
        estimates[k] = torch.cat(parts).mean().item()
    return bound, estimates


def main() -> None:
    train, test, data = mnist_split()
    part = test[::5]
    values = {}
    for name, loss, held_out in (
        ("grey BCE", vae_loss, part),
        ("dynamically binarised", binarised_loss, binarised(part)),
    ):
        found = [measure(train, held_out, loss, seed) for seed in SEEDS]
        bounds = [bound for bound, _ in found]
        estimates = over_seeds([each for _, each in found])
        values[name] = {"negative elbo": mean_sd(bounds), "estimates": estimates}
        print(name, {k: round(row["mean"], 2) for k, row in estimates.items()})
    publish("importance", values, seeds=SEEDS, data=data)


if __name__ == "__main__":
    main()
