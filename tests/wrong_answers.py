"""Typical wrong answers to the exercises, and a piece of the sentence that each must get.

WRONG = {"exercise": [("code that defines the stub's name", "piece of the expected sentence"), ...]}
"""

from tests import (
    wrong_answers_diffusers,
    wrong_answers_dogs,
    wrong_answers_latent_uses,
    wrong_answers_text_to_image,
    wrong_answers_variants,
)

WRONG: dict[str, list[tuple[str, str]]] = {
    # --- notebook 01
    "count_parameters": [
        ("def count_parameters(model): return len(list(model.parameters()))", "counted the tensors"),
        ("def count_parameters(model): return sum(p.numel() for p in model.parameters() if p.ndim > 1)", "weights alone"),
        ("def count_parameters(model): return sum(t.numel() for t in model.state_dict().values())", "counted buffers"),
        ("def count_parameters(model): return 0", "and you found 0"),
    ],
    "squared_error": [
        ("def squared_error(x, y): return (x - y).square().sum()", "One number for the whole batch"),
        ("def squared_error(x, y): return (x - y).square().flatten(1).mean(1)", "averaged over the pixels"),
        ("def squared_error(x, y): return (x - y).flatten(1).norm(dim=1)", "square root"),
        ("def squared_error(x, y): return (x - y).square().sum(dim=(1, 2))", "should have shape"),
        ("def squared_error(x, y): return (x - y).abs().flatten(1).sum(1)", "The first image's error"),
    ],
    "pca_reconstruct": [
        ("def pca_reconstruct(x, k):\n    v = torch.linalg.svd(x, full_matrices=False)[2]\n    return x @ v[:k].T @ v[:k]", "did not centre"),
        (
            "def pca_reconstruct(x, k):\n    x = x - x.mean(0)\n    v = torch.linalg.svd(x, full_matrices=False)[2]\n"
            "    return x @ v[:k].T @ v[:k]",
            "add the mean back",
        ),
        ("def pca_reconstruct(x, k): return x", "kept everything"),
        (
            "def pca_reconstruct(x, k):\n    m = x.mean(0)\n    v = torch.linalg.svd(x - m, full_matrices=False)[2]\n"
            "    return m + (x - m) @ v[:, :k] @ v[:, :k].T",
            "differs from scikit-learn",
        ),
    ],
    "add_noise": [
        ("def add_noise(x, sigma, generator): return x + sigma * torch.randn(x.shape, generator=generator)", "left [0, 1]"),
        (
            "def add_noise(x, sigma, generator): return (x + sigma * torch.randn(x.shape[1:], generator=generator)).clamp(0, 1)",
            "same noise",
        ),
        ("def add_noise(x, sigma, generator): return (x + sigma**2 * torch.randn(x.shape, generator=generator)).clamp(0, 1)", "0.1"),
        (
            "def add_noise(x, sigma, generator): return (x + sigma * 12**0.5 * (torch.rand(x.shape, generator=generator) - 0.5)).clamp(0, 1)",
            "not a normal distribution",
        ),
        (
            "def add_noise(x, sigma, generator): return x.add_(sigma * torch.randn(x.shape, generator=generator)).clamp_(0, 1)",
            "changed the caller's images",
        ),
    ],
    "sample_codes": [
        (
            "def sample_codes(codes, count, generator):\n"
            "    return codes.mean(0) + codes.std(0) * torch.randn(count, codes.shape[1], generator=generator)",
            "independently",
        ),
        (
            "def sample_codes(codes, count, generator):\n    root = torch.linalg.cholesky(torch.cov(codes.T))\n"
            "    return torch.randn(count, codes.shape[1], generator=generator) @ root.T",
            "mean is off",
        ),
        (
            "def sample_codes(codes, count, generator):\n    root = torch.linalg.cholesky(torch.cov(codes.T))\n"
            "    return codes.mean(0) + torch.randn(count, codes.shape[1], generator=generator) @ root",
            "covariance is off",
        ),
    ],
    "my_autoencoder": [
        ("def my_autoencoder(train): return Autoencoder(latent=16).eval()", "should be (N, 8)"),
        ("def my_autoencoder(train): return Autoencoder(latent=8).eval()", "train longer"),
    ],
    # --- notebook 02
    "effective_beta": [
        ("def effective_beta(pixels, latents): return latents / pixels", "Upside down"),
        ("def effective_beta(pixels, latents): return 1.0", "β is 50"),
    ],
    "gaussian_kl": [
        ("def gaussian_kl(mean, logvar): return 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum()", "whole batch"),
        ("def gaussian_kl(mean, logvar): return 0.5 * (mean**2 + logvar.exp() - 1 - logvar)", "of each latent number"),
        ("def gaussian_kl(mean, logvar): return 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean(1)", "averaged over the latent"),
        ("def gaussian_kl(mean, logvar): return -0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum(1)", "never negative"),
        (
            "def gaussian_kl(mean, logvar): return 0.5 * (mean**2 + logvar.exp() ** 2 - 1 - 2 * logvar).sum(1)",
            "for the standard deviation",
        ),
        ("def gaussian_kl(mean, logvar): return (mean**2 + logvar.exp() - 1 - logvar).sum(1)", "torch.distributions says"),
    ],
    "reparameterise": [
        ("def reparameterise(mean, logvar, generator): return torch.normal(mean, (0.5 * logvar).exp())", "No gradient flows"),
        (
            "def reparameterise(mean, logvar, generator): return mean + logvar.exp() * torch.randn(mean.shape, generator=generator)",
            "the variance, not its root",
        ),
        (
            "def reparameterise(mean, logvar, generator): return mean + (0.5 * logvar).exp() * torch.randn(mean.shape[1:], generator=generator)",
            "same noise",
        ),
        (
            "def reparameterise(mean, logvar, generator):\n"
            "    return mean + (0.5 * logvar).exp().detach() * torch.randn(mean.shape, generator=generator)",
            "does not reach the log-variance",
        ),
        (
            "def reparameterise(mean, logvar, generator): return (0.5 * logvar).exp() * torch.randn(mean.shape, generator=generator)",
            "should be 2 and 0.5",
        ),
    ],
    "kl_weight": [
        ("def kl_weight(step, total): return step / (0.3 * total)", "stays at 1"),
        ("def kl_weight(step, total): return 0.3 * step / total", "never reaches 1"),
        ("def kl_weight(step, total): return step / total", "should be 0.5"),
        ("def kl_weight(step, total): return 1.0", "At step 0"),
    ],
    "slerp": [
        ("def slerp(a, b, t): return (1 - t) * a + t * b", "straight line"),
        (
            "def slerp(a, b, t):\n    p = (1 - t) * a + t * b\n    return p / p.norm() * ((1 - t) * a.norm() + t * b.norm())",
            "third of the angle",
        ),
        (
            "def slerp(a, b, t):\n    w = torch.acos(torch.dot(a, b) / (a.norm() * b.norm()))\n"
            "    return (torch.sin(t * w) * a + torch.sin((1 - t) * w) * b) / torch.sin(w)",
            "t = 0 should give a",
        ),
    ],
    "importance_weighted": [
        ("def importance_weighted(log_weights): return -log_weights.mean(0)", "that is the ELBO"),
        ("def importance_weighted(log_weights): return -log_weights.exp().mean(0).log()", "logsumexp"),
        ("def importance_weighted(log_weights): return -torch.logsumexp(log_weights, 0)", "smaller by log k"),
        ("def importance_weighted(log_weights): return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))", "mind the sign"),
        ("def importance_weighted(log_weights): return -torch.logsumexp(log_weights, 1)", "should have shape"),
    ],
    "my_vae": [
        (
            "def my_vae(train):\n    model = MLPVAE(20, (400,))\n    with torch.no_grad():\n"
            "        for p in model.encoder[-1].parameters():\n            p.zero_()\n    return model.eval()",
            "posterior collapsed",
        ),
        (
            "def my_vae(train):\n    model = MLPVAE(20, (400,))\n    with torch.no_grad():\n"
            "        model.encoder[-1].weight.mul_(30)\n    return model.eval()",
            "train longer",
        ),
    ],
}

WRONG |= wrong_answers_latent_uses.WRONG  # notebook 03
WRONG |= wrong_answers_variants.WRONG  # notebook 04
WRONG |= wrong_answers_dogs.WRONG  # notebook 05
WRONG |= wrong_answers_diffusers.WRONG  # notebook 06
WRONG |= wrong_answers_text_to_image.WRONG  # notebook 07
