"""Checks of notebook 04's exercises; `helpers.checks` says how a check works."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from sklearn.metrics import mutual_info_score

from helpers.budget import generator_for
from helpers.checks import close, exercise, expect_shape, reject


@exercise
def players(answer: Callable) -> str:
    """answer(logits_drawn, logits_codes (B,)) -> (telling, fooling), each (B,)."""
    drawn, codes = (3 * torch.randn(40, generator=generator_for("players", name)) for name in ("drawn", "codes"))
    drawn.requires_grad_()
    codes.requires_grad_()
    got = answer(drawn, codes)
    reject(isinstance(got, tuple | list) and len(got) == 2, "Return two losses: telling and fooling.")
    for name, loss in zip(("telling", "fooling"), got, strict=True):
        expect_shape(loss, (40,), f"The loss «{name}»")
    telling, fooling = got
    real, false = F.softplus(-drawn), F.softplus(codes)
    reject(not close(telling, F.softplus(drawn) + F.softplus(-codes)), "The discriminator's labels are swapped: draws are the real ones.")
    reject(close(telling, real + false), "Telling: softplus(−logits) of the draws plus softplus(logits) of the codes.")
    reject(not close(fooling, false), "That would make codes easier to tell; the encoder wants them taken for draws.")
    reject(not close(fooling, -false), "That has hardly any gradient while the discriminator wins; take softplus(−logits) of the codes.")
    reject(close(fooling, F.softplus(-codes)), "Fooling: softplus(−logits) of the codes, as if they were draws.")
    return "the discriminator tells, the encoder fools."


@exercise
def merge(answer: Callable) -> str:
    """answer(mean_a, logvar_a, mean_b, logvar_b) -> (mean, logvar) of the product of the two densities."""
    parts = [torch.randn(6, 4, generator=generator_for("merge", name)) for name in ("a", "la", "b", "lb")]
    mean_a, logvar_a, mean_b, logvar_b = parts
    got = answer(*(part.clone() for part in parts))
    reject(isinstance(got, tuple | list) and len(got) == 2, "Return two tensors: mean and logvar.")
    mean, logvar = got
    expect_shape(mean, (6, 4), "The mean")
    expect_shape(logvar, (6, 4), "The log-variance")
    pa, pb = (-logvar_a).exp(), (-logvar_b).exp()
    truth = (mean_a * pa + mean_b * pb) / (pa + pb)
    reject(not close(mean, (mean_a + mean_b) / 2), "The more certain opinion counts for more: weigh each mean with its precision.")
    wrong = (mean_a / pa + mean_b / pb) / (1 / pa + 1 / pb)
    reject(not close(mean, wrong), "You weighed with the variances; the *less* certain one counts for more then.")
    reject(close(mean, truth), "The mean is (m_a · p_a + m_b · p_b) / (p_a + p_b), with precisions p = exp(−logvar).")
    reject(not close(logvar, (pa + pb).log()), "That is the logarithm of the precision; the variance is one over it.")
    reject(not close(logvar, 1 / (pa + pb)), "That is the variance; its logarithm is asked for.")
    reject(close(logvar, -(pa + pb).log()), "Precisions add up: logvar = −log(p_a + p_b).")
    return "means by precision, and more certain than either."


@exercise
def straight_through(answer: Callable) -> str:
    """answer(z, quantised) -> the values of `quantised`, with the gradient of `z`."""
    z, entry = (torch.randn(3, 2, 4, 4, generator=generator_for("straight", name)) for name in ("z", "entry"))
    z.requires_grad_()
    entry.requires_grad_()
    got = answer(z, entry)
    expect_shape(got, (3, 2, 4, 4), "What the decoder is given")
    reject(not close(got.detach(), z.detach()), "The decoder has to see the entries, and sees z.")
    reject(close(got.detach(), entry.detach()), "The values should be those of `quantised`.")
    reject(got.requires_grad, "No gradient gets through at all.")
    slopes = torch.autograd.grad((got * torch.arange(96.0).view(3, 2, 4, 4)).sum(), (z, entry), allow_unused=True)
    reject(slopes[0] is not None, "The gradient does not reach z.")
    reject(close(slopes[0], torch.arange(96.0).view(3, 2, 4, 4)), "The gradient should reach z unchanged.")
    reject(slopes[1] is None or not slopes[1].any(), "A gradient reaches `quantised` as well: detach what is added to z as a whole.")
    return "entries forwards, and the gradient straight through."


@exercise
def perplexity(answer: Callable) -> str:
    """answer(codes (B, h, w), size) -> the number of entries that would be as varied if all were used equally often."""
    even, lame = torch.arange(64).view(1, 8, 8) % 16, torch.zeros(2, 4, 4, dtype=torch.int64)
    uneven = torch.tensor([[[0, 0], [0, 5]]])
    truth = float(torch.tensor([0.75, 0.25]).pow(torch.tensor([-0.75, -0.25])).prod())
    got = [float(torch.as_tensor(answer(codes.clone(), 32))) for codes in (even, lame, uneven)]
    reject(all(value == value for value in got), "It is not a number where an entry is never used: 0 · log 0 counts as 0.")
    reject(abs(got[0] - 4) > 1e-3, "That is the entropy in bits; take 2 to the power of it, or use nats and exp.")
    reject(abs(got[0] - 2.7726) > 1e-3, "That is the entropy in nats; its exponential is the perplexity.")
    reject(abs(got[2] - 2) > 1e-3, "That counts the entries in use; one that is used rarely counts for less.")
    wanted = (16.0, 1.0, truth)
    right = all(abs(value - want) < 1e-2 for value, want in zip(got, wanted, strict=True))
    reject(right, f"Sixteen entries used alike, one alone, and three to one: {wanted[0]:g}, {wanted[1]:g}, {truth:.3f}; you say {got}.")
    return f"16, 1, and {truth:.2f} for three to one."


@exercise
def information(answer: Callable) -> str:
    """answer(joint (a, b)) -> the mutual information of row and column in nats."""
    counts = torch.tensor([[30, 2, 0], [5, 0, 13]])
    row, column = torch.meshgrid(torch.arange(2), torch.arange(3), indexing="ij")
    rows, columns = (values.flatten().repeat_interleave(counts.flatten()) for values in (row, column))
    truth, joint = float(mutual_info_score(rows.numpy(), columns.numpy())), counts / counts.sum()
    got = float(torch.as_tensor(answer(joint.clone())))
    reject(got == got, "It is not a number where a cell is 0: such a cell adds nothing.")
    reject(abs(got + truth) > 1e-4, "The sign is upside down: information is never negative.")
    reject(abs(got - truth / 0.6931471805599453) > 1e-4, "Those are bits; nats are asked for, so the natural logarithm.")
    entropy = -torch.xlogy(joint, joint).sum().item()
    reject(abs(got - entropy) > 1e-4, "That is the entropy of the table; compare each cell with row sum · column sum.")
    reject(abs(got - truth) < 1e-4, f"scikit-learn finds {truth:.4f} nats in this table, and you {got:.4f}.")
    return "as scikit-learn computes it."
