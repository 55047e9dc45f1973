"""Uses of a latent space: each against a case whose answer is known."""

import pytest
import torch
from torch import nn

from helpers.metrics import latent_uses
from helpers.models.distributions import DiagonalGaussian
from helpers.models.losses import bernoulli_nll
from helpers.models.mlp_vae import MLPVAE
from helpers.rng import generator_for


class Stripes(nn.Module):
    """A VAE of pictures whose halves have one logit each: the two dimensions of its latent."""

    def encode(self, x):
        halves = torch.stack([x[:, 0, :14].mean((1, 2)), x[:, 0, 14:].mean((1, 2))], dim=1)
        mean = halves.clamp(0.01, 0.99).logit()
        return DiagonalGaussian(mean, torch.full_like(mean, -8.0))

    def decode(self, z):
        return z[:, [0] * 14 + [1] * 14, None].unsqueeze(1).expand(-1, 1, 28, 28)


class Mirror(nn.Module):
    """One latent dimension only: both halves are alike."""

    def encode(self, x):
        mean = x.mean((1, 2, 3))[:, None].clamp(0.01, 0.99).logit()
        return DiagonalGaussian(mean, torch.full_like(mean, -8.0))

    def decode(self, z):
        return z[:, :, None, None].expand(-1, 1, 28, 28)


def halves(*pairs: tuple[float, float]) -> torch.Tensor:
    """Images with these values in their upper and lower half."""
    x = torch.empty(len(pairs), 1, 28, 28)
    for image, (upper, lower) in zip(x, pairs, strict=True):
        image[:, :14] = upper
        image[:, 14:] = lower
    return x


UPPER = torch.zeros(1, 1, 28, 28, dtype=torch.bool)
UPPER[:, :, :14] = True


# --- anomaly scores ---


def test_scores_are_what_they_say():
    torch.manual_seed(0)
    model, x = MLPVAE(4, (16,)), torch.rand(6, 1, 28, 28, generator=generator_for("x"))
    found = latent_uses.anomaly_scores(model, x, seed=3)
    posterior = model.encode(x)
    decoded = [torch.sigmoid(model.decode(mean[None]))[0] for mean in posterior.mean]
    errors = [(a - b).square().sum() for a, b in zip(decoded, x, strict=True)]
    torch.testing.assert_close(found["reconstruction error"], torch.stack(errors))
    torch.testing.assert_close(found["latent distance"], posterior.mean.norm(dim=1) ** 2)
    z = posterior.sample(generator_for("strangeness", 3))  # of the published numbers
    negative_elbo = bernoulli_nll(model.decode(z), x) + posterior.kl()
    torch.testing.assert_close(found["negative ELBO"], negative_elbo)


def test_a_picture_that_the_model_cannot_draw_is_an_outlier():
    chessboard = (torch.arange(28)[:, None] + torch.arange(28)) % 2
    x = torch.cat([halves((0.2, 0.8)), chessboard.float().view(1, 1, 28, 28)])
    found = latent_uses.anomaly_scores(Stripes(), x)
    assert found["reconstruction error"][0] < 1e-3 < 100 < found["reconstruction error"][1]
    assert found["negative ELBO"][0] < found["negative ELBO"][1]


# --- inpainting ---


def test_masks_hide_what_their_names_say():
    found = latent_uses.inpainting_masks(200)
    lower, square, scattered = found.values()
    assert list(found) == ["the lower half", "a square", "half of the pixels"]
    assert not lower[:, :, 14:].any() and lower[:, :, :14].all()
    assert (~square).sum() == 200 * 100 and not square[:, :, 9:19, 9:19].any()
    assert abs(scattered.float().mean() - 0.5) < 0.01
    assert len(scattered.flatten(1).unique(dim=0)) == 200  # another half for each picture


@pytest.mark.parametrize(
    "inpaint", [latent_uses.inpaint_by_iteration, latent_uses.inpaint_by_search]
)
def test_what_is_known_stays_and_the_rest_follows_from_it(inpaint):
    x, known = halves((0.8, 0.1), (0.3, 0.9)), UPPER.expand(2, -1, -1, -1)
    filled = inpaint(Mirror(), x, known, start=torch.full_like(x, 0.5))
    assert torch.equal(filled[known], x[known])
    torch.testing.assert_close(filled[:, 0, 20, 0], torch.tensor([0.8, 0.3]), rtol=0, atol=0.02)


def test_the_search_finds_the_most_probable_code_of_what_is_known():
    """There the slope of -log p(known|z) - log p(z), Σ (σ(z) - x) over known pixels + z, is 0."""
    counts = torch.tensor([1, 4, 40, 1, 4, 40])
    given = torch.tensor([0.9, 0.9, 0.9, 0.0, 0.0, 0.0])
    x = given.view(-1, 1, 1, 1).repeat(1, 1, 28, 28)
    known = (torch.arange(784) < counts[:, None]).view(-1, 1, 28, 28)
    start = torch.full_like(x, 0.5)
    filled = latent_uses.inpaint_by_search(Mirror(), x, known, start, steps=400)
    p = filled[:, 0, -1, -1]
    torch.testing.assert_close(counts * (p - given) + p.logit(), torch.zeros(6), rtol=0, atol=2e-3)


def test_the_search_leaves_the_model_as_it_is():
    torch.manual_seed(0)
    model, x = MLPVAE(4, (16,)), torch.rand(2, 1, 28, 28)
    before = [weight.clone() for weight in model.parameters()]
    known = UPPER.expand(2, -1, -1, -1)
    latent_uses.inpaint_by_search(model, x, known, torch.zeros_like(x), steps=3)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(weight.grad is None for weight in model.parameters())


def test_the_neighbour_is_nearest_on_the_known_pixels_alone():
    train = halves((0.0, 1.0), (1.0, 0.0), (0.5, 0.5))
    x = halves((0.9, 0.9), (0.1, 0.1))
    filled = latent_uses.inpaint_by_neighbour(train, x, UPPER.expand(2, -1, -1, -1))
    torch.testing.assert_close(filled, halves((0.9, 0.0), (0.1, 1.0)))


# --- few labels ---


def test_a_stratified_subset_has_equally_many_of_each_class():
    labels = torch.tensor([0] * 90 + [1] * 10 + [2] * 50)
    chosen = latent_uses.stratified_subset(labels, 17)
    assert torch.bincount(labels[chosen]).tolist() == [5, 5, 5]
    assert len(set(chosen.tolist())) == 15
    assert torch.equal(chosen, latent_uses.stratified_subset(labels, 17))
    assert not torch.equal(chosen, latent_uses.stratified_subset(labels, 17, seed=1))


def test_the_probe_tells_what_a_line_can_tell():
    generator = generator_for("probe")
    codes, labels = torch.randn(400, 2, generator=generator), torch.arange(400) % 2
    train, test = slice(0, 200), slice(200, 400)
    apart = codes + 6 * labels[:, None]
    ring = codes / codes.norm(dim=1, keepdim=True) * (1 + 2 * labels[:, None])
    share = latent_uses.probe(apart[train], labels[train], apart[test], labels[test])
    assert share > 0.99
    share = latent_uses.probe(ring[train], labels[train], ring[test], labels[test])
    assert share < 0.7  # no line tells a ring from its middle


def test_the_probe_leaves_unused_dimensions_as_small_as_they_are():
    generator = generator_for("unused")
    labels = torch.arange(2040) % 2
    codes = 0.02 * torch.randn(2040, 200, generator=generator)  # of 200 dimensions one is used
    codes[:, 0] = labels - 0.5 + 0.2 * torch.randn(2040, generator=generator)
    assert latent_uses.probe(codes[:40], labels[:40], codes[40:], labels[40:]) > 0.95


# --- directions, compression ---


@pytest.mark.parametrize("lean", [0.0, 0.5, -0.25])
def test_slant_of_a_stroke_is_its_lean_wherever_it_stands(lean):
    columns = torch.arange(28.0)
    image = torch.zeros(1, 1, 28, 28)
    for row in range(6, 20):
        image[0, 0, row] = torch.exp(-0.5 * (columns - 13 - lean * (row - 12.5)).square())
    strokes = torch.cat([image, 0.3 * image, image.roll((4, 3), (2, 3))])
    expected = torch.full((3,), lean)
    torch.testing.assert_close(latent_uses.measured_slant(strokes), expected, atol=1e-2, rtol=0)


def test_jpeg_counts_the_picture_and_not_its_tables():
    images = torch.rand(4, 1, 28, 28, generator=generator_for("jpeg"))
    coarse, fine = latent_uses.jpeg(images, 1), latent_uses.jpeg(images, 90)
    assert coarse[0] < 150 < fine[0] < 1200 and fine[1] < 0.01 < coarse[1]
    flat, error = latent_uses.jpeg(torch.full((2, 1, 28, 28), 0.5), 50)
    assert flat < 40 and error < 1e-4
