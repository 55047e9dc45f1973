"""Inpainting, interpolation, directions, clusters and bits of the VAE with 20 latent dimensions.

Each beside a rival.  Three seeds; every seed has one core to itself.  About 4 minutes.
"""

import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from helpers.data.image_set import ImageSet
from helpers.env import budget
from helpers.metrics.latent_uses import (
    inpaint_by_iteration,
    inpaint_by_neighbour,
    inpaint_by_search,
    inpainting_masks,
    jpeg,
    measured_slant,
)
from helpers.metrics.latents import encode_all
from helpers.models.mlp_vae import MLPVAE
from helpers.rng import generator_for
from tests.benchmarks.common import (
    SEEDS,
    classify,
    mnist,
    over_seeds,
    publish,
    recognised,
    train_vae,
)
from tests.benchmarks.parallel import side_by_side

NEEDS = ("checkpoints/digit_classifier",)  # of notebook 1
WRITES = ("results/latent_uses",)

COUNT = budget(quick=10, cpu=500, gpu=500)
PAIRS = budget(quick=10, cpu=500, gpu=500)
CLUSTERED = budget(quick=100, cpu=5000, gpu=5000)
QUALITIES = (1, 5, 10, 20)


def inpainting(model: MLPVAE, train: ImageSet, test: ImageSet) -> dict[str, float]:
    """Squared error per hidden pixel."""
    x = test[:COUNT].pixels()
    start = train.pixels().mean(0, keepdim=True).expand(len(x), -1, -1, -1)
    library = train[:20_000].pixels()
    found = {}
    for hidden, known in inpainting_masks(len(x)).items():
        ways = {
            "mean image": torch.where(known, x, start),
            "nearest neighbour": inpaint_by_neighbour(library, x, known),
            "iterated": inpaint_by_iteration(model, x, known, start),
            "searched": inpaint_by_search(model, x, known, start),
        }
        for name, filled in ways.items():
            found[f"{hidden}, {name}"] = (filled - x)[~known].square().mean().item()
    return found


@torch.no_grad()
def interpolation(model: MLPVAE, test: ImageSet, seed: int) -> dict[str, float]:
    """The share recognised half-way between two digits, and at the ends."""
    order = torch.randperm(len(test), generator=generator_for("pairs", seed))
    pairs = order[: 2 * PAIRS].view(2, -1)
    z = [model.encode(test[index].pixels()).mode() for index in pairs]
    rebuilt = [model.decode(code).sigmoid() for code in z]
    images = {
        "ends": torch.cat(rebuilt),
        "codes": model.decode((z[0] + z[1]) / 2).sigmoid(),
        "cross-fade": sum(rebuilt) / 2,
    }
    return {name: recognised(classify(part)) for name, part in images.items()}


@torch.no_grad()
def arithmetic(
    model: MLPVAE,
    train: ImageSet,
    test: ImageSet,
    codes: torch.Tensor,
    test_codes: torch.Tensor,
) -> dict[str, float]:
    """The share of fours that are nines once nine minus four is added to codes or to pixels."""
    nines = train.labels == 9
    fours = train.labels == 4
    pixels = train.pixels()
    code_step = codes[nines].mean(0) - codes[fours].mean(0)
    pixel_step = pixels[nines].mean(0) - pixels[fours].mean(0)
    asked = test.labels == 4
    images = {
        "codes": model.decode(test_codes[asked] + code_step).sigmoid(),
        "pixels": (test[asked].pixels() + pixel_step).clamp(0, 1),
    }
    digits = {name: classify(part).argmax(1) for name, part in images.items()}
    return {name: (found == 9).float().mean().item() for name, found in digits.items()}


def directions(train: ImageSet, codes: torch.Tensor) -> dict[str, float]:
    """The share of the variance of slant and of ink that a line in the codes explains."""
    known = torch.cat([codes, torch.ones(len(codes), 1)], 1)
    pixels = train.pixels()
    found = {}
    for name, values in {"slant": measured_slant(pixels), "ink": pixels.sum((1, 2, 3))}.items():
        line = torch.linalg.lstsq(known, values[:, None]).solution[:, 0]
        left = values - known @ line
        found[name] = 1 - (left.var() / values.var()).item()
    return found


def clusters(test: ImageSet, test_codes: torch.Tensor, seed: int) -> dict[str, float]:
    """The adjusted Rand index of k-means' ten clusters and the ten digits."""
    part = test[:CLUSTERED]
    found = {}
    for name, view in {"codes": test_codes[:CLUSTERED], "pixels": part.pixels().flatten(1)}.items():
        kmeans = KMeans(10, n_init=4, random_state=seed)
        groups = kmeans.fit_predict(view.numpy())
        found[name] = float(adjusted_rand_score(part.labels.numpy(), groups))
    return found


@torch.no_grad()
def compression(model: MLPVAE, test: ImageSet, seed: int) -> dict[str, float]:
    """Bits per image, and squared error per pixel of a draw."""
    x = test[:COUNT].pixels()
    posterior = model.encode(x)
    drawn = model.decode(posterior.sample(generator_for("bits", seed))).sigmoid()
    bits = posterior.kl().mean() / torch.tensor(2.0).log()
    return {"bits": bits.item(), "error": (drawn - x).square().mean().item()}


def one_seed(seed: int) -> dict[str, dict[str, float]]:
    """All figures with one seed."""
    train, test = mnist()
    model, _, _ = train_vae(train, seed)
    codes = encode_all(model.eval(), train)
    test_codes = encode_all(model, test)
    return {
        "inpainting": inpainting(model, train, test),
        "interpolation": interpolation(model, test, seed),
        "arithmetic": arithmetic(model, train, test, codes, test_codes),
        "directions": directions(train, codes),
        "clusters": clusters(test, test_codes, seed),
        "compression": compression(model, test, seed),
    }


def main() -> None:
    runs = side_by_side(one_seed, SEEDS)
    values = {kind: over_seeds([run[kind] for run in runs]) for kind in runs[0]}
    for kind, rows in values.items():
        for name, row in rows.items():
            print(f"{kind:<13} {name:<34} {row['mean']:9.4f} ± {row['sd']:.4f}")
    train, test = mnist()
    digits = test[:COUNT].pixels()
    values["JPEG"] = {}
    for quality in QUALITIES:
        size, error = jpeg(digits, quality)
        values["JPEG"][str(quality)] = {"bytes": size, "error": error}
    publish("latent_uses", values, seeds=SEEDS, data=train.source)


if __name__ == "__main__":
    main()
