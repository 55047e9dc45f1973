"""Held-out error of the autoencoder and of PCA with 2, 8, 16 and 32 latent dimensions.

Three seeds.  About 4 minutes.
"""

import numpy as np
import torch
from sklearn.decomposition import PCA

from helpers.data.image_set import ImageSet
from helpers.env import budget
from helpers.models.mlp_vae import Autoencoder
from helpers.rng import seed_everything
from helpers.training.loop import evaluate, fit
from tests.benchmarks.common import SEEDS, mean_sd, mnist, publish

NEEDS = ()
WRITES = ("results/autoencoder_vs_pca",)

SIZES = (2, 8, 16, 32)
EPOCHS = budget(quick=1, cpu=10, gpu=10)


def squared_error_loss(model, batch, generator) -> dict[str, torch.Tensor]:
    """The squared error summed over the pixels."""
    image = torch.sigmoid(model(batch["images"]).decoded.float())
    return {"loss": (image - batch["images"]).square().flatten(1).sum(1)}


def pca_error(size: int, train: np.ndarray, test: np.ndarray) -> float:
    """Squared error per pixel of test images (N, 784) through `size` principal components."""
    pca = PCA(size, random_state=0).fit(train)
    rebuilt = pca.inverse_transform(pca.transform(test)).clip(0, 1)  # grey, as the autoencoder's
    return float(((rebuilt - test) ** 2).mean())


def autoencoder_error(size: int, train: ImageSet, test: ImageSet, seed: int) -> float:
    """The same of an autoencoder with `size` latent dimensions."""
    seed_everything(seed)
    model = Autoencoder(size, (512, 256))
    fit(model, squared_error_loss, train, epochs=EPOCHS, lr=3e-3, seed=seed)
    return evaluate(model, squared_error_loss, test)["loss"] / 784


def main() -> None:
    train, test = mnist()
    flat = train.pixels().flatten(1).numpy()
    held_out = test.pixels().flatten(1).numpy()
    rows = {}
    for size in SIZES:
        linear = pca_error(size, flat, held_out)
        ours = mean_sd([autoencoder_error(size, train, test, seed) for seed in SEEDS])
        rows[size] = {"pca": linear, "autoencoder": ours}
        print(f"{size:>3} dimensions: PCA {linear:.5f}, autoencoder {ours['mean']:.5f}")
    publish("autoencoder_vs_pca", {"mse per pixel": rows}, seeds=SEEDS, data=train.source)


if __name__ == "__main__":
    main()
