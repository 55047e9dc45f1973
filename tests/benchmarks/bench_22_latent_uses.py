"""Gaps, walks, directions, clumps and bits of the VAE with 20 numbers, each beside a rival.

Three seeds.  About 4 minutes.  Every seed has one core to itself.
"""

import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from helpers.budget import budget, generator_for
from helpers.checkpoints import load_shipped
from helpers.latent_uses import (
    complete_by_iteration,
    complete_by_neighbour,
    complete_by_search,
    jpeg,
    masks,
    measured_slant,
)
from helpers.metrics import DigitJudge, encode_all, judge_images
from helpers.results import save_result
from tests.benchmarks.common import SEEDS, mnist, over_seeds, side_by_side, sure, train_vae

COUNT, PAIRS, CLUSTERED = budget(quick=(10, 10, 100), cpu=(500, 500, 5000), gpu=(500, 500, 5000))
QUALITIES = (1, 5, 10, 20)


def gaps(model, train, test) -> dict[str, float]:
    """Squared error per hidden pixel."""
    x, start = test[:COUNT].pixels(), train.pixels().mean(0, keepdim=True).expand(len(test[:COUNT]), -1, -1, -1)
    found, library = {}, train[:20_000].pixels()
    for hidden, known in masks(len(x)).items():
        ways = {"mean image": torch.where(known, x, start), "nearest neighbour": complete_by_neighbour(library, x, known)}
        ways["iterated"] = complete_by_iteration(model, x, known, start)
        ways["searched"] = complete_by_search(model, x, known, start)
        found |= {f"{hidden}, {name}": (done - x)[~known].square().mean().item() for name, done in ways.items()}
    return found


@torch.no_grad()
def walks(model, test, seed: int) -> dict[str, float]:
    """The share recognised half-way between two digits, by codes and by cross-fading; and at the ends."""
    judge = load_shipped(DigitJudge, "digit_judge")
    pairs = torch.randperm(len(test), generator=generator_for("pairs", seed))[: 2 * PAIRS].view(2, -1)
    z = [model.encode(test[index].pixels()).mode() for index in pairs]
    rebuilt = [model.decode(code).sigmoid() for code in z]
    images = {"ends": torch.cat(rebuilt), "codes": model.decode((z[0] + z[1]) / 2).sigmoid(), "cross-fade": sum(rebuilt) / 2}
    return {name: sure(judge_images(judge, part)[0]) for name, part in images.items()}


@torch.no_grad()
def arithmetic(model, train, test, codes, test_codes) -> dict[str, float]:
    """The share of fours that are read as nines, when nine minus four is added to codes or to pixels."""
    judge, fours = load_shipped(DigitJudge, "digit_judge"), test.labels == 4
    step = codes[train.labels == 9].mean(0) - codes[train.labels == 4].mean(0)
    pixels = train.pixels()
    flat_step = pixels[train.labels == 9].mean(0) - pixels[train.labels == 4].mean(0)
    images = {
        "codes": model.decode(test_codes[fours] + step).sigmoid(),
        "pixels": (test[fours].pixels() + flat_step).clamp(0, 1),
    }
    return {name: (judge_images(judge, part)[0].argmax(1) == 9).float().mean().item() for name, part in images.items()}


def directions(train, codes) -> dict[str, float]:
    """The share of the variance of slant and of ink that a line in the codes explains."""
    known, found = torch.cat([codes, torch.ones(len(codes), 1)], 1), {}
    for name, values in {"slant": measured_slant(train.pixels()), "ink": train.pixels().sum((1, 2, 3))}.items():
        left = values - known @ torch.linalg.lstsq(known, values[:, None]).solution[:, 0]
        found[name] = 1 - (left.var() / values.var()).item()
    return found


def clumps(test, test_codes, seed: int) -> dict[str, float]:
    """The adjusted Rand index of k-means' ten clumps and the ten digits."""
    views = {"codes": test_codes[:CLUSTERED], "pixels": test[:CLUSTERED].pixels().flatten(1)}
    digits = test.labels[:CLUSTERED].numpy()
    return {
        name: float(adjusted_rand_score(digits, KMeans(10, n_init=4, random_state=seed).fit_predict(view.numpy())))
        for name, view in views.items()
    }


@torch.no_grad()
def compression(model, test, seed: int) -> dict[str, float]:
    """Bits per image and squared error per pixel of a draw."""
    x = test[:COUNT].pixels()
    posterior = model.encode(x)
    drawn = model.decode(posterior.sample(generator_for("bits", seed))).sigmoid()
    bits = posterior.kl().mean() / torch.tensor(2.0).log()
    return {"bits": bits.item(), "error": (drawn - x).square().mean().item()}


def one_seed(seed: int) -> dict[str, dict[str, float]]:
    train, test = mnist()
    model, _, _ = train_vae(train, seed)
    codes, test_codes = encode_all(model.eval(), train), encode_all(model, test)
    return {
        "gaps": gaps(model, train, test),
        "walks": walks(model, test, seed),
        "arithmetic": arithmetic(model, train, test, codes, test_codes),
        "directions": directions(train, codes),
        "clumps": clumps(test, test_codes, seed),
        "compression": compression(model, test, seed),
    }


def main() -> None:
    runs = side_by_side(one_seed, SEEDS)
    values = {kind: over_seeds([run[kind] for run in runs]) for kind in runs[0]}
    for kind, rows in values.items():
        for name, row in rows.items():
            print(f"{kind:<12} {name:<34} {row['mean']:9.4f} ± {row['sd']:.4f}")
    digits = mnist()[1][:COUNT].pixels()
    values["JPEG"] = {str(q): dict(zip(("bytes", "error"), jpeg(digits, q), strict=True)) for q in QUALITIES}
    save_result("latent_uses", values, seeds=SEEDS, data=mnist()[0].source)


if __name__ == "__main__":
    main()
