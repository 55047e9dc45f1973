"""What the benchmarks share: data, the course's recipes for MNIST, statistics, publishing."""

import statistics
import time
from collections.abc import Callable, Collection

import torch

from helpers import train_vae as command
from helpers.classifiers.digits import DigitClassifier, classify_digits
from helpers.data.datasets import load_mnist
from helpers.data.image_set import ImageSet
from helpers.env import budget, device, profile
from helpers.models.losses import bernoulli_nll, negative_elbo
from helpers.models.mlp_vae import MLPVAE, Autoencoder
from helpers.results import describe_device, save_result
from helpers.rng import generator_for, seed_everything
from helpers.training.checkpoints import load_shipped
from helpers.training.history import History
from helpers.training.loop import fit
from tests.benchmarks.catalogue import writer_of
from tests.benchmarks.recipe_code import fingerprint

SEEDS = [0, 1, 2]
SUFFIX = "" if device().type == "cpu" else "_gpu"  # of results that a GPU must not write over

# lr, batch size and epochs were chosen on 5,000 images held out from the training set (lr 1e-3 …
# 3e-2, 4 … 20 epochs, batches of 128 … 512); then the 2-D epochs were cut from 20 to 15 for time,
# after runs that had printed test figures as well
RECIPE_20D = {"epochs": budget(quick=1, cpu=6, gpu=6), "batch_size": 256, "lr": 1.5e-2}
RECIPE_2D = {"epochs": budget(quick=1, cpu=15, gpu=15), "batch_size": 256, "lr": 6e-3}
HIDDEN_20D = (400,)
HIDDEN_2D = (512, 256, 128)


def publish(name: str, values: dict, *, seeds: list[int], data: str) -> dict:
    """`save_result`, with the fingerprint of the benchmark that writes results/`name`."""
    code = fingerprint(writer_of(f"results/{name}"), profile())
    return save_result(name, values, seeds=seeds, data=data, code=code)


# --- MNIST ---


def mnist() -> tuple[ImageSet, ImageSet]:
    """(train, test): all 60,000 + 10,000 images under `make bench`."""
    return load_mnist("train"), load_mnist("test")


def mnist_split() -> tuple[ImageSet, ImageSet, str]:
    """(train, test, what they are in words): the 55,000 that notebooks 1 to 3 train on."""
    train, _ = load_mnist("train").split(budget(quick=200, cpu=5000, gpu=5000))
    test = load_mnist("test")
    return train, test, f"{train.source}, {len(train):,} images to train on"


def beta_loss(model, batch, generator, beta: float) -> dict[str, torch.Tensor]:
    """The negative ELBO with `beta` times the KL."""
    return negative_elbo(model(batch["images"], generator), batch["images"], beta=beta)


def vae_loss(model, batch, generator) -> dict[str, torch.Tensor]:
    """The negative ELBO."""
    return beta_loss(model, batch, generator, beta=1.0)


def autoencoder_loss(model, batch, generator) -> dict[str, torch.Tensor]:
    """The reconstruction error alone."""
    return {"loss": bernoulli_nll(model(batch["images"]).decoded, batch["images"])}


def train_vae(
    train: ImageSet, seed: int, latent: int = 20, loss: Callable = vae_loss
) -> tuple[MLPVAE, float, History]:
    """The course's recipe: the model, the seconds its training took, and its History."""
    seed_everything(seed)
    model = MLPVAE(latent, HIDDEN_2D if latent == 2 else HIDDEN_20D)
    recipe = RECIPE_2D if latent == 2 else RECIPE_20D
    started = time.perf_counter()
    history = fit(model, loss, train, seed=seed, **recipe)
    return model, time.perf_counter() - started, history


def train_autoencoder(train: ImageSet, seed: int, latent: int = 20) -> Autoencoder:
    """The autoencoder of the same size, by the same recipe."""
    seed_everything(seed)
    model = Autoencoder(latent, HIDDEN_2D if latent == 2 else HIDDEN_20D)
    fit(model, autoencoder_loss, train, seed=seed, **(RECIPE_2D if latent == 2 else RECIPE_20D))
    return model


@torch.no_grad()
def decode(model, codes: torch.Tensor) -> torch.Tensor:
    """Images (N, 1, 28, 28) in [0, 1] of codes (N, latent), on the CPU."""
    on = next(model.parameters()).device
    return torch.sigmoid(model.decode(codes.to(on))).cpu()


def classify(images: torch.Tensor) -> torch.Tensor:
    """The shipped classifier's probabilities of the ten digits, (N, 10)."""
    return classify_digits(load_shipped(DigitClassifier, "digit_classifier"), images)[0]


def recognised(probabilities: torch.Tensor) -> float:
    """The share of images that a classifier is sure of: one of (N, 10) is more than 0.9."""
    return (probabilities.max(1).values > 0.9).float().mean().item()


def normal_codes(count: int, latent: int, seed: int) -> torch.Tensor:
    """Draws of N(0, I), (count, latent)."""
    return torch.randn(count, latent, generator=generator_for("samples", seed))


# --- dogs ---


def figures_of(run: str, words: list) -> dict:
    """What `helpers.train_vae` with these words measures, and "on" what.

    run: a name that begins with the benchmark's.
    """
    return command.main([*map(str, words), "--run", run]) | {"on": describe_device()}


# --- statistics ---


def take_shared(rows: Collection[dict], *names: str) -> tuple:
    """Take out of all rows what they have in common, such as "source": one value per name."""
    each = [dict.fromkeys(row.pop(name) for row in rows) for name in names]
    assert all(len(values) == 1 for values in each), f"the rows differ: {each}"
    return tuple(next(iter(values)) for values in each)


def mean_sd(values: list[float]) -> dict:
    """{"mean", "sd", "each"} over seeds; no "sd" of a single value."""
    sd = {"sd": statistics.stdev(values)} if len(values) > 1 else {}
    return {"mean": statistics.mean(values), **sd, "each": values}


def over_seeds(rows: list[dict]) -> dict:
    """{figure: mean_sd of it over the rows}."""
    return {key: mean_sd([row[key] for row in rows]) for key in rows[0]}


def compare(what: str, unit: str, contenders: dict[str, list[float]]) -> dict:
    """Print and return each contender's median, and its ratio to the first one's, pair by pair."""
    first = next(iter(contenders.values()))
    summary = {}
    for name, values in contenders.items():
        median = statistics.median(values)
        ratio = statistics.median(a / b for a, b in zip(first, values, strict=True))
        summary[name] = {"median": median, "each": values, "first/this": ratio}
        print(f"{what:>10} · {name:<28} median {median:8.2f} {unit}   first / this {ratio:5.2f}")
    return summary
