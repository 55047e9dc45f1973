"""What a VAE is worth where labels are few: a linear probe on its codes, its samples as images.

Three seeds; every seed has one core to itself.  About 10 minutes.
"""

import statistics
from dataclasses import replace

import torch
from sklearn.decomposition import PCA

from helpers.classifiers.digits import DigitClassifier, classify_digits, digit_classifier_loss
from helpers.data.augment import random_shift
from helpers.data.image_set import ImageSet
from helpers.env import budget
from helpers.metrics.latent_uses import probe, stratified_subset
from helpers.metrics.latents import encode_all
from helpers.models.mlp_vae import MLPVAE
from helpers.rng import generator_for, seed_everything
from helpers.training.checkpoints import save_model
from helpers.training.loop import fit
from tests.benchmarks.common import SEEDS, mnist, over_seeds, publish, train_vae, vae_loss
from tests.benchmarks.parallel import side_by_side

NEEDS = ()
WRITES = ("results/few_labels", "checkpoints/mlp_vae_20d")  # notebook 4 loads the VAE

LABELS = (10, 100, 1000)
DRAWS = 5  # of the labelled images, for each trained model

# chosen on 10,000 images held out from the training set, of 5 to 20 dimensions and one to three
# hidden layers; so was not to scale the views, which is no worse for any of them; both after a run
# that had printed test figures of one layer
DEEPER = (5, 10, 20)
HIDDEN = (512, 256)
RECIPE = {"epochs": budget(quick=1, cpu=10, gpu=10), "batch_size": 256, "lr": 3e-3}

PER_CLASS = 20  # labelled images of each digit, to train a classifier on
COPIES = 20
STEPS = budget(quick=20, cpu=1500, gpu=1500)


def deeper(train: ImageSet, seed: int, latent: int) -> MLPVAE:
    """A VAE with two hidden layers; that of notebook 2 has one."""
    seed_everything(seed)
    model = MLPVAE(latent, HIDDEN)
    fit(model, vae_loss, train, seed=seed, **RECIPE)
    return model.eval()


def views(
    models: dict[str, MLPVAE], train: ImageSet, test: ImageSet, seed: int
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """{name: (train, test)}: each model's codes, as many principal components, and pixels."""
    flat = train.pixels().flatten(1)
    test_flat = test.pixels().flatten(1)
    found = {name: (encode_all(m, train), encode_all(m, test)) for name, m in models.items()}
    for count in sorted({model.config["latent"] for model in models.values()}):
        pca = PCA(count, random_state=seed).fit(flat.numpy())
        components = (torch.from_numpy(pca.transform(x.numpy())) for x in (flat, test_flat))
        found[f"PCA, {count} dimensions"] = tuple(components)
    return found | {"pixels": (flat, test_flat)}


def probes(
    models: dict[str, MLPVAE], train: ImageSet, test: ImageSet, seed: int
) -> dict[str, float]:
    """{"pixels, 100 labels": accuracy, …} of a linear classifier on each view."""
    seen = views(models, train, test, seed)
    found = {}
    for count in LABELS:
        seeds = range(DRAWS * seed, DRAWS * seed + DRAWS)
        draws = [stratified_subset(train.labels, count, draw) for draw in seeds]
        for name, (codes, test_codes) in seen.items():
            right = [
                probe(codes[chosen], train.labels[chosen], test_codes, test.labels)
                for chosen in draws
            ]
            found[f"{name}, {count} labels"] = statistics.mean(right)
    return found


@torch.no_grad()
def further_images(model: MLPVAE, labelled: ImageSet, seed: int) -> ImageSet:
    """`labelled`, and COPIES of each image decoded from draws of its posterior."""
    posterior = model.encode(labelled.pixels())
    generator = generator_for("copies", seed)
    images = [labelled.images]
    for _ in range(COPIES):
        drawn = model.decode(posterior.sample(generator)).sigmoid()
        images.append((255 * drawn).round().byte())
    labels = labelled.labels.repeat(COPIES + 1)
    return replace(labelled, images=torch.cat(images), labels=labels)


def accuracy(train: ImageSet, test: ImageSet, seed: int, augment=None) -> float:
    """Of a DigitClassifier after STEPS steps."""
    seed_everything(seed)
    classifier = DigitClassifier()
    settings = {"steps": STEPS, "batch_size": 64, "lr": 2e-3, "augment": augment, "seed": seed}
    fit(classifier, digit_classifier_loss, train, **settings)
    probabilities, _ = classify_digits(classifier, test.pixels())
    return (probabilities.argmax(1) == test.labels).float().mean().item()


def augmentation(model: MLPVAE, train: ImageSet, test: ImageSet, seed: int) -> dict[str, float]:
    """{training set: accuracy} with few labelled images, and with a VAE's draws beside them."""
    labelled = train[stratified_subset(train.labels, 10 * PER_CLASS, seed)]
    # 20 times, to make as many batches as it takes to learn anything
    images = labelled.images.repeat(20, 1, 1, 1)
    repeated = replace(labelled, images=images, labels=labelled.labels.repeat(20))
    own, _, _ = train_vae(repeated, seed)
    with_draws = further_images(model, labelled, seed)
    with_own_draws = further_images(own.eval(), labelled, seed)
    return {
        "the labelled images alone": accuracy(labelled, test, seed),
        "and draws of a VAE that saw all images": accuracy(with_draws, test, seed),
        "and draws of a VAE that saw these alone": accuracy(with_own_draws, test, seed),
        "moved by up to two pixels": accuracy(labelled, test, seed, random_shift),
        "moved, and draws of a VAE that saw all images": accuracy(
            with_draws, test, seed, random_shift
        ),
    }


def one_seed(seed: int) -> dict[str, dict[str, float]]:
    """All figures with one seed; the first one's VAE comes with the course."""
    train, test = mnist()
    model, _, _ = train_vae(train, seed)
    model.eval()
    if seed == SEEDS[0]:
        save_model("mlp_vae_20d", model, half=True, data=train.source)
    models = {"one hidden layer, 20 dimensions": model}
    for latent in DEEPER:
        models[f"two hidden layers, {latent} dimensions"] = deeper(train, seed, latent)
    return {
        "probe": probes(models, train, test, seed),
        "augmentation": augmentation(model, train, test, seed),
    }


def main() -> None:
    runs = side_by_side(one_seed, SEEDS)
    values = {kind: over_seeds([run[kind] for run in runs]) for kind in runs[0]}
    for kind, rows in values.items():
        for name, row in rows.items():
            print(f"{kind:<13} {name:<48} {row['mean']:.3f} ± {row['sd']:.3f}")
    values |= {
        "draws of labels": DRAWS,
        "labels a class": PER_CLASS,
        "copies": COPIES,
        "steps": STEPS,
    }
    publish("few_labels", values, seeds=SEEDS, data=mnist()[0].source)


if __name__ == "__main__":
    main()
