"""Draw the README's picture, data/results/picture.png, from the shipped checkpoints, real MNIST and real dogs.

    python -m tests.tools.picture
"""

import math

import matplotlib.pyplot as plt
import torch

from helpers.budget import ROOT, generator_for
from helpers.checkpoints import load_shipped
from helpers.conv_vae import ConvVAE
from helpers.data import load_dogs, load_mnist
from helpers.image_metrics import reconstruct
from helpers.mlp import MLPVAE, Autoencoder
from helpers.plots import draw_images


@torch.no_grad()
def main() -> None:
    vae, autoencoder = load_shipped(MLPVAE, "mlp_vae_2d"), load_shipped(Autoencoder, "autoencoder_32")
    share = (torch.arange(20) + 0.5) / 20
    steps = math.sqrt(2) * torch.erfinv(2 * share - 1)  # equally probable steps of N(0, 1)
    plane = torch.sigmoid(vae.decode(torch.cartesian_prod(steps.flip(0), steps).flip(1)))  # (400, 1, 28, 28)
    digits = load_mnist("test")[:18].pixels()
    rebuilt = torch.sigmoid(autoencoder.decode(autoencoder.encode(digits)))
    invented = torch.sigmoid(autoencoder.decode(torch.randn(18, 32, generator=generator_for("picture"))))
    dogs = load_dogs(64, "test")[:12]
    fig = plt.figure(figsize=(10.4, 8.2))
    grid = fig.add_gridspec(4, 2, width_ratios=(6, 4.3), height_ratios=(1, 1, 1, 1.05))
    draw_images(fig.add_subplot(grid[:3, 0]), plane, 20, "a VAE's whole plane of codes, decoded")
    for row, (title, images) in enumerate(
        (
            ("digits an autoencoder has never seen", digits),
            ("rebuilt from 32 numbers …", rebuilt),
            ("… and made of 32 random numbers", invented),
        )
    ):
        draw_images(fig.add_subplot(grid[row, 1]), images, 6, title)
    both = torch.cat([dogs.pixels(), reconstruct(load_shipped(ConvVAE, "dogs_vae"), dogs)])
    title = "dogs that notebook 5's network has never seen; below, what comes back out of 1/12 of their numbers"
    draw_images(fig.add_subplot(grid[3, :]), both, 12, title)
    fig.savefig(ROOT / "data" / "results" / "picture.png", dpi=100)


if __name__ == "__main__":
    main()
