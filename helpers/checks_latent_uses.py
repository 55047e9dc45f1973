"""Checks of notebook 03's exercises; `helpers.checks` says how a check works."""

from collections.abc import Callable

import torch
from sklearn.metrics import roc_auc_score
from torch.distributions import Independent, Normal, kl_divergence

from helpers.budget import device, generator_for
from helpers.checkpoints import load_shipped
from helpers.checks import close, exercise, expect_shape, reject
from helpers.data import load_mnist
from helpers.latent_uses import complete_by_iteration, few_labels
from helpers.mlp import MLPVAE


@exercise
def auroc(answer: Callable) -> str:
    """answer(strangers (N,), acquaintances (M,)) -> the share of pairs in which the stranger scores higher."""
    generator = generator_for("auroc")
    strangers, others = torch.randn(40, generator=generator) + 1, torch.randn(70, generator=generator)
    got = answer(strangers.clone(), others.clone())
    reject(got is not None, "Your function returns nothing: end it with `return`.")
    got = float(got)
    truth = float(roc_auc_score([1] * 40 + [0] * 70, torch.cat([strangers, others]).numpy()))
    reject(abs(got - (1 - truth)) > 1e-4, "The other way round: count the pairs in which the stranger's score is larger.")
    reject(abs(got - truth * 2800) > 1, "That is the number of pairs; divide by how many there are.")
    reject(abs(got - truth) < 1e-4, f"Of all 40 · 70 pairs the share is {truth:.4f}, and you say {got:.4f}.")
    tied = float(answer(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0])))
    reject(abs(tied - 0.25) > 1e-6, "Equal scores count half, and yours count nothing.")
    reject(abs(tied - 0.75) > 1e-6, "Equal scores count half, and yours count whole.")
    reject(abs(tied - 0.5) < 1e-6, f"Scores 1 and 2 against 1 and 2 are a draw, 0.5; you say {tied:.4f}.")
    return "as scikit-learn computes it, ties included."


@exercise
def fill(answer: Callable) -> str:
    """answer(model, x, known, start, rounds) -> x where known, else what was put there by encoding and decoding."""
    torch.manual_seed(0)
    model, generator = MLPVAE(6, (32,)).eval(), generator_for("fill")
    for weight in model.parameters():
        weight.data.mul_(2.0)  # a network whose answers differ from image to image
    x, start = (torch.rand(3, 1, 28, 28, generator=generator) for _ in range(2))
    known = torch.rand(3, 1, 28, 28, generator=generator) < 0.5
    got = answer(model, x.clone(), known.clone(), start.clone(), 4)
    expect_shape(got, tuple(x.shape), "The filled images")
    reject(bool((got[known] == x[known]).all()), "Known pixels changed: put them back in every round.")
    reject(got.detach().min() >= 0 and got.detach().max() <= 1, "Pixels are in [0, 1]: `decode` gives logits, take their sigmoid.")
    right = {rounds: complete_by_iteration(model, x, known, start, rounds) for rounds in (0, 1, 3, 4, 5)}
    reject(not close(got, right[0]), "Nothing was filled in: encode and decode.")
    reject(not close(got, right[1]), "One round only: each one has to begin with what the last one filled in.")
    reject(not close(got, right[3]) and not close(got, right[5]), "One round too few or too many.")
    blank = complete_by_iteration(model, x, known, torch.zeros_like(x), 4)
    reject(close(got, right[4], 1e-4) or not close(got, blank, 1e-4), "Begin with `start` where nothing is known, not with black.")
    reject(close(got, right[4], 1e-4), "Encode the filled image, take the posterior's mode, decode, keep what is known; again.")
    return "four rounds, and the known pixels are where they were."


@exercise
def slant(answer: Callable) -> str:
    """answer(images (B, 1, 28, 28)) -> columns per row, (B,): 0 for an upright stroke."""
    rows = torch.arange(28.0)
    truths = torch.tensor([0.0, 0.5, -0.25])
    images = torch.zeros(3, 1, 28, 28)
    for image, lean in zip(images, truths, strict=True):
        for row in range(6, 22):
            centre = 14 + float(lean) * (row - 13.5)
            image[0, row] = torch.exp(-0.5 * (rows - centre).square())
    got = answer(images.clone())
    expect_shape(got, (3,), "The slants")
    reject(not close(got, -truths, 1e-2) or close(got, truths, 1e-2), "The sign: a stroke that goes right as it goes down leans by +.")
    reject(not close(got[1:], 1 / truths[1:], 0.2), "Upside down: columns per row, so divide by the spread of the rows.")
    reject(close(got, truths, 1e-2), f"Strokes that lean by {truths.tolist()} are measured as {[round(v, 3) for v in got.tolist()]}.")
    brighter = answer(images * 0.5)
    reject(close(brighter, got, 1e-3), "Half as bright a stroke leans as much: divide by the sum of the ink.")
    moved = answer(images.roll((3, -2), (2, 3)))
    reject(close(moved, got, 1e-2), "The same stroke elsewhere leans as much: subtract the mean row and column.")
    return "wherever the stroke stands, and however bright it is."


@exercise
def bits(answer: Callable) -> str:
    """answer(mean, logvar (N, d)) -> the mean KL to N(0, I) in bits."""
    mean, logvar = (torch.randn(30, 5, generator=generator_for("bits", name)) for name in ("mean", "logvar"))
    got = float(torch.as_tensor(answer(mean.clone(), logvar.clone())))
    q = Independent(Normal(mean, (0.5 * logvar).exp()), 1)
    p = Independent(Normal(torch.zeros(5), torch.ones(5)), 1)
    nats = kl_divergence(q, p).mean().item()
    truth = nats / 0.6931471805599453
    reject(abs(got - nats) > 1e-3, "Those are nats; a bit is log 2 of them.")
    reject(abs(got - nats * 0.6931471805599453) > 1e-3, "A bit is less than a nat, so there are more of them: divide by log 2.")
    reject(abs(got - truth / 5) > 1e-3, "That is the mean over the numbers of the code; add them up.")
    reject(abs(got - truth * 30) > 1e-2, "That is the sum over all codes; one code's mean is asked for.")
    reject(abs(got - truth) < 1e-3, f"These codes are worth {truth:.3f} bits each, and you say {got:.3f}.")
    return f"{truth:.2f} bits each."


@exercise
def semi_supervised(answer: Callable) -> str:
    """answer(vae, images (100, 1, 28, 28), labels (100,), others (M, 1, 28, 28)) -> a function: (N, 1, 28, 28) -> (N,)."""
    train, test = load_mnist("train"), load_mnist("test")
    vae = load_shipped(MLPVAE, "mlp_vae_20d").to(device())
    chosen = few_labels(train.labels, 100)
    tell = answer(vae, train[chosen].pixels(), train.labels[chosen], train[:5000].pixels())
    reject(callable(tell), f"Return a function that tells new images apart; you returned a {type(tell).__name__}.")
    new = test[:2000]
    said = tell(new.pixels())
    expect_shape(said, (len(new),), "What it says")
    right = (torch.as_tensor(said).cpu() == new.labels).float().mean().item()
    reject(right > 0.2, f"Right in {right:.1%}; guessing would be right in a tenth: do images and labels still belong together?")
    reject(right >= 0.85, f"Right in {right:.1%} of {len(new)} test images; 85 % is the aim.")
    return f"right in {right:.1%} of {len(new)} test images, from 100 labels."
