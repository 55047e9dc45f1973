"""The variants of the VAE on MNIST, three seeds: what notebook 4 says of each.  About 28 minutes.

Shapes, rates and weights were chosen with another seed on 55,000 training images, and judged on the 5,000 others or on
what was drawn.
"""

from functools import partial

import torch
from sklearn.ensemble import HistGradientBoostingClassifier

from helpers.budget import budget, generator_for, seed_everything
from helpers.checkpoints import load_shipped
from helpers.data import ImageSet
from helpers.metrics import DigitJudge, encode_all, importance_nll, judge_images
from helpers.mlp import MLPVAE
from helpers.results import describe_device, save_result
from helpers.training import evaluate, fit
from helpers.variants import (
    AdversarialAutoencoder,
    ConditionalVAE,
    HierarchicalVAE,
    adversarial_autoencoder_loss,
    conditional_loss,
    hierarchical_loss,
    hierarchical_nll,
)
from helpers.vector_quantised import VQVAE, CodePrior, code_loss, vq_loss
from tests.benchmarks.common import SEEDS, mnist, over_seeds, side_by_side, sure, vae_loss

SAMPLES, DRAWS = budget(quick=100, cpu=2000, gpu=2000), budget(quick=5, cpu=100, gpu=100)
BATCH = budget(quick=64, cpu=256, gpu=256)


def build(model, loss, train, seed: int, epochs: int, lr: float, **settings):
    """A trained model, in `eval`; its gradients are on, whatever they are outside."""
    seed_everything(seed)
    network, length = model(), budget(quick=1, cpu=epochs, gpu=epochs)
    with torch.enable_grad():
        fit(network, loss, train, epochs=length, lr=lr, seed=seed, **{"batch_size": BATCH} | settings)
    return network.eval()


def confident(images: torch.Tensor) -> float:
    """The share of pictures in which the judge is sure of a digit."""
    return sure(judge_images(load_shipped(DigitJudge, "digit_judge"), images)[0])


@torch.no_grad()
def conditional(train, test, seed: int) -> dict[str, float]:
    """The share of asked-for digits that the judge recognises, and how often z alone tells the digit."""
    labels, judge, found = torch.arange(10).repeat(SAMPLES // 10), load_shipped(DigitJudge, "digit_judge"), {}
    for latent in (20, 3):
        model = build(partial(ConditionalVAE, latent), conditional_loss, train, seed, 12, 5e-3)
        drawn = model.decode(torch.randn(len(labels), latent, generator=generator_for("noise", seed)), labels).sigmoid()
        found[f"{latent} numbers: as asked"] = (judge_images(judge, drawn)[0].argmax(1) == labels).float().mean().item()
        some = train[:10_000]
        z, held_out = (model.encode(data.pixels(), data.labels).mode() for data in (some, test))
        reader = HistGradientBoostingClassifier(random_state=0).fit(z, some.labels)
        found[f"{latent} numbers: digit read from z"] = reader.score(held_out, test.labels)
        found[f"{latent} numbers: rebuilt, nats"] = evaluate(model, conditional_loss, test)["reconstruction"]
    return found


def told_apart(codes: torch.Tensor, seed: int) -> float:
    """How often a classifier, trained on half of codes and draws of N(0, I), is right on the other half; 0.5: not at all."""
    both = torch.cat([codes, torch.randn(codes.shape, generator=generator_for("examiner", seed))])
    label, first = torch.arange(2).repeat_interleave(len(codes)), torch.arange(len(both)) % 2 == 0
    examiner = HistGradientBoostingClassifier(random_state=0).fit(both[first], label[first])
    return examiner.score(both[~first], label[~first])


@torch.no_grad()
def adversarial(train, test, seed: int) -> dict[str, float]:
    """How far the codes of all test digits are from N(0, I), and the share recognised; beside a VAE."""
    ours = build(AdversarialAutoencoder, adversarial_autoencoder_loss, train, seed, 12, 1e-3, betas=(0.5, 0.999))
    vae = build(partial(MLPVAE, 20, (400,)), vae_loss, train, seed, 12, 5e-3)
    codes = {"adversarial": encode_all(ours, test)}
    codes["VAE"] = vae.encode(test.pixels()).sample(generator_for("aggregate", seed))
    noise, found = torch.randn(SAMPLES, 20, generator=generator_for("noise", seed)), {}
    for name, model in {"adversarial": ours, "VAE": vae}.items():
        off = torch.cov(codes[name].T) - torch.eye(20)
        found[f"{name}: largest covariance"] = (off - off.diag().diag()).abs().max().item()
        found[f"{name}: largest mean"] = codes[name].mean(0).abs().max().item()
        found[f"{name}: told apart"] = told_apart(codes[name], seed)
        found[f"{name}: recognised"] = confident(model.decode(noise).sigmoid())
    return found


def hierarchical(train, test, seed: int) -> dict[str, float]:
    """Importance-weighted nats of two levels, and of two flat VAEs with at least as many parameters."""
    models = {
        "two levels": build(partial(HierarchicalVAE, (20, 10), (400, 100)), hierarchical_loss, train, seed, 20, 5e-3),
        "flat": build(partial(MLPVAE, 30, (425,)), vae_loss, train, seed, 20, 5e-3),
        "flat and deeper": build(partial(MLPVAE, 20, (400, 100)), vae_loss, train, seed, 20, 5e-3),
    }
    x, generator, found = test[:1000].pixels(), generator_for("importance", seed), {}
    for name, model in models.items():
        nll = hierarchical_nll if name == "two levels" else importance_nll
        found[f"{name}: nats"] = nll(model, x, DRAWS, generator).mean().item()
        found[f"{name}: parameters"] = sum(p.numel() for p in model.parameters())
    return found


@torch.no_grad()
def vector_quantised(train, test, seed: int) -> dict[str, float]:
    """Use of the codebook, and the share recognised of what the prior draws."""
    model = build(VQVAE, vq_loss, train, seed, 6, 3e-3)
    codes = encode_all(model, train).flatten(1)
    numbered = ImageSet(torch.zeros(len(codes), 1, 1, 1, dtype=torch.uint8), torch.arange(len(codes)), train.source)
    prior = build(CodePrior, partial(code_loss, codes=codes), numbered, seed, 10, 3e-3, batch_size=BATCH // 2)
    drawn = prior.sample(SAMPLES, 16, generator_for("prior", seed)).view(-1, 4, 4)
    used = torch.bincount(model.encode(test.pixels()).flatten(), minlength=64) > 0
    return {"codebook used": used.float().mean().item(), "recognised": confident(model.decode(drawn).sigmoid())}


PARTS = {f.__name__.replace("_", " "): f for f in (conditional, adversarial, hierarchical, vector_quantised)}


def measure(job: tuple[str, int]) -> dict[str, float]:
    """One variant, one seed."""
    name, seed = job
    return PARTS[name](*mnist(), seed)


def main() -> None:
    jobs = [(name, seed) for name in PARTS for seed in SEEDS]
    found = dict(zip(jobs, side_by_side(measure, jobs), strict=True))
    values = {name: over_seeds([found[name, seed] for seed in SEEDS]) for name in PARTS}
    save_result("family", values | {"on": describe_device()}, seeds=SEEDS, data=mnist()[0].source)


if __name__ == "__main__":
    main()
