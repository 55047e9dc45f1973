"""Checks of notebook 5's exercises; `helpers.exercises.check` says how a check works."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from sklearn.metrics import mutual_info_score

from helpers.exercises.check import close, exercise, expect_shape, reject, reject_mistakes
from helpers.rng import generator_for


def _expect_pair(got, sentence: str) -> None:
    reject(isinstance(got, tuple | list) and len(got) == 2, sentence)


@exercise
def gan_losses(answer: Callable) -> str:
    """answer(logits of draws, logits of codes (B,)) -> (discriminator's, generator's), (B,)."""
    drawn, codes = (
        (3 * torch.randn(40, generator=generator_for("players", name))).requires_grad_()
        for name in ("drawn", "codes")
    )
    got = answer(drawn, codes)
    _expect_pair(got, "Return two losses: the discriminator's and the generator's.")
    discriminator, generator = got
    expect_shape(discriminator, (40,), "The discriminator loss")
    expect_shape(generator, (40,), "The generator loss")

    real, fake = F.softplus(-drawn), F.softplus(codes)
    swapped = F.softplus(drawn) + F.softplus(-codes)
    reject_mistakes(
        discriminator.detach(),
        (swapped.detach(), "The discriminator's labels are swapped: the draws are the real ones."),
    )
    reject(
        close(discriminator, real + fake),
        "Discriminator loss: softplus(−logits) of the draws plus softplus(logits) of the codes.",
    )
    reject_mistakes(
        generator.detach(),
        (
            fake.detach(),
            "That would make codes easier to tell; the encoder wants them taken for draws.",
        ),
        (
            -fake.detach(),
            "That has hardly any gradient while the discriminator wins; "
            "take softplus(−logits) of the codes.",
        ),
    )
    reject(
        close(generator, F.softplus(-codes)),
        "Generator loss: softplus(−logits) of the codes, as if they were draws.",
    )
    return "the discriminator tells the codes from draws, the encoder makes that hard."


@exercise
def merge(answer: Callable) -> str:
    """answer(mean_a, logvar_a, mean_b, logvar_b) -> (mean, logvar) of the densities' product."""
    mean_a, logvar_a, mean_b, logvar_b = (
        torch.randn(6, 4, generator=generator_for("merge", name)) for name in ("a", "la", "b", "lb")
    )
    precision_a, precision_b = (-logvar_a).exp(), (-logvar_b).exp()
    both = precision_a + precision_b
    truth = (mean_a * precision_a + mean_b * precision_b) / both
    by_variance = (mean_a / precision_a + mean_b / precision_b) / (
        1 / precision_a + 1 / precision_b
    )

    got = answer(mean_a.clone(), logvar_a.clone(), mean_b.clone(), logvar_b.clone())
    _expect_pair(got, "Return two tensors: mean and logvar.")
    mean, logvar = got
    expect_shape(mean, (6, 4), "The mean")
    expect_shape(logvar, (6, 4), "The log-variance")
    reject_mistakes(
        mean,
        (
            (mean_a + mean_b) / 2,
            "The more certain opinion counts for more: weigh each mean with its precision.",
        ),
        (
            by_variance,
            "You weighed with the variances; the *less* certain one counts for more then.",
        ),
    )
    reject(
        close(mean, truth),
        "The mean is (m_a · p_a + m_b · p_b) / (p_a + p_b), with precisions p = exp(−logvar).",
    )
    reject_mistakes(
        logvar,
        (both.log(), "That is the logarithm of the precision; the variance is one over it."),
        (1 / both, "That is the variance; its logarithm is asked for."),
    )
    reject(close(logvar, -both.log()), "Precisions add up: logvar = −log(p_a + p_b).")
    return "means by precision, and more certain than either."


@exercise
def straight_through(answer: Callable) -> str:
    """answer(z, quantised) -> the values of `quantised`, with the gradient of `z`."""
    z, entry = (
        torch.randn(3, 2, 4, 4, generator=generator_for("straight", name)).requires_grad_()
        for name in ("z", "entry")
    )
    got = answer(z, entry)
    expect_shape(got, (3, 2, 4, 4), "What the decoder is given")
    reject(not close(got.detach(), z.detach()), "The decoder has to see the entries, and sees z.")
    reject(close(got.detach(), entry.detach()), "The values should be those of `quantised`.")
    reject(got.requires_grad, "No gradient gets through at all.")

    weights = torch.arange(96.0).view(3, 2, 4, 4)
    of_z, of_entry = torch.autograd.grad((got * weights).sum(), (z, entry), allow_unused=True)
    reject(of_z is not None, "The gradient does not reach z.")
    reject(close(of_z, weights), "The gradient should reach z unchanged.")
    reject(
        of_entry is None or not of_entry.any(),
        "A gradient reaches `quantised` as well: detach what is added to z as a whole.",
    )
    return "entries forwards, and the gradient straight through."


@exercise
def perplexity(answer: Callable) -> str:
    """answer(codes (B, h, w), size) -> how many entries, used equally often, are as varied."""
    even = torch.arange(64).view(1, 8, 8) % 16
    alone = torch.zeros(2, 4, 4, dtype=torch.int64)
    uneven = torch.tensor([[[0, 0], [0, 5]]])
    truth = 0.75**-0.75 * 0.25**-0.25
    got = [float(torch.as_tensor(answer(codes.clone(), 32))) for codes in (even, alone, uneven)]
    reject(
        not any(math.isnan(value) for value in got),
        "It is not a number where an entry is never used: 0 · log 0 counts as 0.",
    )
    reject_mistakes(
        got[0],
        (4, "That is the entropy in bits; take 2 to the power of it, or use nats and exp."),
        (math.log(16), "That is the entropy in nats; its exponential is the perplexity."),
    )
    reject_mistakes(
        got[2], (2, "That counts the entries in use; one that is used rarely counts for less.")
    )
    wanted = (16.0, 1.0, truth)
    right = all(abs(value - want) < 1e-2 for value, want in zip(got, wanted, strict=True))
    reject(
        right,
        f"Sixteen entries used alike, one alone, and three to one: 16, 1, {truth:.3f}; "
        f"you say {got}.",
    )
    return f"16, 1, and {truth:.2f} for three to one."


@exercise
def information(answer: Callable) -> str:
    """answer(joint (a, b)) -> the mutual information of row and column in nats."""
    counts = torch.tensor([[30, 2, 0], [5, 0, 13]])
    row, column = torch.meshgrid(torch.arange(2), torch.arange(3), indexing="ij")
    rows = row.flatten().repeat_interleave(counts.flatten())
    columns = column.flatten().repeat_interleave(counts.flatten())
    truth = float(mutual_info_score(rows.numpy(), columns.numpy()))
    joint = counts / counts.sum()

    got = answer(joint.clone())
    reject_mistakes(
        got,
        (-truth, "The sign is upside down: information is never negative."),
        (truth / math.log(2), "Those are bits; nats are asked for, so the natural logarithm."),
        (
            -torch.xlogy(joint, joint).sum(),
            "That is the entropy of the table; compare each cell with row sum · column sum.",
        ),
    )
    got = float(torch.as_tensor(got))
    reject(not math.isnan(got), "It is not a number where a cell is 0: such a cell adds nothing.")
    reject(
        abs(got - truth) < 1e-4,
        f"scikit-learn finds {truth:.4f} nats in this table, and you {got:.4f}.",
    )
    return "as scikit-learn computes it."
