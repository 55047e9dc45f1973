"""The variants of the VAE on MNIST, three seeds: what notebook 5 says of each.  About 28 minutes.

Shapes, learning rates and weights were chosen with another seed on 55,000 training images, and
judged on the 5,000 others or on what was drawn.
"""

from functools import partial

import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import nn

from helpers.data.image_set import ImageSet
from helpers.env import budget
from helpers.metrics.latents import encode_all
from helpers.metrics.likelihood import hierarchical_nll, importance_nll
from helpers.models.mlp_vae import MLPVAE
from helpers.models.variants import (
    AdversarialAutoencoder,
    ConditionalVAE,
    HierarchicalVAE,
    adversarial_autoencoder_loss,
    conditional_loss,
    hierarchical_loss,
)
from helpers.models.vq_vae import VQVAE, CodePrior, code_prior_loss, vq_loss
from helpers.results import describe_device
from helpers.rng import generator_for, seed_everything
from helpers.training.loop import evaluate, fit
from tests.benchmarks.common import (
    SEEDS,
    classify,
    mnist,
    over_seeds,
    publish,
    recognised,
    vae_loss,
)
from tests.benchmarks.parallel import side_by_side

NEEDS = ("checkpoints/digit_classifier",)  # of notebook 1
WRITES = ("results/family",)

SAMPLES = budget(quick=100, cpu=2000, gpu=2000)
DRAWS = budget(quick=5, cpu=100, gpu=100)
BATCH = budget(quick=64, cpu=256, gpu=256)


def build(model, loss, train, seed: int, epochs: int, lr: float, **settings) -> nn.Module:
    """A trained model, in `eval`; its gradients are on, whatever they are outside."""
    seed_everything(seed)
    network = model()
    length = budget(quick=1, cpu=epochs, gpu=epochs)
    with torch.enable_grad():
        fit(
            network,
            loss,
            train,
            epochs=length,
            lr=lr,
            seed=seed,
            **{"batch_size": BATCH} | settings,
        )
    return network.eval()


@torch.no_grad()
def conditional(train: ImageSet, test: ImageSet, seed: int) -> dict[str, float]:
    """The share of digits drawn as asked for, and how often z alone tells the digit."""
    labels = torch.arange(10).repeat(SAMPLES // 10)
    some = train[:10_000]
    found = {}
    for latent in (20, 3):
        vae = partial(ConditionalVAE, latent)
        model = build(vae, conditional_loss, train, seed, epochs=12, lr=5e-3)
        noise = torch.randn(len(labels), latent, generator=generator_for("noise", seed))
        right = classify(model.decode(noise, labels).sigmoid()).argmax(1) == labels
        z, held_out = (model.encode(d.pixels(), d.labels).mode() for d in (some, test))
        reader = HistGradientBoostingClassifier(random_state=0).fit(z, some.labels)
        rebuilt = evaluate(model, conditional_loss, test)["reconstruction"]
        found[f"{latent} dimensions: as asked"] = right.float().mean().item()
        found[f"{latent} dimensions: digit read from z"] = reader.score(held_out, test.labels)
        found[f"{latent} dimensions: rebuilt, nats"] = rebuilt
    return found


def told_apart(codes: torch.Tensor, seed: int) -> float:
    """The accuracy of a classifier two-sample test: codes against draws of N(0, I).

    It is trained on half of both and right so often on the other half; 0.5 is chance.
    """
    drawn = torch.randn(codes.shape, generator=generator_for("examiner", seed))
    both = torch.cat([codes, drawn])
    label = torch.arange(2).repeat_interleave(len(codes))
    first = torch.arange(len(both)) % 2 == 0
    examiner = HistGradientBoostingClassifier(random_state=0).fit(both[first], label[first])
    return examiner.score(both[~first], label[~first])


@torch.no_grad()
def adversarial(train: ImageSet, test: ImageSet, seed: int) -> dict[str, float]:
    """How far the codes of test digits are from N(0, I), and the share recognised; and a VAE's."""
    loss = adversarial_autoencoder_loss
    betas = (0.5, 0.999)
    ours = build(AdversarialAutoencoder, loss, train, seed, epochs=12, lr=1e-3, betas=betas)
    vae = build(partial(MLPVAE, 20, (400,)), vae_loss, train, seed, epochs=12, lr=5e-3)
    codes = {
        "adversarial": encode_all(ours, test),
        "VAE": vae.encode(test.pixels()).sample(generator_for("aggregate", seed)),
    }
    noise = torch.randn(SAMPLES, 20, generator=generator_for("noise", seed))
    found = {}
    for name, model in {"adversarial": ours, "VAE": vae}.items():
        off = torch.cov(codes[name].T) - torch.eye(20)
        found[f"{name}: largest covariance"] = (off - off.diag().diag()).abs().max().item()
        found[f"{name}: largest mean"] = codes[name].mean(0).abs().max().item()
        found[f"{name}: told apart"] = told_apart(codes[name], seed)
        found[f"{name}: recognised"] = recognised(classify(model.decode(noise).sigmoid()))
    return found


def hierarchical(train: ImageSet, test: ImageSet, seed: int) -> dict[str, float]:
    """Importance-weighted nats of two levels, and of two flat VAEs of at least that size."""
    two_levels = partial(HierarchicalVAE, (20, 10), (400, 100))
    flat = partial(MLPVAE, 30, (425,))
    deeper = partial(MLPVAE, 20, (400, 100))
    recipe = {"epochs": 20, "lr": 5e-3}
    models = {
        "two levels": build(two_levels, hierarchical_loss, train, seed, **recipe),
        "flat": build(flat, vae_loss, train, seed, **recipe),
        "flat and deeper": build(deeper, vae_loss, train, seed, **recipe),
    }
    x = test[:1000].pixels()
    generator = generator_for("importance", seed)
    found = {}
    for name, model in models.items():
        nll = hierarchical_nll if name == "two levels" else importance_nll
        found[f"{name}: nats"] = nll(model, x, DRAWS, generator).mean().item()
        found[f"{name}: parameters"] = sum(p.numel() for p in model.parameters())
    return found


@torch.no_grad()
def vector_quantised(train: ImageSet, test: ImageSet, seed: int) -> dict[str, float]:
    """Use of the codebook, and the share recognised of what the prior draws."""
    model = build(VQVAE, vq_loss, train, seed, epochs=6, lr=3e-3)
    data = {"codes": encode_all(model, train).flatten(1)}  # (N, 16)
    recipe = {"epochs": 10, "lr": 3e-3, "batch_size": BATCH // 2}
    prior = build(CodePrior, code_prior_loss, data, seed, **recipe)
    drawn = prior.sample(SAMPLES, 16, generator_for("prior", seed)).view(-1, 4, 4)
    used = torch.bincount(model.encode(test.pixels()).flatten(), minlength=64) > 0
    return {
        "codebook used": used.float().mean().item(),
        "recognised": recognised(classify(model.decode(drawn).sigmoid())),
    }


PARTS = {
    "conditional": conditional,
    "adversarial": adversarial,
    "hierarchical": hierarchical,
    "vector quantised": vector_quantised,
}


def measure(job: tuple[str, int]) -> dict[str, float]:
    """One variant, one seed."""
    name, seed = job
    return PARTS[name](*mnist(), seed)


def main() -> None:
    jobs = [(name, seed) for name in PARTS for seed in SEEDS]
    found = dict(zip(jobs, side_by_side(measure, jobs), strict=True))
    values = {name: over_seeds([found[name, seed] for seed in SEEDS]) for name in PARTS}
    publish("family", values | {"on": describe_device()}, seeds=SEEDS, data=mnist()[0].source)


if __name__ == "__main__":
    main()
