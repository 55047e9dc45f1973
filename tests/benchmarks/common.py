"""What the benchmarks share: the data, the recipes under test, and medians over interleaved runs."""

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Collection
from concurrent.futures import ProcessPoolExecutor

import torch

from helpers import train_dogs
from helpers.budget import budget, device, generator_for, seed_everything
from helpers.data import load_mnist
from helpers.losses import bernoulli_nll, negative_elbo
from helpers.mlp import MLPVAE, Autoencoder
from helpers.results import describe_device
from helpers.training import fit

SEEDS = [0, 1, 2]
SUFFIX = "" if device().type == "cpu" else "_gpu"  # of results that a GPU must not write over

# rate, batch and epochs chosen on 5,000 images held out from the training set (lr 1e-3 … 3e-2, 4 … 20 epochs, batch
# 128 … 512); then the 2-D epochs were cut from 20 to 15 for time, after runs that had printed test numbers as well
RECIPE_20D = {"epochs": budget(quick=1, cpu=6, gpu=6), "batch_size": 256, "lr": 1.5e-2}
RECIPE_2D = {"epochs": budget(quick=1, cpu=15, gpu=15), "batch_size": 256, "lr": 6e-3}
HIDDEN_20D, HIDDEN_2D = (400,), (512, 256, 128)


def mnist():
    """(train, test): all 60,000 + 10,000 images under `make bench`."""
    return load_mnist("train"), load_mnist("test")


def beta_loss(model, batch, generator, beta):
    return negative_elbo(model(batch.images, generator), batch.images, beta=beta)


def vae_loss(model, batch, generator):
    return beta_loss(model, batch, generator, beta=1.0)


def autoencoder_loss(model, batch, generator):
    return {"loss": bernoulli_nll(model(batch.images).decoded, batch.images)}


def train_vae(train, seed: int, latent: int = 20, loss=vae_loss):
    """Our recipe: the model, the seconds its training took, and its History."""
    seed_everything(seed)
    model = MLPVAE(latent, HIDDEN_2D if latent == 2 else HIDDEN_20D)
    started = time.perf_counter()
    history = fit(model, loss, train, seed=seed, **(RECIPE_2D if latent == 2 else RECIPE_20D))
    return model, time.perf_counter() - started, history


def train_autoencoder(train, seed: int):
    """The autoencoder of the same size, by the same recipe."""
    seed_everything(seed)
    model = Autoencoder(20, HIDDEN_20D)
    fit(model, autoencoder_loss, train, seed=seed, **RECIPE_20D)
    return model


@torch.no_grad()
def decode(model, codes: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(model.decode(codes.to(next(model.parameters()).device))).cpu()


def sure(probabilities: torch.Tensor) -> float:
    """The share of pictures in which a judge is sure of a digit: one of the ten (N, 10) has more than 0.9."""
    return (probabilities.max(1).values > 0.9).float().mean().item()


def normal_codes(count: int, latent: int, seed: int) -> torch.Tensor:
    return torch.randn(count, latent, generator=generator_for("samples", seed))


def side_by_side(task: Callable, jobs: list) -> list:
    """task(job) of every job, each on one core with one thread, as many at a time as there are cores; a GPU takes turns.

    Small networks gain little from a second thread, so this is how two cores do the most in an hour.
    """
    workers = min(len(jobs), torch.get_num_threads()) if device().type == "cpu" else 1
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, initializer=_one_thread) as pool:
        return list(pool.map(task, jobs))


def _one_thread() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def figures_of(run: str, words: list) -> dict:
    """What `helpers.train_dogs` with these words measures, and "on" what; run: a name that begins with the benchmark's."""
    return train_dogs.main([*map(str, words), "--run", run]) | {"on": describe_device()}


def take_shared(rows: Collection[dict], *names: str) -> tuple:
    """Take out of all rows what they have in common, such as their "source": one value for each name."""
    each = [dict.fromkeys(row.pop(name) for row in rows) for name in names]
    assert all(len(values) == 1 for values in each), f"the rows differ: {each}"
    return tuple(next(iter(values)) for values in each)


def mean_sd(values: list[float]) -> dict:
    """{"mean", "sd", "each"} over seeds."""
    return {"mean": statistics.mean(values), "sd": statistics.stdev(values), "each": values}


def over_seeds(rows: list[dict]) -> dict:
    """{figure: mean_sd of it over the rows}."""
    return {key: mean_sd([row[key] for row in rows]) for key in rows[0]}


def report(what: str, unit: str, contenders: dict[str, list[float]]) -> dict:
    """Print and return each contender's median and its ratio to the first one's, pair by pair."""
    first = next(iter(contenders.values()))
    summary = {}
    for name, values in contenders.items():
        ratio = statistics.median(a / b for a, b in zip(first, values, strict=True))
        summary[name] = {"median": statistics.median(values), "each": values, "first/this": ratio}
        print(f"{what:>10} · {name:<28} median {statistics.median(values):8.2f} {unit}   first / this {ratio:5.2f}")
    return summary
