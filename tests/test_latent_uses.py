"""Uses of a latent space: each against a case whose answer is known."""

import pytest
import torch

from helpers import latent_uses
from helpers.budget import generator_for
from helpers.distributions import DiagonalGaussian
from helpers.losses import bernoulli_nll
from helpers.mlp import MLPVAE


class Stripes(torch.nn.Module):
    """A VAE of pictures whose upper and lower half have one logit each: the two numbers of its code."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def encode(self, x):
        halves = torch.stack([x[:, 0, :14].mean((1, 2)), x[:, 0, 14:].mean((1, 2))], dim=1).clamp(0.01, 0.99)
        return DiagonalGaussian(halves.logit(), torch.full_like(halves, -8.0))

    def decode(self, z):
        return z[:, [0] * 14 + [1] * 14, None].unsqueeze(1).expand(-1, 1, 28, 28)


class Mirror(Stripes):
    """One number only: both halves are alike."""

    def encode(self, x):
        mean = x.mean((1, 2, 3))[:, None].clamp(0.01, 0.99).logit()
        return DiagonalGaussian(mean, torch.full_like(mean, -8.0))

    def decode(self, z):
        return z[:, :, None, None].expand(-1, 1, 28, 28)


def halves(*pairs: tuple[float, float]) -> torch.Tensor:
    x = torch.empty(len(pairs), 1, 28, 28)
    for image, (upper, lower) in zip(x, pairs, strict=True):
        image[:, :14], image[:, 14:] = upper, lower
    return x


UPPER = torch.zeros(1, 1, 28, 28, dtype=torch.bool)
UPPER[:, :, :14] = True


def test_scores_are_what_they_say():
    torch.manual_seed(0)
    model, x = MLPVAE(4, (16,)), torch.rand(6, 1, 28, 28, generator=generator_for("x"))
    found = latent_uses.strangeness(model, x)
    posterior = model.encode(x)
    decoded = [torch.sigmoid(model.decode(mean[None]))[0] for mean in posterior.mean]
    errors = [(a - b).square().sum() for a, b in zip(decoded, x, strict=True)]
    torch.testing.assert_close(found["reconstruction error"], torch.stack(errors))
    torch.testing.assert_close(found["latent distance"], posterior.mean.norm(dim=1) ** 2)
    z = posterior.sample(generator_for("strangeness", 0))
    torch.testing.assert_close(found["negative ELBO"], bernoulli_nll(model.decode(z), x) + posterior.kl())


def test_a_picture_that_the_model_cannot_draw_is_strange():
    chessboard = (torch.arange(28)[:, None] + torch.arange(28)) % 2
    x = torch.cat([halves((0.2, 0.8)), chessboard.float().view(1, 1, 28, 28)])
    found = latent_uses.strangeness(Stripes(), x)
    assert found["reconstruction error"][0] < 1e-3 < 100 < found["reconstruction error"][1]
    assert found["negative ELBO"][0] < found["negative ELBO"][1]


@pytest.mark.parametrize("complete", [latent_uses.complete_by_iteration, latent_uses.complete_by_search])
def test_what_is_known_stays_and_the_rest_follows_from_it(complete):
    x, known = halves((0.8, 0.1), (0.3, 0.9)), UPPER.expand(2, -1, -1, -1)
    filled = complete(Mirror(), x, known, start=torch.full_like(x, 0.5))
    assert torch.equal(filled[known], x[known])
    torch.testing.assert_close(filled[:, 0, 20, 0], torch.tensor([0.8, 0.3]), rtol=0, atol=0.02)


def test_the_search_leaves_the_model_as_it_is():
    torch.manual_seed(0)
    model, x = MLPVAE(4, (16,)), torch.rand(2, 1, 28, 28)
    before = [weight.clone() for weight in model.parameters()]
    latent_uses.complete_by_search(model, x, UPPER.expand(2, -1, -1, -1), torch.zeros_like(x), steps=3)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("count", [1, 4, 40])
def test_the_search_finds_the_most_probable_code_of_what_is_known(count):
    """The slope of -log p(known|z) - log p(z) is zero there: the sum of (σ(z) - x) over the known pixels, plus z."""
    x, known = torch.zeros(2, 1, 28, 28), torch.zeros(2, 1, 28, 28, dtype=torch.bool)
    x[0] = 0.9
    known.view(2, -1)[:, :count] = True
    filled = latent_uses.complete_by_search(Mirror(), x, known, torch.full_like(x, 0.5), steps=400)
    p, given = filled[:, 0, -1, -1], torch.tensor([0.9, 0.0])
    torch.testing.assert_close(count * (p - given) + p.logit(), torch.zeros(2), rtol=0, atol=2e-3)
    assert torch.equal(filled[known], x[known])


def test_the_neighbour_is_nearest_on_the_known_pixels_alone():
    train = halves((0.0, 1.0), (1.0, 0.0), (0.5, 0.5))
    x = halves((0.9, 0.9), (0.1, 0.1))
    filled = latent_uses.complete_by_neighbour(train, x, UPPER.expand(2, -1, -1, -1))
    torch.testing.assert_close(filled, halves((0.9, 0.0), (0.1, 1.0)))


def test_few_labels_are_equally_many_of_each_class():
    labels = torch.tensor([0] * 90 + [1] * 10 + [2] * 50)
    chosen = latent_uses.few_labels(labels, 15)
    assert torch.bincount(labels[chosen]).tolist() == [5, 5, 5] and len(set(chosen.tolist())) == 15
    assert not torch.equal(chosen, latent_uses.few_labels(labels, 15, seed=1))


def test_the_probe_tells_what_a_line_can_tell():
    generator = generator_for("probe")
    codes, labels = torch.randn(400, 2, generator=generator), torch.arange(400) % 2
    apart = codes + 6 * labels[:, None]
    assert latent_uses.probe(apart[:200], labels[:200], apart[200:], labels[200:]) > 0.99
    ring = codes / codes.norm(dim=1, keepdim=True) * (1 + 2 * labels[:, None])  # no line tells a ring from its middle
    assert latent_uses.probe(ring[:200], labels[:200], ring[200:], labels[200:]) < 0.7


def test_the_probe_leaves_numbers_that_a_vae_does_not_use_as_small_as_they_are():
    generator = generator_for("unused")
    labels = torch.arange(2040) % 2
    codes = 0.02 * torch.randn(2040, 200, generator=generator)  # of 200 numbers one is used
    codes[:, 0] = labels - 0.5 + 0.2 * torch.randn(2040, generator=generator)
    assert latent_uses.probe(codes[:40], labels[:40], codes[40:], labels[40:]) > 0.95


def test_masks_hide_what_their_names_say():
    found = latent_uses.masks(200)
    assert not found["the lower half"][:, :, 14:].any() and found["the lower half"][:, :, :14].all()
    assert (~found["a square"]).sum() == 200 * 100 and not found["a square"][:, :, 9:19, 9:19].any()
    assert abs(found["half of the pixels"].float().mean() - 0.5) < 0.01
    assert len(found["half of the pixels"].flatten(1).unique(dim=0)) == 200  # another half for each picture


@pytest.mark.parametrize("lean", [0.0, 0.5, -0.25])
def test_slant_of_a_stroke_is_its_lean_wherever_it_stands(lean):
    columns = torch.arange(28.0)
    image = torch.zeros(1, 1, 28, 28)
    for row in range(6, 20):
        image[0, 0, row] = torch.exp(-0.5 * (columns - 13 - lean * (row - 12.5)).square())
    for stroke in (image, 0.3 * image, image.roll((4, 3), (2, 3))):
        torch.testing.assert_close(latent_uses.measured_slant(stroke), torch.tensor([lean]), atol=1e-2, rtol=0)


def test_jpeg_counts_the_picture_and_not_its_tables():
    images = torch.rand(4, 1, 28, 28, generator=generator_for("jpeg"))
    coarse, fine = latent_uses.jpeg(images, 1), latent_uses.jpeg(images, 90)
    assert coarse[0] < 150 < fine[0] < 1200 and fine[1] < 0.01 < coarse[1]
    flat, error = latent_uses.jpeg(torch.full((2, 1, 28, 28), 0.5), 50)
    assert flat < 40 and error < 1e-4
