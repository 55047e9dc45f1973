"""Held-out error of the autoencoder and of PCA with 2, 8, 16 and 32 numbers, three seeds.  About 4 minutes."""

import torch
from sklearn.decomposition import PCA

from helpers.budget import budget, seed_everything
from helpers.mlp import Autoencoder
from helpers.results import save_result
from helpers.training import evaluate, fit
from tests.benchmarks.common import SEEDS, mean_sd, mnist

SIZES = (2, 8, 16, 32)
EPOCHS = budget(quick=1, cpu=10, gpu=10)


def squared_error_loss(model, batch, generator):
    image = torch.sigmoid(model(batch.images).decoded.float())
    return {"loss": (image - batch.images).square().flatten(1).sum(1)}


def main() -> None:
    train, test = mnist()
    flat, held_out = train.pixels().flatten(1).numpy(), test.pixels().flatten(1).numpy()
    rows = {}
    for size in SIZES:
        pca = PCA(size, random_state=0).fit(flat)
        rebuilt = pca.inverse_transform(pca.transform(held_out)).clip(0, 1)  # grey values, as the autoencoder's
        linear = float(((rebuilt - held_out) ** 2).mean())
        errors = []
        for seed in SEEDS:
            seed_everything(seed)
            model = Autoencoder(size, (512, 256))
            fit(model, squared_error_loss, train, epochs=EPOCHS, lr=3e-3, seed=seed)
            errors.append(evaluate(model, squared_error_loss, test)["loss"] / 784)
        rows[size] = {"pca": linear, "autoencoder": mean_sd(errors)}
        print(f"{size:>3} numbers: PCA {linear:.5f}, autoencoder {rows[size]['autoencoder']['mean']:.5f}")
    save_result("autoencoder_vs_pca", {"mse per pixel": rows}, seeds=SEEDS, data=train.source)


if __name__ == "__main__":
    main()
