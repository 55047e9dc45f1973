"""10,000 samples each of a VAE and of an autoencoder of the same size, seen by a classifier.

Three seeds.  About 2 minutes.
"""

import torch

from helpers.classifiers.digits import DigitClassifier, classify_digits, train_digit_classifier
from helpers.metrics.latents import encode_all
from helpers.metrics.samples import GaussianCodes, bootstrap_interval, frechet_distance
from helpers.rng import generator_for
from tests.benchmarks.common import (
    SEEDS,
    decode,
    mean_sd,
    mnist,
    normal_codes,
    publish,
    recognised,
    train_autoencoder,
    train_vae,
)

NEEDS = ()
WRITES = ("results/samples_20d",)

COUNT = 10_000


def measure(classifier: DigitClassifier, images: torch.Tensor, real: torch.Tensor) -> dict:
    """The figures of some images; real: the classifier's features of test digits."""
    probabilities, features = classify_digits(classifier, images)
    return {
        "recognised": recognised(probabilities),
        "frechet": frechet_distance(features, real),
        "interval": bootstrap_interval(frechet_distance, features, real, repeats=100),
    }


def main() -> None:
    train, test = mnist()
    classifier = train_digit_classifier(train, epochs=3)
    probabilities, real = classify_digits(classifier, test.pixels())
    accuracy = (probabilities.argmax(1) == test.labels).float().mean().item()
    rows: dict[str, list[dict]] = {}

    def note(name: str, images: torch.Tensor) -> None:
        row = measure(classifier, images, real)
        rows.setdefault(name, []).append(row)
        print(f"{name:<36} " + "  ".join(f"{key} {value}" for key, value in row.items()))

    note("real training digits", train[:COUNT].pixels())
    for seed in SEEDS:
        noise = normal_codes(COUNT, 20, seed)
        vae, _, _ = train_vae(train, seed)
        autoencoder = train_autoencoder(train, seed)
        fitted = GaussianCodes(encode_all(autoencoder, train))
        codes = fitted.sample(COUNT, generator_for("fitted", seed))
        note("VAE, N(0, I)", decode(vae, noise))
        note("autoencoder, N(0, I)", decode(autoencoder, noise))
        note("autoencoder, fitted Gaussian", decode(autoencoder, codes))

    values = {"classifier accuracy": accuracy, "real recognised": recognised(probabilities)}
    values["rows"] = {
        name: {
            "recognised": mean_sd([row["recognised"] for row in each]),
            "frechet": mean_sd([row["frechet"] for row in each]),
            "interval": [row["interval"] for row in each],
        }
        for name, each in rows.items()
    }
    publish("samples_20d", values, seeds=SEEDS, data=train.source)


if __name__ == "__main__":
    main()
