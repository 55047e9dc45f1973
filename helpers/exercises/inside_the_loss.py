"""Checks of notebook 3's exercises; `helpers.exercises.check` says how a check works."""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.distributions import Normal

from helpers.classifiers.digits import DigitClassifier, classify_digits
from helpers.data.datasets import load_mnist
from helpers.env import budget
from helpers.exercises.check import (
    close,
    exercise,
    expect_shape,
    in_place,
    reject,
    reject_mistakes,
)
from helpers.exercises.noise import expect_generator
from helpers.metrics.samples import frechet_distance
from helpers.models.distributions import DiagonalGaussian
from helpers.models.losses import bernoulli_nll
from helpers.models.mlp_vae import MLPVAE
from helpers.rng import generator_for

# --- β ---


@in_place("helpers.training.by_hand:effective_beta")
def effective_beta(answer: Callable, course: Callable) -> str:
    """answer(pixels, latents) -> the β that "mean, mean" amounts to."""
    for pixels, latents in ((600, 12), (784, 20), (50, 8)):
        got = answer(pixels, latents)
        reject_mistakes(
            got,
            (
                latents / pixels,
                "Upside down: the mean divides the reconstruction by the larger number, "
                "so the KL weighs more, not less.",
            ),
            (1.0, "The two means divide by different numbers, so β is not 1."),
            (pixels, "The KL is averaged too: divide by the latent dimensions."),
            (pixels * latents, "Multiply the loss by `pixels`: the KL's factor is a quotient."),
        )
        right = pixels / latents
        rounded = got == pixels // latents and got != right
        reject(not rounded, "You rounded: // drops the fraction, / keeps it.")
        reject(
            close(torch.as_tensor(got), torch.tensor(right)),
            f"For {pixels} pixels and {latents} latent dimensions β is {right}, and you say {got}.",
        )
    return "600 pixels and 12 latent dimensions give β = 50."


@in_place("helpers.training.by_hand:kl_weight")
def kl_weight(answer: Callable, course: Callable) -> str:
    """answer(step, total) -> β of a linear warm-up over the first 30 % of the steps."""
    for total in (1000, 730):
        steps = [round(share * total) for share in (0, 0.06, 0.15, 0.24, 0.3, 0.6, 1)]
        got = [answer(step, total) for step in steps]
        reject(None not in got, "Your function returns nothing: end it with `return`.")
        got = [float(value) for value in got]
        reject(got[0] == 0, f"At step 0 the weight should be 0, and yours is {got[0]:g}.")
        reject(
            max(got) <= 1 + 1e-9,
            f"After the warm-up the weight stays at 1, and yours grows to {max(got):.4g}; "
            "take the smaller of it and 1.",
        )
        reject(
            got[-1] > 1 - 1e-9,
            f"The weight never reaches 1 (at the end it is {got[-1]:.4g}): "
            "the loss would not be the ELBO.",
        )
        early = [min(1.0, step / (0.3 * total)) for step in steps]
        whole = [step / total for step in steps]
        cosine = [0.5 - 0.5 * math.cos(math.pi * share) for share in early]
        for wrong, sentence in (
            (whole, "Your weight rises over all steps; it should reach 1 after 30 % of them."),
            (cosine, "Your ramp is a cosine; a straight line is asked for."),
            ([share**2 for share in early], "Your ramp is bent; a straight line is asked for."),
            (
                [float(share >= 1) for share in early],
                "Your weight jumps from 0 to 1: / and not // gives the values between.",
            ),
        ):
            reject(not close(torch.tensor(got), torch.tensor(wrong)), sentence)
        for step, found, wanted in zip(steps, got, early, strict=True):
            reject(
                abs(found - wanted) < 1e-5,
                f"At step {step} of {total} the weight should be {wanted:.6g}, and yours is "
                f"{found:.6g}.",
            )
    return "0 at first, a straight line, and 1 from 30 % of the steps on."


# --- the likelihood ---


@in_place("helpers.metrics.likelihood:log_weight")
def log_weight(answer: Callable, course: Callable) -> str:
    """answer(posterior, z, nll) -> log p(x|z) + log p(z) - log q(z|x), (B,)."""
    for b, latent in ((6, 4), (5, 3)):
        generator = generator_for("weight", b)
        mean, logvar, noise = torch.randn(3, b, latent, generator=generator)
        posterior = DiagonalGaussian(mean, logvar)
        z = mean + posterior.std * noise
        nll = 80 + 5 * torch.rand(b, generator=generator)
        prior = Normal(0.0, 1.0).log_prob(z).sum(1)
        guess = Normal(mean, posterior.std).log_prob(z).sum(1)
        as_std = Normal(mean, logvar.exp()).log_prob(z).sum(1)
        got = answer(posterior, z, nll)
        reject(got is not None, "Your function returns nothing: end it with `return`.")
        alone = getattr(got, "ndim", 1) == 0 or isinstance(got, float)
        reject(not alone, "One number for the whole batch: give one per image, (B,).")
        expect_shape(got, (b,), "The logarithm of the weight")
        reject_mistakes(
            got,
            (prior - guess + nll, "`nll` is −log p(x|z), so subtract it."),
            (guess - prior - nll, "p(z) stands above and q(z|x) below: + log p − log q."),
            (-nll + prior, "log q(z|x) is missing."),
            (-nll - guess, "log p(z) is missing."),
            (-nll, "Only log p(x|z) is there; the prior and q(z|x) are missing."),
            (nll - prior + guess, "The sign is upside down: log w, and not −log w."),
            (
                -nll - posterior.kl(),
                "That is the ELBO, with the average over q in it; the weight belongs to this z.",
            ),
            (prior - as_std - nll, "exp(logvar) is the variance; Normal takes the spread, std."),
            ((prior - guess - nll).exp(), "Return log w itself, without exp: w would be 0."),
        )
        truth = prior - guess - nll
        reject(
            close(got, truth),
            f"For the first image log w is {truth[0]:.4f}, and yours is {float(got[0]):.4f}.",
        )
    return "log p(x|z) + log p(z) − log q(z|x)."


@in_place("helpers.metrics.likelihood:importance_weighted")
def importance_weighted(answer: Callable, course: Callable) -> str:
    """answer(log_weights (k, B)) -> the importance-weighted estimate of -log p(x), (B,)."""
    for k, b in ((50, 3), (7, 20)):
        log_weights = -100.0 + 2 * torch.randn(k, b, generator=generator_for("weights", k))
        truth = math.log(k) - torch.logsumexp(log_weights.double(), 0)
        got = answer(log_weights)
        reject(got is not None, "Your function returns nothing: end it with `return`.")
        reject(
            tuple(getattr(got, "shape", ())) != (k,),
            "You averaged over the images; the k draws stand in the first axis.",
        )
        expect_shape(got, (b,), "The estimate")
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
            (truth - math.log(k), "You summed the weights; the average is smaller by log k."),
            (truth - 2 * math.log(k), "log k has the wrong sign."),
            (-truth, "That is log p(x); return its negative."),
            (-log_weights.max(0).values, "You took the largest weight; take their mean."),
        )
        reject(
            close(got, truth),
            f"It should be {truth[0]:.4f} for the first image, and yours is {float(got[0]):.4f}.",
        )
    return "And stable for any size of weights."


@in_place("helpers.metrics.likelihood:naive_nll")
def naive_nll(answer: Callable, course: Callable) -> str:
    """answer(model, x, k, generator) -> -log p(x) from k draws of the prior, (B,)."""
    for latent, b, k in ((2, 5, 40), (3, 4, 9)):
        torch.manual_seed(latent)
        model = MLPVAE(latent, (16,)).eval()
        for parameter in model.parameters():
            parameter.data *= 1.5  # so that codes matter, and no single one decides alone
        x = (torch.rand(b, 1, 28, 28, generator=generator_for("x", b)) < 0.5).float()
        got = answer(model, x, k, generator_for("naive"))
        reject(got is not None, "Your function returns nothing: end it with `return`.")
        expect_shape(got, (b,), "The estimate")
        with torch.no_grad():
            z = torch.randn(k, latent, generator=generator_for("naive"))
            each = torch.stack([bernoulli_nll(d.expand_as(x), x) for d in model.decode(z)])
            posterior = model.encode(x)
        truth = course(model, x, k, generator_for("naive"))
        reject_mistakes(
            got,
            (each.mean(0), "You averaged −log p(x|z); average p(x|z), then take the logarithm."),
            (each.min(0).values, "You took the best draw; take the mean of all weights."),
            (truth - math.log(k), "You summed the weights; the average is smaller by log k."),
            (-truth, "That is log p(x); return its negative."),
            (
                math.log(k) - torch.logsumexp(each, 0),
                "The weights are p(x|z), and bernoulli_nll is −log of it: mind the minus.",
            ),
            (
                bernoulli_nll(model.decode(posterior.mean), x),
                "You used the encoder; this estimate does without one.",
            ),
        )
        expect_generator(lambda g, model=model, x=x, k=k: answer(model, x, k, g))
        reject(
            close(got, truth),
            f"With the same draws it should be {truth[0]:.3f} for the first image, and yours is "
            f"{float(got[0]):.3f}: the same k codes for all images.",
        )
    return "Right on average, with enough draws."


# --- the aggregate posterior ---


@in_place("helpers.metrics.latents:aggregate_posterior")
def aggregate_posterior(answer: Callable, course: Callable) -> str:
    """answer(mean, logvar), (N, latent) -> mean (latent,), covariance (latent, latent)."""
    for n, latent in ((9, 3), (40, 2)):
        generator = generator_for("aggregate", n)
        mixing = torch.randn(latent, latent, generator=generator)
        mean = torch.randn(n, latent, generator=generator) @ mixing + 2
        logvar = torch.randn(n, latent, generator=generator)
        got = answer(mean, logvar)
        reject(got is not None, "Your function returns nothing: end it with `return`.")
        pair = isinstance(got, tuple) and len(got) == 2
        reject(pair, "Return two things: `return mean, covariance`.")
        centre, covariance = got
        expect_shape(centre, (latent,), "The mean")
        reject(close(centre, mean.mean(0)), "The mean of the mixture is the mean of the means.")
        flat = isinstance(covariance, torch.Tensor) and tuple(covariance.shape) == (latent,)
        reject(not flat, "Those are variances; return the whole covariance matrix.")
        expect_shape(covariance, (latent, latent), "The covariance")
        between = torch.cov(mean.T, correction=0)
        variance = logvar.exp().mean(0)
        within = torch.diag(variance)
        root = torch.diag((0.5 * logvar).exp().mean(0))
        reject_mistakes(
            covariance,
            (between, "The posteriors have a width: add the mean of their variances."),
            (within, "The means differ: add their covariance."),
            (between + root, "You added the mean spread; variances add up: logvar.exp()."),
            (
                between + torch.diag(logvar.mean(0).exp()),
                "You averaged the log-variances; average the variances.",
            ),
            (
                between + variance,
                "You added the variances to every entry; they belong on the diagonal: torch.diag.",
            ),
            (
                torch.cov(mean.T) + within,
                "You divided by N − 1; this is the covariance of exactly these N pools: by N.",
            ),
            (
                torch.diag(between.diag()) + within,
                "You kept the diagonal alone; the means of two dimensions may go together.",
            ),
        )
        right = between + within
        reject(
            close(covariance, right),
            f"The first variance should be {right[0, 0]:.4f}, and yours is {covariance[0, 0]:.4f}.",
        )
    return "The covariance of the means, and the mean of the variances."


# --- your own ---


@exercise
def my_prior(answer: Callable) -> str:
    """answer(train) -> (a trained VAE, sample(count, generator) -> codes), better than N(0, I)."""
    from helpers.training.checkpoints import load_shipped

    train, validation = load_mnist("train").split(budget(quick=200, cpu=5000, gpu=5000))
    got = answer(train)
    pair = isinstance(got, tuple) and len(got) == 2
    reject(pair, "Return two things: `return model, sample`.")
    model, sample = got
    reject(isinstance(model, nn.Module), "The first one should be the trained model.")
    reject(callable(sample), "The second one should be a function, sample(count, generator).")
    on = next(model.parameters()).device
    with torch.no_grad():
        latent = model.encode(validation[:2].pixels(on)).mean.shape[1]
    codes = sample(2000, generator_for("mine"))
    expect_shape(codes, (2000, latent), "What `sample` returns")
    expect_generator(lambda generator: sample(20, generator))

    classifier = load_shipped(DigitClassifier, "digit_classifier")
    _, real = classify_digits(classifier, validation.pixels())

    def distance(z: torch.Tensor) -> float:
        with torch.no_grad():
            made = torch.sigmoid(model.decode(z.float().to(on))).cpu()
        return frechet_distance(classify_digits(classifier, made)[1], real)

    mine = distance(codes)
    plain = distance(torch.randn(2000, latent, generator=generator_for("plain")))
    reject(
        mine < plain,
        f"Fréchet distance to the validation images: yours {mine:.1f}, N(0, I) {plain:.1f}; "
        "look where the codes are, with their widths.",
    )
    return f"Fréchet distance {mine:.1f}, where N(0, I) has {plain:.1f}."
