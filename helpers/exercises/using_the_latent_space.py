"""Checks of notebook 4's exercises; `helpers.exercises.check` says how a check works."""

import math
from collections.abc import Callable

import torch
from sklearn.metrics import roc_auc_score
from torch.distributions import Normal, kl_divergence

from helpers.data.datasets import load_mnist
from helpers.env import device
from helpers.exercises.check import close, exercise, expect_shape, reject, reject_mistakes
from helpers.metrics.latent_uses import inpaint_by_iteration, stratified_subset
from helpers.models.mlp_vae import MLPVAE
from helpers.rng import generator_for
from helpers.training.checkpoints import load_shipped


@exercise
def auroc(answer: Callable) -> str:
    """answer(outliers (N,), inliers (M,)) -> the share of pairs whose outlier scores higher."""
    generator = generator_for("auroc")
    outliers = torch.randn(40, generator=generator) + 1
    inliers = torch.randn(70, generator=generator)
    scores = torch.cat([outliers, inliers])
    truth = float(roc_auc_score([1] * 40 + [0] * 70, scores.numpy()))
    got = answer(outliers.clone(), inliers.clone())
    reject_mistakes(
        got,
        (1 - truth, "The other way round: count the pairs in which the outlier's score is larger."),
        (truth * 2800, "That is the number of pairs; divide by how many there are."),
    )
    got = float(got)
    reject(
        abs(got - truth) < 1e-4,
        f"Of all 40 · 70 pairs the share is {truth:.4f}, and you say {got:.4f}.",
    )

    tied = float(answer(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0])))
    reject_mistakes(
        tied,
        (0.25, "Equal scores count half, and yours count nothing."),
        (0.75, "Equal scores count half, and yours count whole."),
    )
    reject(
        abs(tied - 0.5) < 1e-6,
        f"Scores 1 and 2 against 1 and 2 are a draw, 0.5; you say {tied:.4f}.",
    )
    return "as scikit-learn computes it, ties included."


@exercise
def fill(answer: Callable) -> str:
    """answer(model, x, known, start, rounds) -> x where known, the rest encoded and decoded."""
    torch.manual_seed(0)
    model, generator = MLPVAE(6, (32,)).eval(), generator_for("fill")
    for weight in model.parameters():
        weight.data.mul_(2.0)  # a network whose answers differ from image to image
    x = torch.rand(3, 1, 28, 28, generator=generator)
    start = torch.rand(3, 1, 28, 28, generator=generator)
    known = torch.rand(3, 1, 28, 28, generator=generator) < 0.5

    got = answer(model, x.clone(), known.clone(), start.clone(), 4)
    expect_shape(got, tuple(x.shape), "The inpainted images")
    got = got.detach()
    reject(
        bool((got[known] == x[known]).all()), "Known pixels changed: put them back in every round."
    )
    reject(
        got.min() >= 0 and got.max() <= 1,
        "Pixels are in [0, 1]: `decode` gives logits, take their sigmoid.",
    )
    after = [inpaint_by_iteration(model, x, known, start, rounds) for rounds in range(6)]
    blank = inpaint_by_iteration(model, x, known, torch.zeros_like(x), 4)
    one_off = "One round too few or too many."
    reject_mistakes(
        got,
        (after[0], "Nothing was inpainted: encode and decode."),
        (after[1], "One round only: each one has to begin with what the last one inpainted."),
        (after[3], one_off),
        (after[5], one_off),
    )
    reject(
        close(got, after[4]) or not close(got, blank),
        "Begin with `start` where nothing is known, not with black.",
    )
    reject(
        close(got, after[4]),
        "Encode the inpainted image, take the posterior's mode, decode, keep what is known; again.",
    )
    return "four rounds, and the known pixels are where they were."


def _strokes(slants: torch.Tensor) -> torch.Tensor:
    """(B, 1, 28, 28): soft strokes that lean by so many columns per row."""
    columns, rows = torch.arange(28.0), torch.arange(28.0)[:, None]
    centres = 14 + slants.view(-1, 1, 1) * (rows - 13.5)  # (B, 28, 1)
    ink = torch.exp(-0.5 * (columns - centres).square())  # (B, 28, 28)
    ink[:, :6] = 0
    ink[:, 22:] = 0
    return ink[:, None]


@exercise
def slant(answer: Callable) -> str:
    """answer(images (B, 1, 28, 28)) -> columns per row, (B,): 0 for an upright stroke."""
    truths = torch.tensor([0.0, 0.5, -0.25])
    images = _strokes(truths)
    got = answer(images.clone())
    expect_shape(got, (3,), "The slants")
    reject(
        not close(got, -truths, 1e-2) or close(got, truths, 1e-2),
        "The sign: a stroke that goes right as it goes down leans by +.",
    )
    reject(
        not close(got[1:], 1 / truths[1:], 0.2),
        "Upside down: columns per row, so divide by the spread of the rows.",
    )
    reject(
        close(got, truths, 1e-2),
        f"Strokes that lean by {truths.tolist()} are measured as "
        f"{[round(v, 3) for v in got.tolist()]}.",
    )
    reject(
        close(answer(images * 0.5), got, 1e-3),
        "Half as bright a stroke leans as much: divide by the sum of the ink.",
    )
    reject(
        close(answer(images.roll((3, -2), (2, 3))), got, 1e-2),
        "The same stroke elsewhere leans as much: subtract the mean row and column.",
    )
    return "wherever the stroke stands, and however bright it is."


@exercise
def bits(answer: Callable) -> str:
    """answer(mean, logvar (N, d)) -> the mean KL to N(0, I) in bits."""
    mean = torch.randn(30, 5, generator=generator_for("bits", "mean"))
    logvar = torch.randn(30, 5, generator=generator_for("bits", "logvar"))
    each = kl_divergence(Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0))  # (30, 5)
    nats = each.sum(1).mean().item()
    truth = nats / math.log(2)
    got = answer(mean.clone(), logvar.clone())
    reject_mistakes(
        got,
        (nats, "Those are nats; a bit is log 2 of them."),
        (
            nats * math.log(2),
            "A bit is less than a nat, so there are more of them: divide by log 2.",
        ),
        (truth / 5, "That is the mean over the latent dimensions; add them up."),
        (truth * 30, "That is the sum over all codes; one code's mean is asked for."),
    )
    got = float(torch.as_tensor(got))
    reject(
        abs(got - truth) < 1e-3,
        f"These codes are worth {truth:.3f} bits each, and you say {got:.3f}.",
    )
    return f"{truth:.2f} bits each."


@exercise
def semi_supervised(answer: Callable) -> str:
    """answer(vae, images, labels (100,), others) -> a function: (N, 1, 28, 28) -> (N,)."""
    train, test = load_mnist("train"), load_mnist("test")
    vae = load_shipped(MLPVAE, "mlp_vae_20d").to(device())
    chosen = stratified_subset(train.labels, 100)
    classify = answer(vae, train[chosen].pixels(), train.labels[chosen], train[:5000].pixels())
    reject(
        callable(classify),
        f"Return a function that classifies new images; you returned a {type(classify).__name__}.",
    )
    new = test[:2000]
    said = classify(new.pixels())
    expect_shape(said, (len(new),), "What it says")
    right = (said.cpu() == new.labels).float().mean().item()
    reject(
        right > 0.2,
        f"Right in {right:.1%}; guessing would be right in a tenth: "
        "do images and labels still belong together?",
    )
    reject(right >= 0.85, f"Right in {right:.1%} of {len(new)} test images; 85 % is the aim.")
    return f"right in {right:.1%} of {len(new)} test images, from 100 labels."
