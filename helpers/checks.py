"""Checks of the exercises: each prints «not attempted yet», «✓ …», or one sentence on what is wrong.

A check compares with an independent truth (a closed form, torch.distributions, PyTorch's own op), on shapes that are
not square, and statistically where the answer is random.
"""

import functools
import math
from collections.abc import Callable

import torch
from torch import nn

from helpers.budget import build_dir, generator_for
from helpers.data import load_mnist
from helpers.metrics import active_units, encode_all


class Rejected(Exception):
    """What is wrong with an answer, in one sentence for the learner."""


def reject(unless: bool, sentence: str) -> None:
    """Raise Rejected with `sentence` unless the condition holds."""
    if not unless:
        raise Rejected(sentence)


def exercise(body: Callable[..., str]) -> Callable[..., None]:
    """Make a check of a function that returns praise or raises Rejected; a pass is noted for `make progress`."""

    @functools.wraps(body)
    def check(*answers) -> None:
        try:
            praise = body(*answers)
        except NotImplementedError:
            print("not attempted yet: replace `raise NotImplementedError` and run this cell again")
        except Rejected as why:
            print(f"✗ {why}")
        except Exception as error:
            print(f"✗ Your code raised {type(error).__name__}: {error}")
        else:
            print(f"✓ {praise}")
            passed = build_dir() / "progress" / body.__name__
            passed.parent.mkdir(parents=True, exist_ok=True)
            passed.touch()

    return check


def close(a: torch.Tensor, b: torch.Tensor, rtol: float = 1e-4) -> bool:
    """Whether two tensors have the same shape and, but for rounding, the same values."""
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=rtol, atol=1e-5)


def expect_shape(answer, wanted: tuple[int, ...], what: str) -> None:
    """Reject an `answer` that is no tensor of the shape `wanted`; `what` it is begins the sentence."""
    reject(isinstance(answer, torch.Tensor), f"{what} should be a tensor, and yours is a {type(answer).__name__}.")
    reject(tuple(answer.shape) == wanted, f"{what} should have shape {wanted}, and yours has {tuple(answer.shape)}.")


# --- notebook 01 ---------------------------------------------------------------------------------------------------


@exercise
def count_parameters(answer: Callable) -> str:
    """answer(model) -> how many numbers training can change."""
    model = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3))  # 15 + 3, and 3 + 3
    got = answer(model)
    reject(got != 4, "You counted the tensors; count the numbers in them (`numel`).")
    reject(got not in (15, 18), "You counted the weights alone; biases and normalisation are trained too.")
    reject(got != 31, "You counted buffers too (running mean and variance); training by gradient changes `parameters()` only.")
    reject(got == 24, f"A Linear(5, 3) and a BatchNorm1d(3) have 15 + 3 + 3 + 3 = 24, and you found {got}.")
    return "24 in the small test model. Try it on the autoencoder of this notebook."


@exercise
def squared_error(answer: Callable) -> str:
    """answer(x, y) -> the squared error of each image, (B,)."""
    x, y = (torch.rand(5, 1, 28, 20, generator=generator_for("squared error", i)) for i in (0, 1))
    got, truth = answer(x, y), (x - y).square().sum(dim=(1, 2, 3))
    reject(isinstance(got, torch.Tensor) and got.ndim > 0, "One number for the whole batch hides which image is bad; return one per image, (B,).")
    expect_shape(got, (5,), "The error")
    reject(not close(got, truth / 560), "You averaged over the pixels; sum them, so that the unit is «per image».")
    reject(not close(got, truth.sqrt()), "You took a square root; the squared error has none.")
    reject(close(got, truth), f"The first image's error should be {truth[0]:.3f}, and yours is {got[0]:.3f}.")
    return "one number per image, summed over its pixels."


@exercise
def pca_reconstruct(answer: Callable) -> str:
    """answer(x, k) -> x (N, D) through its first k principal components and back."""
    from sklearn.decomposition import PCA

    mixing = torch.randn(6, 35, generator=generator_for("mixing"))
    x = torch.randn(60, 6, generator=generator_for("pca")) @ mixing + 3.0  # far from the origin
    pca = PCA(4).fit(x.numpy())
    truth = torch.from_numpy(pca.inverse_transform(pca.transform(x.numpy())))
    got = answer(x.clone(), 4)
    expect_shape(got, (60, 35), "The reconstruction")
    _, _, v = torch.linalg.svd(x, full_matrices=False)
    reject(not close(got, x @ v[:4].T @ v[:4], 1e-3), "You did not centre: subtract the mean before the SVD, or the first component points at the mean.")
    reject(not close(got, truth - x.mean(0), 1e-3), "Your reconstruction is centred on zero: add the mean back at the end.")
    reject(not close(got, x, 1e-3), "You kept everything: use only the first k right singular vectors.")
    reject(close(got, truth, 1e-3), "It differs from scikit-learn's PCA: project on the rows of Vᵀ (V[:k]) and come back with the same rows.")
    return "the same as scikit-learn's PCA."


@exercise
def add_noise(answer: Callable) -> str:
    """answer(x, sigma, generator) -> noisy images in [0, 1]."""
    x = torch.full((40, 1, 28, 20), 0.5)
    got = answer(x, 0.1, generator_for("noise"))
    expect_shape(got, (40, 1, 28, 20), "The noisy batch")
    reject(torch.equal(x, torch.full_like(x, 0.5)), "You changed the caller's images; return new ones.")
    reject(not torch.allclose(got[0], got[1]), "Every image got the same noise; draw it with the shape of the whole batch.")
    reject(0.09 < got.std().item() < 0.11, f"With sigma = 0.1 the noise should have standard deviation 0.1, and yours has {got.std():.3f}.")
    reject((got - 0.5).abs().max() > 0.25, "No pixel is further off than 2.5 sigma: that is not a normal distribution (torch.randn).")
    strong = answer(x, 1.0, generator_for("noise"))
    reject(0 <= strong.min() and strong.max() <= 1, "Some pixels left [0, 1]; clamp, because the network has never seen such values.")
    return "normal, independent for each pixel, and inside [0, 1]."


@exercise
def sample_codes(answer: Callable) -> str:
    """answer(codes, count, generator) -> count draws from the full-covariance Gaussian of codes (N, latent)."""
    mixing = torch.tensor([[2.0, 0.0, 0.0], [1.5, 0.5, 0.0], [0.0, -1.0, 1.0]])
    codes = torch.randn(5000, 3, generator=generator_for("codes")) @ mixing.T + torch.tensor([4.0, 0.0, -2.0])
    got = answer(codes, 20000, generator_for("draws"))
    expect_shape(got, (20000, 3), "The draws")
    reject((got.mean(0) - codes.mean(0)).abs().max() < 0.15, "The mean is off: add the mean of the codes to the noise.")
    cov, truth = torch.cov(got.T), torch.cov(codes.T)
    diagonal = torch.allclose(cov, torch.diag(truth.diag()), atol=0.3)
    reject(not diagonal, "Each number has the right spread, but they vary independently; use the full covariance (its Cholesky factor).")
    reject(torch.allclose(cov, truth, atol=0.3), "The covariance is off: with L = cholesky(C), noise @ L.T has covariance C (noise @ L has not).")
    return "mean and covariance match those of the codes."


@exercise
def my_autoencoder(answer: Callable) -> str:
    """answer(train) -> a trained model with 8 numbers that beats PCA with 8 on held-out images."""
    from sklearn.decomposition import PCA

    train, test = load_mnist("train"), load_mnist("test")
    model = answer(train)
    on = next(model.parameters()).device
    with torch.no_grad():
        z = model.encode(test.pixels(on))
        reject(z.shape == (len(test), 8), f"The code should be (N, 8), and yours is {tuple(z.shape)}.")
        error = (torch.sigmoid(model.decode(z)).cpu() - test.pixels()).square().mean().item()
    pca = PCA(8, random_state=0).fit(train.pixels().flatten(1).numpy())
    flat = test.pixels().flatten(1).numpy()
    linear = float(((pca.inverse_transform(pca.transform(flat)) - flat) ** 2).mean())
    reject(error < linear, f"Held-out squared error per pixel: yours {error:.4f}, PCA's {linear:.4f}; train longer, or check that the loss compares with the input.")
    return f"held-out squared error per pixel {error:.4f}, PCA with 8 numbers has {linear:.4f}."


# --- notebook 02 ---------------------------------------------------------------------------------------------------


@exercise
def effective_beta(answer: Callable) -> str:
    """answer(pixels, latents) -> the β that «mean, mean» amounts to."""
    got = answer(600, 12)
    reject(abs(got - 1 / 50) > 1e-9, "Upside down: the mean divides the reconstruction by the larger number, so the KL weighs more, not less.")
    reject(abs(got - 50) < 1e-6, f"For 600 pixels and 12 latents β is 50, and yours is {got}: multiply the whole loss by `pixels` and look at the KL's factor.")
    return "600 pixels and 12 latents give β = 50."


@exercise
def gaussian_kl(answer: Callable) -> str:
    """answer(mean, logvar) -> KL to N(0, I) in nats per image, (B,)."""
    mean, logvar = torch.randn(7, 5, generator=generator_for("m")), torch.randn(7, 5, generator=generator_for("v"))
    posterior = torch.distributions.Normal(mean.double(), (0.5 * logvar.double()).exp())
    parts = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))  # (7, 5)
    got = answer(mean, logvar)
    reject(isinstance(got, torch.Tensor) and got.ndim > 0, "That is one number for the whole batch, and its weight would depend on the batch; return one per image, (B,).")
    reject(tuple(got.shape) != (7, 5), "That is the KL of each latent number; sum over them, independent KLs add up.")
    expect_shape(got, (7,), "The KL")
    reject(not close(got, parts.mean(1)), "You averaged over the latent numbers; KLs of independent numbers add up, so sum.")
    reject(not close(got, -parts.sum(1)), "The sign is upside down: a KL is never negative.")
    as_std = torch.distributions.kl_divergence(torch.distributions.Normal(mean, logvar.exp()), torch.distributions.Normal(0.0, 1.0))
    reject(not close(got, as_std.sum(1)), "You took exp(logvar) for the standard deviation; it is the variance.")
    reject(close(got, parts.sum(1)), f"torch.distributions says {parts[0].sum():.4f} for the first image, and you say {got[0]:.4f}: ½ Σ (μ² + σ² − 1 − log σ²).")
    return "equal to torch.distributions."


@exercise
def reparameterise(answer: Callable) -> str:
    """answer(mean, logvar, generator) -> one differentiable draw of each row."""
    mean, logvar = torch.full((20000, 3), 2.0, requires_grad=True), torch.full((20000, 3), math.log(0.25), requires_grad=True)
    z = answer(mean, logvar, generator_for("draw"))
    expect_shape(z, (20000, 3), "The sample")
    blocked = "No gradient flows through your sample; write it as mean + std · noise, with the randomness in `noise` alone."
    reject(z.requires_grad, blocked)
    reject(z.std(dim=0).max() > 1e-3, "All rows got the same noise, or none; draw noise of the shape of the mean.")
    spread = z.std().item()
    reject(abs(spread - 0.25) > 0.01, "The spread is the variance, not its root: std = exp(logvar / 2).")
    reject(abs(z.mean().item() - 2) < 0.02 and abs(spread - 0.5) < 0.02, f"Mean and spread should be 2 and 0.5, and are {z.mean():.2f} and {spread:.2f}.")
    z.square().mean().backward()
    reject(mean.grad is not None and mean.grad.abs().max().item() > 0, blocked)  # torch.normal's gradient is 0
    reject(logvar.grad is not None and abs(logvar.grad.sum().item() - 0.25) < 0.02, "The gradient does not reach the log-variance: no `detach`, no `torch.no_grad`.")
    return "mean, spread and gradients are right."


@exercise
def kl_weight(answer: Callable) -> str:
    """answer(step, total) -> β of a linear warm-up over the first 30 % of the steps."""
    got = [answer(step, 1000) for step in (0, 150, 300, 1000)]
    reject(got[0] == 0, f"At step 0 the weight should be 0, and yours is {got[0]}.")
    reject(got[-1] <= 1, f"After the warm-up the weight stays at 1, and yours grows to {got[-1]:.2f}; take the smaller of it and 1.")
    reject(abs(got[-1] - 1) < 1e-9, f"The weight never reaches 1 (at the end it is {got[-1]:.2f}): the loss would not be the ELBO.")
    reject(abs(got[1] - 0.5) < 1e-6 and abs(got[2] - 1) < 1e-6, f"Half-way through the warm-up (step 150 of 1000) it should be 0.5, and yours is {got[1]:.2f}.")
    return "0 at first, 1 from 30 % of the steps on."


@exercise
def slerp(answer: Callable) -> str:
    """answer(a, b, t) -> the point at share t of the great circle from a to b; a, b: (latent,)."""
    a, b = torch.tensor([3.0, 0.0, 0.0]), torch.tensor([0.0, 3.0, 0.0])
    middle = answer(a, b, 0.5)
    expect_shape(middle, (3,), "The point")
    reject(abs(middle.norm().item() - 3) < 0.5, f"Half-way its length is {middle.norm():.2f} and not 3: that is the straight line, which cuts through the middle of the sphere.")
    reject(close(answer(a, b, 0.0), a) and close(answer(a, b, 1.0), b), "t = 0 should give a, and t = 1 should give b.")
    third = torch.tensor([3 * math.cos(math.pi / 6), 3 * math.sin(math.pi / 6), 0.0])
    reject(close(answer(a, b, 1 / 3), third), "A third of the way should be a third of the angle: sin((1−t)ω)/sin ω · a + sin(tω)/sin ω · b.")
    return "equal angles, and the length is kept."


@exercise
def importance_weighted(answer: Callable) -> str:
    """answer(log_weights (k, B)) -> the importance-weighted estimate of -log p(x), (B,)."""
    log_weights = -100.0 + torch.randn(50, 3, generator=generator_for("weights"))
    truth = math.log(50) - torch.logsumexp(log_weights.double(), 0)
    got = answer(log_weights)
    expect_shape(got, (3,), "The estimate")
    reject(bool(torch.isfinite(answer(log_weights - 2000)).all()), "With realistic weights (exp of −2000) yours is infinite; use torch.logsumexp.")
    reject(not close(got, -log_weights.mean(0)), "You averaged the logarithms: that is the ELBO; average the weights, then take the logarithm.")
    reject(not close(got, truth - math.log(50)), "You summed the weights; the average is smaller by log k.")
    reject(close(got, truth), f"It should be {truth[0]:.3f} for the first image, and yours is {got[0]:.3f} (mind the sign).")
    return "and stable for any size of weights."


@exercise
def my_vae(answer: Callable) -> str:
    """answer(train) -> a trained VAE whose code says something and whose bound beats the mean image."""
    from helpers.losses import bernoulli_nll, negative_elbo
    from helpers.training import evaluate

    train, test = load_mnist("train"), load_mnist("test")
    model = answer(train)
    units = active_units(encode_all(model, test))
    reject(units > 0, "No latent number depends on the image: the posterior collapsed; sum both terms over their dimensions.")
    scores = evaluate(model, lambda m, batch, g: negative_elbo(m(batch.images, g), batch.images), test)
    mean = train.pixels().mean(0, keepdim=True).clamp(1e-4, 1 - 1e-4)  # (1, 1, 28, 28)
    constant = bernoulli_nll(torch.logit(mean).expand(len(test), -1, -1, -1), test.pixels()).mean().item()
    reject(scores["loss"] < constant, f"Held-out: yours {scores['loss']:.1f} nats, always guessing the mean image {constant:.1f}; train longer or look at the KL ({scores['kl']:.1f}).")
    return f"held-out {scores['loss']:.1f} nats per image with {units} active units; the mean image has {constant:.1f}."
