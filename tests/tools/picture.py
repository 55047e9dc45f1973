"""Draw the README's picture, data/results/picture.png, from the shipped checkpoints.

    python -m tests.tools.picture

On real MNIST and real dogs.
"""

import io
import math

import matplotlib.pyplot as plt
import torch

from helpers.data.datasets import load_dogs, load_mnist
from helpers.env import ROOT, write_file
from helpers.metrics.images import reconstruct
from helpers.models.conv_vae import ConvVAE
from helpers.models.mlp_vae import MLPVAE, Autoencoder
from helpers.rng import generator_for
from helpers.show.plots import draw_images
from helpers.training.checkpoints import load_shipped


def decoded_plane(vae: MLPVAE, side: int = 20) -> torch.Tensor:
    """The images of side × side codes (side², 1, 28, 28), at equally probable steps of N(0, 1)."""
    share = (torch.arange(side) + 0.5) / side
    steps = math.sqrt(2) * torch.erfinv(2 * share - 1)
    codes = torch.cartesian_prod(steps.flip(0), steps).flip(1)  # (side², 2), upwards and rightwards
    return torch.sigmoid(vae.decode(codes))


@torch.no_grad()
def main() -> None:
    fig = plt.figure(figsize=(10.4, 8.2))
    grid = fig.add_gridspec(4, 2, width_ratios=(6, 4.3), height_ratios=(1, 1, 1, 1.05))

    plane = decoded_plane(load_shipped(MLPVAE, "mlp_vae_2d"))
    draw_images(fig.add_subplot(grid[:3, 0]), plane, 20, "a VAE's whole plane of codes, decoded")

    autoencoder = load_shipped(Autoencoder, "autoencoder_32")
    digits = load_mnist("test")[:18].pixels()
    random_codes = torch.randn(18, 32, generator=generator_for("picture"))
    rows = {
        "digits an autoencoder has never seen": digits,
        "rebuilt from 32 latent dimensions": autoencoder.decode(
            autoencoder.encode(digits)
        ).sigmoid(),
        "decoded from random codes": autoencoder.decode(random_codes).sigmoid(),
    }
    for row, (title, images) in enumerate(rows.items()):
        draw_images(fig.add_subplot(grid[row, 1]), images, 6, title)

    dogs = load_dogs(64, "test")[:12]
    both = torch.cat([dogs.pixels(), reconstruct(load_shipped(ConvVAE, "dogs_vae"), dogs)])
    title = "dogs that notebook 8's network has never seen; "
    title += "below, what comes back out of 1/12 of their numbers"
    draw_images(fig.add_subplot(grid[3, :]), both, 12, title)
    file = io.BytesIO()
    fig.savefig(file, format="png", dpi=100)
    write_file(ROOT / "data" / "results" / "picture.png", file.getvalue())


if __name__ == "__main__":
    main()
