"""Test error of the autoencoder and of PCA with 2, 8, 16 and 32 latent dimensions.

The two larger autoencoders are trained three times as long as well.  Three seeds; every model has
one core to itself.  About 10 minutes.
"""

import torch

from helpers.env import budget
from helpers.models.mlp_vae import Autoencoder
from helpers.models.pca import principal_components
from helpers.rng import seed_everything
from helpers.training.by_hand import sum_of_squares
from helpers.training.loop import evaluate, fit
from tests.benchmarks.common import SEEDS, mean_sd, mnist_split, publish
from tests.benchmarks.parallel import side_by_side

NEEDS = ()
WRITES = ("results/autoencoder_vs_pca",)

SIZES = (2, 8, 16, 32)
LONGER = (16, 32)
EPOCHS = budget(quick=1, cpu=10, gpu=10)


def squared_error_loss(model, batch, generator) -> dict[str, torch.Tensor]:
    """The squared error summed over the pixels."""
    image = torch.sigmoid(model(batch["images"]).decoded.float())
    return {"loss": sum_of_squares(image, batch["images"])}


def pca_errors() -> dict[int, float]:
    """{k: squared error per pixel of the test images through k principal components}."""
    train, test, _ = mnist_split()
    mean, directions = principal_components(train.pixels().flatten(1), max(SIZES))
    flat = test.pixels().flatten(1)  # (N, 784)
    errors = {}
    for k in SIZES:
        code = (flat - mean) @ directions[:k].T  # (N, k)
        rebuilt = (mean + code @ directions[:k]).clamp(0, 1)  # grey, as the autoencoder's
        errors[k] = (rebuilt - flat).square().mean().item()
    return errors


def autoencoder_error(job: tuple[int, int, int]) -> float:
    """The same of an autoencoder; job: (latent dimensions, epochs, seed)."""
    size, epochs, seed = job
    train, test, _ = mnist_split()
    seed_everything(seed)
    model = Autoencoder(size, (512, 256))
    fit(model, squared_error_loss, train, epochs=epochs, lr=3e-3, seed=seed)
    error = evaluate(model, squared_error_loss, test)["loss"] / 784
    print(f"{size} dimensions, {epochs} epochs, seed {seed}: {error:.5f}", flush=True)
    return error


def main() -> None:
    _, _, data = mnist_split()
    lengths = [(size, EPOCHS) for size in SIZES] + [(size, 3 * EPOCHS) for size in LONGER]
    jobs = [(size, epochs, seed) for size, epochs in lengths for seed in SEEDS]
    found = dict(zip(jobs, side_by_side(autoencoder_error, jobs), strict=True))
    ours = {length: mean_sd([found[*length, seed] for seed in SEEDS]) for length in lengths}
    linear = pca_errors()
    values = {
        "mse per pixel": {
            size: {"pca": linear[size], "autoencoder": ours[size, EPOCHS]} for size in SIZES
        },
        "three times as long": {size: ours[size, 3 * EPOCHS] for size in LONGER},
    }
    publish("autoencoder_vs_pca", values, seeds=SEEDS, data=data)


if __name__ == "__main__":
    main()
