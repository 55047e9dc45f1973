"""Checks of notebook 2's exercises; `helpers.exercises.check` says how a check works."""

import math
from collections.abc import Callable

import torch
from torch.distributions import Normal, kl_divergence

from helpers.data.datasets import load_mnist
from helpers.exercises.check import close, exercise, expect_shape, reject, reject_mistakes
from helpers.metrics.latents import active_units, encode_all
from helpers.models.losses import bernoulli_nll, negative_elbo
from helpers.rng import generator_for


@exercise
def effective_beta(answer: Callable) -> str:
    """answer(pixels, latents) -> the β that "mean, mean" amounts to."""
    got = answer(600, 12)
    reject_mistakes(
        got,
        (
            1 / 50,
            "Upside down: the mean divides the reconstruction by the larger number, "
            "so the KL weighs more, not less.",
        ),
    )
    reject(
        abs(got - 50) < 1e-6,
        f"For 600 pixels and 12 latent dimensions β is 50, and yours is {got}: "
        "multiply the whole loss by `pixels` and look at the KL's factor.",
    )
    return "600 pixels and 12 latent dimensions give β = 50."


@exercise
def gaussian_kl(answer: Callable) -> str:
    """answer(mean, logvar) -> KL to N(0, I) in nats per image, (B,)."""
    mean = torch.randn(7, 5, generator=generator_for("m"))
    logvar = torch.randn(7, 5, generator=generator_for("v"))
    prior = Normal(0.0, 1.0)
    parts = kl_divergence(Normal(mean.double(), (0.5 * logvar.double()).exp()), prior)  # (7, 5)
    variance_as_std = kl_divergence(Normal(mean, logvar.exp()), prior)

    got = answer(mean, logvar)
    reject(
        getattr(got, "ndim", 1) > 0,
        "That is one number for the whole batch, and its weight would depend on the batch; "
        "return one per image, (B,).",
    )
    reject(
        tuple(getattr(got, "shape", ())) != (7, 5),
        "That is the KL of each latent dimension; sum over them, independent KLs add up.",
    )
    expect_shape(got, (7,), "The KL")
    reject_mistakes(
        got,
        (
            parts.mean(1),
            "You averaged over the latent dimensions; "
            "KLs of independent dimensions add up, so sum.",
        ),
        (-parts.sum(1), "The sign is upside down: a KL is never negative."),
        (
            variance_as_std.sum(1),
            "You took exp(logvar) for the standard deviation; it is the variance.",
        ),
    )
    reject(
        close(got, parts.sum(1)),
        f"torch.distributions says {parts[0].sum():.4f} for the first image, and you say "
        f"{got[0]:.4f}: ½ Σ (μ² + σ² − 1 − log σ²).",
    )
    return "equal to torch.distributions."


@exercise
def reparameterise(answer: Callable) -> str:
    """answer(mean, logvar, generator) -> one differentiable draw of each row."""
    mean = torch.full((20000, 3), 2.0, requires_grad=True)
    logvar = torch.full((20000, 3), math.log(0.25), requires_grad=True)
    z = answer(mean, logvar, generator_for("draw"))
    expect_shape(z, (20000, 3), "The sample")
    blocked = (
        "No gradient flows through your sample; write it as mean + std · noise, "
        "with the randomness in `noise` alone."
    )
    reject(z.requires_grad, blocked)
    reject(
        z.std(dim=0).max() > 1e-3,
        "All rows got the same noise, or none; draw noise of the shape of the mean.",
    )
    spread = z.std().item()
    reject(
        abs(spread - 0.25) > 0.01,
        "The spread is the variance, not its root: std = exp(logvar / 2).",
    )
    reject(
        abs(z.mean().item() - 2) < 0.02 and abs(spread - 0.5) < 0.02,
        f"Mean and spread should be 2 and 0.5, and are {z.mean():.2f} and {spread:.2f}.",
    )
    z.square().mean().backward()
    moved = mean.grad is not None and mean.grad.abs().max().item() > 0
    reject(moved, blocked)  # torch.normal's gradient is 0
    reject(
        logvar.grad is not None and abs(logvar.grad.sum().item() - 0.25) < 0.02,
        "The gradient does not reach the log-variance: no `detach`, no `torch.no_grad`.",
    )
    return "mean, spread and gradients are right."


@exercise
def kl_weight(answer: Callable) -> str:
    """answer(step, total) -> β of a linear warm-up over the first 30 % of the steps."""
    got = [answer(step, 1000) for step in (0, 150, 300, 1000)]
    reject(got[0] == 0, f"At step 0 the weight should be 0, and yours is {got[0]}.")
    reject(
        got[-1] <= 1,
        f"After the warm-up the weight stays at 1, and yours grows to {got[-1]:.2f}; "
        "take the smaller of it and 1.",
    )
    reject(
        abs(got[-1] - 1) < 1e-9,
        f"The weight never reaches 1 (at the end it is {got[-1]:.2f}): "
        "the loss would not be the ELBO.",
    )
    reject(
        abs(got[1] - 0.5) < 1e-6 and abs(got[2] - 1) < 1e-6,
        f"Half-way through the warm-up (step 150 of 1000) it should be 0.5, "
        f"and yours is {got[1]:.2f}.",
    )
    return "0 at first, 1 from 30 % of the steps on."


@exercise
def slerp(answer: Callable) -> str:
    """answer(a, b, t) -> the point at share t of the great circle from a to b; a, b: (latent,)."""
    a, b = torch.tensor([3.0, 0.0, 0.0]), torch.tensor([0.0, 3.0, 0.0])
    middle = answer(a, b, 0.5)
    expect_shape(middle, (3,), "The point")
    reject(
        abs(middle.norm().item() - 3) < 0.5,
        f"Half-way its length is {middle.norm():.2f} and not 3: "
        "that is the straight line, which cuts through the middle of the sphere.",
    )
    reject(
        close(answer(a, b, 0.0), a) and close(answer(a, b, 1.0), b),
        "t = 0 should give a, and t = 1 should give b.",
    )
    third = torch.tensor([3 * math.cos(math.pi / 6), 3 * math.sin(math.pi / 6), 0.0])
    reject(
        close(answer(a, b, 1 / 3), third),
        "A third of the way should be a third of the angle: "
        "sin((1−t)ω)/sin ω · a + sin(tω)/sin ω · b.",
    )
    return "equal angles, and the length is kept."


@exercise
def importance_weighted(answer: Callable) -> str:
    """answer(log_weights (k, B)) -> the importance-weighted estimate of -log p(x), (B,)."""
    log_weights = -100.0 + torch.randn(50, 3, generator=generator_for("weights"))
    truth = math.log(50) - torch.logsumexp(log_weights.double(), 0)
    got = answer(log_weights)
    expect_shape(got, (3,), "The estimate")
    reject(
        bool(torch.isfinite(answer(log_weights - 2000)).all()),
        "With realistic weights (exp of −2000) yours is infinite; use torch.logsumexp.",
    )
    reject_mistakes(
        got,
        (
            -log_weights.mean(0),
            "You averaged the logarithms: that is the ELBO; "
            "average the weights, then take the logarithm.",
        ),
        (truth - math.log(50), "You summed the weights; the average is smaller by log k."),
    )
    reject(
        close(got, truth),
        f"It should be {truth[0]:.3f} for the first image, and yours is {got[0]:.3f} "
        "(mind the sign).",
    )
    return "and stable for any size of weights."


@exercise
def my_vae(answer: Callable) -> str:
    """answer(train) -> a trained VAE whose code says something, better than the mean image."""
    from helpers.training.loop import evaluate

    train, test = load_mnist("train"), load_mnist("test")
    model = answer(train)
    reject(isinstance(model, torch.nn.Module), "Return the trained model, which is an nn.Module.")
    units = active_units(encode_all(model, test))
    reject(
        units > 0,
        "No latent dimension depends on the image: the posterior collapsed; "
        "sum both terms over their dimensions.",
    )

    def loss(model, batch, generator):
        return negative_elbo(model(batch["images"], generator), batch["images"])

    scores = evaluate(model, loss, test)
    mean = train.pixels().mean(0, keepdim=True).clamp(1e-4, 1 - 1e-4)  # (1, 1, 28, 28)
    guess = torch.logit(mean).expand(len(test), -1, -1, -1)
    constant = bernoulli_nll(guess, test.pixels()).mean().item()
    reject(
        scores["loss"] < constant,
        f"Held-out: yours {scores['loss']:.1f} nats, always guessing the mean image "
        f"{constant:.1f}; train longer or look at the KL ({scores['kl']:.1f}).",
    )
    return (
        f"held-out {scores['loss']:.1f} nats per image with {units} active units; "
        f"the mean image has {constant:.1f}."
    )
