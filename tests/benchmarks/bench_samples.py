"""10,000 samples each of autoencoders and VAEs with 2, 8 and 20 latent dimensions.

Codes are drawn from N(0, I), or from a full-covariance Gaussian fitted to the model's own codes of
the training images: of a VAE, to one draw of each posterior.  What is recognised, and the Fréchet
distance to the test digits, by the shipped classifier.  Three seeds; every model has one core to
itself.  About 6 minutes.
"""

import torch

from helpers.classifiers.digits import DigitClassifier, classify_digits
from helpers.env import budget, device
from helpers.metrics.latents import encode_all
from helpers.metrics.samples import GaussianCodes, frechet_distance
from helpers.rng import generator_for
from helpers.training.checkpoints import load_shipped
from tests.benchmarks.common import (
    SEEDS,
    decode,
    mnist_split,
    normal_codes,
    over_seeds,
    publish,
    recognised,
    train_autoencoder,
    train_vae,
)
from tests.benchmarks.parallel import side_by_side

NEEDS = ("checkpoints/digit_classifier",)  # of notebook 1
WRITES = ("results/samples",)

KINDS = ("autoencoder", "VAE")
SIZES = (2, 8, 20)
COUNT = budget(quick=500, cpu=10_000, gpu=10_000)


def judge(images: torch.Tensor, real: torch.Tensor) -> dict[str, float]:
    """The figures of some images; real: the test digits."""
    classifier = load_shipped(DigitClassifier, "digit_classifier")
    probabilities, features = classify_digits(classifier, images)
    _, real_features = classify_digits(classifier, real)
    return {
        "recognised": recognised(probabilities),
        "frechet": frechet_distance(features, real_features),
    }


def measure(job: tuple[str, int, int]) -> dict[str, dict[str, float]]:
    """{where codes come from: the figures} of one model; job: (kind, latent dimensions, seed)."""
    kind, latent, seed = job
    train, test, _ = mnist_split()
    if kind == "VAE":
        model, _, _ = train_vae(train, seed, latent)
    else:
        model = train_autoencoder(train, seed, latent)
    own = encode_all(model, train, generator_for("own codes", seed, device=device()))
    codes = {
        "N(0, I)": normal_codes(COUNT, latent, seed),
        "fitted Gaussian": GaussianCodes(own).sample(COUNT, generator_for("fitted", seed)),
    }
    found = {way: judge(decode(model, z), test.pixels()) for way, z in codes.items()}
    print(job, found, flush=True)
    return found


def main() -> None:
    train, test, data = mnist_split()
    jobs = [(kind, latent, seed) for kind in KINDS for latent in SIZES for seed in SEEDS]
    found = dict(zip(jobs, side_by_side(measure, jobs), strict=True))
    rows: dict[str, dict] = {kind: {} for kind in KINDS}
    for kind in KINDS:
        for latent in SIZES:
            each = [found[kind, latent, seed] for seed in SEEDS]
            rows[kind][latent] = {way: over_seeds([row[way] for row in each]) for way in each[0]}
    real = judge(train[:COUNT].pixels(), test.pixels())
    publish("samples", {"count": COUNT, "real": real, "rows": rows}, seeds=SEEDS, data=data)


if __name__ == "__main__":
    main()
