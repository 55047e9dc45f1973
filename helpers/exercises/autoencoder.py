"""Checks of notebook 1's exercises; `helpers.exercises.check` says how a check works."""

from collections.abc import Callable

import torch
from torch import nn

from helpers.data.datasets import load_mnist
from helpers.exercises.check import (
    close,
    exercise,
    expect_shape,
    in_place,
    reject,
    reject_mistakes,
    twins,
)
from helpers.rng import generator_for


@in_place("helpers.models.mlp_vae:Autoencoder")
def autoencoder(answer: type[nn.Module], course: type[nn.Module]) -> str:
    """answer: the class, made of `latent` and `hidden`, with encode, decode and forward."""
    generator = generator_for("autoencoder")
    x = torch.rand(7, 1, 28, 28, generator=generator)
    for arguments in ({}, {"latent": 3, "hidden": (40, 24)}, {"latent": 5, "hidden": (16,)}):
        mine, theirs = twins(answer, course, **arguments)
        z = mine.encode(x)
        right = theirs.encode(x)
        expect_shape(z, tuple(right.shape), "What `encode` returns")
        reject(
            close(z, right),
            "`encode` should flatten the images, (B, 784), and return what `self.encoder` makes "
            "of them, unchanged: a code may be any number.",
        )

        z = 3 * torch.randn(right.shape, generator=generator)
        decoded = mine.decode(z)
        right = theirs.decode(z)  # (7, 1, 28, 28)
        expect_shape(decoded, (7, 1, 28, 28), "What `decode` returns")
        reject_mistakes(
            decoded,
            (right.sigmoid(), "`decode` returns logits: the sigmoid is taken by whoever looks."),
            (right.relu(), "`decode` returns logits, and a ReLU cuts the negative ones off."),
        )
        reject(close(decoded, right), "`decode` should return what `self.decoder` makes of z.")
        _compare_outputs(mine(x), theirs(x))
    return "The weights of the course's checkpoints fit, and give the same pictures."


def _compare_outputs(output, right: tuple[torch.Tensor, torch.Tensor]) -> None:
    """What the learner's forward returns against what the course's does."""
    named = hasattr(output, "decoded") and hasattr(output, "z")
    reject(named, "`forward` should return AutoencoderOutput(decoded, z).")
    swapped = "You swapped them: AutoencoderOutput(decoded, z)."
    reject(tuple(output.z.shape) != tuple(right.decoded.shape), swapped)
    same = close(output.decoded, right.decoded) and close(output.z, right.z)
    reject(same, "`forward` should encode the images, decode the code, and return both.")


@exercise
def count_parameters(answer: Callable) -> str:
    """answer(model) -> how many numbers training can change."""
    model = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3))  # 15 + 3, and 3 + 3
    got = answer(model)
    weights_alone = "You counted the weights alone; biases and normalisation are trained too."
    reject_mistakes(
        got,
        (4, "You counted the tensors; count the numbers in them (`numel`)."),
        (15, weights_alone),
        (18, weights_alone),
        (
            31,
            "You counted buffers too (running mean and variance); "
            "training by gradient changes `parameters()` only.",
        ),
    )
    reject(
        got == 24,
        f"A Linear(5, 3) and a BatchNorm1d(3) have 15 + 3 + 3 + 3 = 24, and you found {got}.",
    )
    return "24 in the small test model. Try it on the autoencoder of this notebook."


@exercise
def squared_error(answer: Callable) -> str:
    """answer(x, y) -> the squared error of each image, (B,)."""
    x = torch.rand(5, 1, 28, 20, generator=generator_for("squared error", 0))
    y = torch.rand(5, 1, 28, 20, generator=generator_for("squared error", 1))
    truth = (x - y).square().sum(dim=(1, 2, 3))
    got = answer(x, y)
    reject(
        not isinstance(got, float) and getattr(got, "ndim", 1) > 0,
        "One number for the whole batch hides which image is bad; return one per image, (B,).",
    )
    expect_shape(got, (5,), "The error")
    reject_mistakes(
        got,
        (truth / 560, 'You averaged over the pixels; sum them, so that the unit is "per image".'),
        (truth.sqrt(), "You took a square root; the squared error has none."),
    )
    reject(
        close(got, truth),
        f"The first image's error should be {truth[0]:.3f}, and yours is {got[0]:.3f}.",
    )
    return "one number per image, summed over its pixels."


@exercise
def pca_reconstruct(answer: Callable) -> str:
    """answer(x, k) -> x (N, D) through its first k principal components and back."""
    from sklearn.decomposition import PCA

    mixing = torch.randn(6, 35, generator=generator_for("mixing"))
    x = torch.randn(60, 6, generator=generator_for("pca")) @ mixing + 3.0  # far from the origin
    pca = PCA(4).fit(x.numpy())
    truth = torch.from_numpy(pca.inverse_transform(pca.transform(x.numpy())))
    _, _, directions = torch.linalg.svd(x, full_matrices=False)
    uncentred = x @ directions[:4].T @ directions[:4]

    got = answer(x.clone(), 4)
    expect_shape(got, (60, 35), "The reconstruction")
    reject_mistakes(
        got,
        (
            uncentred,
            "You did not centre: subtract the mean before the SVD, "
            "or the first component points at the mean.",
        ),
        (
            truth - x.mean(0),
            "Your reconstruction is centred on zero: add the mean back at the end.",
        ),
        (x, "You kept everything: use only the first k right singular vectors."),
        rtol=1e-3,
    )
    reject(
        close(got, truth, 1e-3),
        "It differs from scikit-learn's PCA: project on the rows of Vᵀ (V[:k]) "
        "and come back with the same rows.",
    )
    return "the same as scikit-learn's PCA."


@exercise
def add_gaussian_noise(answer: Callable) -> str:
    """answer(x, sigma, generator) -> noisy images in [0, 1]."""
    x = torch.full((40, 1, 28, 20), 0.5)
    got = answer(x, 0.1, generator_for("noise"))
    expect_shape(got, (40, 1, 28, 20), "The noisy batch")
    reject(
        torch.equal(x, torch.full_like(x, 0.5)), "You changed the caller's images; return new ones."
    )
    reject(
        not torch.allclose(got[0], got[1]),
        "Every image got the same noise; draw it with the shape of the whole batch.",
    )
    spread = got.std().item()
    reject(
        0.09 < spread < 0.11,
        f"With sigma = 0.1 the noise should have standard deviation 0.1, and yours has "
        f"{spread:.3f}.",
    )
    reject(
        (got - 0.5).abs().max() > 0.25,
        "No pixel is further off than 2.5 sigma: that is not a normal distribution (torch.randn).",
    )
    strong = answer(x, 1.0, generator_for("noise"))
    reject(
        0 <= strong.min() and strong.max() <= 1,
        "Some pixels left [0, 1]; clamp, because the network has never seen such values.",
    )
    return "normal, independent for each pixel, and inside [0, 1]."


@exercise
def sample_codes(answer: Callable) -> str:
    """answer(codes (N, latent), count, generator) -> draws from their full-covariance Gaussian."""
    mixing = torch.tensor([[2.0, 0.0, 0.0], [1.5, 0.5, 0.0], [0.0, -1.0, 1.0]])
    codes = torch.randn(5000, 3, generator=generator_for("codes")) @ mixing.T
    codes = codes + torch.tensor([4.0, 0.0, -2.0])
    got = answer(codes, 20000, generator_for("draws"))
    expect_shape(got, (20000, 3), "The draws")
    reject(
        (got.mean(0) - codes.mean(0)).abs().max() < 0.15,
        "The mean is off: add the mean of the codes to the noise.",
    )
    covariance, truth = torch.cov(got.T), torch.cov(codes.T)
    diagonal = torch.allclose(covariance, torch.diag(truth.diag()), atol=0.3)
    reject(
        not diagonal,
        "Each dimension has the right spread, but they vary independently; "
        "use the full covariance (its Cholesky factor).",
    )
    reject(
        torch.allclose(covariance, truth, atol=0.3),
        "The covariance is off: with L = cholesky(C), noise @ L.T has covariance C "
        "(noise @ L has not).",
    )
    return "mean and covariance match those of the codes."


@exercise
def my_autoencoder(answer: Callable) -> str:
    """answer(train) -> a trained model with 8 latent dimensions, better than PCA with 8."""
    from sklearn.decomposition import PCA

    train, test = load_mnist("train"), load_mnist("test")
    model = answer(train)
    reject(isinstance(model, nn.Module), "Return the trained model, which is an nn.Module.")
    on = next(model.parameters()).device
    with torch.no_grad():
        z = model.encode(test.pixels(on))
        expect_shape(z, (len(test), 8), "The code")
        decoded = torch.sigmoid(model.decode(z)).cpu()
    error = (decoded - test.pixels()).square().mean().item()

    pca = PCA(8, random_state=0).fit(train.pixels().flatten(1).numpy())
    flat = test.pixels().flatten(1).numpy()
    linear = float(((pca.inverse_transform(pca.transform(flat)) - flat) ** 2).mean())
    reject(
        error < linear,
        f"Held-out squared error per pixel: yours {error:.4f}, PCA's {linear:.4f}; "
        "train longer, or check that the loss compares with the input.",
    )
    return f"held-out squared error per pixel {error:.4f}, PCA with 8 dimensions has {linear:.4f}."
