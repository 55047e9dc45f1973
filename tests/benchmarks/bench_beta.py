"""The VAE of 20 latent dimensions with β from 0.1 to 10: both terms, active units, samples.

Three seeds.  About 3 minutes.
"""

from functools import partial

import torch

from helpers.classifiers.digits import DigitClassifier, classify_digits
from helpers.data.image_set import ImageSet
from helpers.metrics.latents import active_units, encode_all
from helpers.metrics.samples import frechet_distance
from helpers.training.checkpoints import load_shipped
from helpers.training.loop import evaluate
from tests.benchmarks.common import (
    SEEDS,
    beta_loss,
    decode,
    mnist_split,
    normal_codes,
    over_seeds,
    publish,
    recognised,
    train_vae,
    vae_loss,
)

NEEDS = ("checkpoints/digit_classifier",)  # of notebook 1
WRITES = ("results/beta_sweep",)

BETAS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 10.0)


def measure(
    beta: float,
    seed: int,
    data: tuple[ImageSet, ImageSet],
    classifier: DigitClassifier,
    real: torch.Tensor,
) -> dict[str, float]:
    """The figures of a VAE trained with `beta`; real: the classifier's features of test digits."""
    train, test = data
    model, _, _ = train_vae(train, seed, loss=partial(beta_loss, beta=beta))
    found = evaluate(model, vae_loss, test)
    samples = decode(model, normal_codes(10_000, 20, seed))
    probabilities, features = classify_digits(classifier, samples)
    return {
        "reconstruction": found["reconstruction"],
        "kl": found["kl"],
        "loss": found["loss"],
        "active units": active_units(encode_all(model, test)),
        "recognised": recognised(probabilities),
        "frechet": frechet_distance(features, real),
    }


def main() -> None:
    train, test, data = mnist_split()
    classifier = load_shipped(DigitClassifier, "digit_classifier")
    _, real = classify_digits(classifier, test.pixels())
    rows = {}
    for beta in BETAS:
        each = [measure(beta, seed, (train, test), classifier, real) for seed in SEEDS]
        rows[beta] = over_seeds(each)
        print(f"β = {beta:<5}", {name: round(v["mean"], 2) for name, v in rows[beta].items()})
    publish("beta_sweep", {"rows": rows}, seeds=SEEDS, data=data)


if __name__ == "__main__":
    main()
