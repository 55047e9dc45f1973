"""-log p(x) by importance weighting, k = 1 … 1000, grey and binarised pixels, every fifth test image, three seeds.

About 4 minutes.
"""

import torch

from helpers.budget import generator_for
from helpers.data import ImageSet
from helpers.losses import negative_elbo
from helpers.metrics import importance_nll
from helpers.results import save_result
from helpers.training import evaluate
from tests.benchmarks.common import SEEDS, mean_sd, mnist, train_vae, vae_loss

KS = (1, 10, 100, 1000)


def binarised_loss(model, batch, generator):
    """Dynamic binarisation: each pixel is drawn anew, 1 with its grey value as probability.  Burda et al. 2016."""
    x = (torch.rand(batch.images.shape, generator=generator, device=batch.images.device) < batch.images).float()
    return negative_elbo(model(x, generator), x)


def main() -> None:
    train, test = mnist()
    part = test[::5]
    grey = part.pixels()
    binary = (torch.rand(grey.shape, generator=generator_for("binarise")) < grey).float()
    values = {}
    drawn = ImageSet((binary * 255).to(torch.uint8), None, "binarised")
    for name, loss, held_out in (("grey BCE", vae_loss, part), ("dynamically binarised", binarised_loss, drawn)):
        x = held_out.pixels()
        estimates, bounds = {k: [] for k in KS}, []
        for seed in SEEDS:
            model, _, _ = train_vae(train, seed, loss=loss)
            model.cpu()
            bounds.append(evaluate(model, vae_loss, held_out)["loss"])
            for k in KS:
                parts = [importance_nll(model, images, k, generator_for("k", k)) for images in x.split(500)]
                estimates[k].append(torch.cat(parts).mean().item())
        values[name] = {"negative elbo": mean_sd(bounds), "estimates": {k: mean_sd(v) for k, v in estimates.items()}}
        print(name, {k: round(v["mean"], 2) for k, v in values[name]["estimates"].items()})
    save_result("importance", values, seeds=SEEDS, data=test.source)


if __name__ == "__main__":
    main()
