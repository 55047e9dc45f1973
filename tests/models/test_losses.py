"""Losses: against torch.distributions, per image, in float32, and the same whatever the batch."""

import inspect
import math

import pytest
import torch
from torch.distributions import Bernoulli, Independent, Laplace, Normal

from helpers import CourseError
from helpers.models import losses
from helpers.models.distributions import DiagonalGaussian, VAEOutput

SHAPE = (5, 3, 7, 4)  # neither square nor of equal height and width
PUBLIC = {
    name: function
    for name, function in inspect.getmembers(losses, inspect.isfunction)
    if function.__module__ == losses.__name__ and not name.startswith("_")
}
every_loss = pytest.mark.parametrize("name", sorted(PUBLIC))


def tensors(dtype=torch.float64) -> dict[str, torch.Tensor]:
    """What a loss may be given: "decoded" (logits or means), "x", and a posterior."""
    generator = torch.Generator().manual_seed(4)
    made = {
        name: torch.randn(SHAPE, generator=generator, dtype=torch.float64)
        for name in ("decoded", "mean", "logvar")
    }
    made["x"] = torch.rand(SHAPE, generator=generator, dtype=torch.float64)
    return {name: tensor.to(dtype) for name, tensor in made.items()}


def call(name: str, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The terms of a public loss; one without terms gives {"loss": tensor}."""
    decoded = values["decoded"]
    if name == "negative_elbo":
        posterior = DiagonalGaussian(values["mean"], values["logvar"])
        return losses.negative_elbo(VAEOutput(decoded, posterior, values["mean"]), values["x"])
    return {"loss": PUBLIC[name](decoded, values["x"])}


@every_loss
def test_one_number_per_image_whatever_the_batch(name):
    values = tensors()
    before = {k: v.clone() for k, v in values.items()}
    whole = call(name, values)
    assert all(torch.equal(values[k], before[k]) for k in values)  # no argument is changed
    parts = [
        call(name, {k: v[rows] for k, v in values.items()}) for rows in (slice(0, 2), slice(2, 5))
    ]
    for term, value in whole.items():
        assert value.shape == (5,), term
        torch.testing.assert_close(value, torch.cat([part[term] for part in parts]), msg=term)


@every_loss
def test_float32_under_autocast_and_float64_stays(name):
    values = tensors(torch.float32)
    plain = call(name, values)
    with torch.autocast("cpu", torch.bfloat16):
        cast = call(name, values)
        half = call(name, {k: v.bfloat16() for k, v in values.items()})
    rounded = call(name, {k: v.bfloat16().float() for k, v in values.items()})
    for term in plain:
        assert plain[term].dtype == cast[term].dtype == half[term].dtype == torch.float32, term
        torch.testing.assert_close(cast[term], plain[term], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(half[term], rounded[term], rtol=1e-6, atol=1e-6)
    assert all(v.dtype == torch.float64 for v in call(name, tensors()).values())


def test_bernoulli_against_torch():
    values = tensors()
    binary = (values["x"] > 0.5).double()
    truth = -Independent(Bernoulli(logits=values["decoded"]), 3).log_prob(binary)
    torch.testing.assert_close(losses.bernoulli_nll(values["decoded"], binary), truth)


def test_bernoulli_of_grey_pixels_is_the_cross_entropy():
    values = tensors()
    x, p = values["x"], values["decoded"].sigmoid()
    truth = -(x * p.log() + (1 - x) * (1 - p).log()).sum((1, 2, 3))
    torch.testing.assert_close(losses.bernoulli_nll(values["decoded"], x), truth)


def test_bernoulli_of_sure_logits_is_finite():
    logits = torch.tensor([[200.0, -200.0]])
    assert losses.bernoulli_nll(logits, torch.zeros(1, 2)).tolist() == [200.0]


@pytest.mark.parametrize("width", [1.0, 0.1])
@pytest.mark.parametrize(
    ("nll", "family"), [(losses.gaussian_nll, Normal), (losses.laplace_nll, Laplace)]
)
def test_gaussian_and_laplace_against_torch(nll, family, width):
    values = tensors()
    truth = -Independent(family(values["decoded"], width), 3).log_prob(values["x"])
    torch.testing.assert_close(nll(values["decoded"], values["x"], width), truth)


def test_calibrated_is_the_best_gaussian_of_each_image():
    values = tensors()
    mean, x = values["decoded"], values["x"]
    calibrated = losses.calibrated_gaussian_nll(mean, x)
    sigmas = (mean - x).square().flatten(1).mean(1).sqrt()
    for image, sigma in enumerate(sigmas.tolist()):
        part = mean[image : image + 1], x[image : image + 1]
        torch.testing.assert_close(calibrated[image], losses.gaussian_nll(*part, sigma)[0])
        others = [losses.gaussian_nll(*part, sigma * factor) for factor in (0.5, 0.9, 1.1, 2.0)]
        assert (torch.stack(others) > calibrated[image]).all()


@pytest.mark.parametrize("nll", [losses.laplace_nll, losses.calibrated_gaussian_nll])
def test_a_perfect_image_has_a_finite_loss_and_gradient(nll):
    x = torch.rand(2, 1, 3, 5)
    mean = x.clone().requires_grad_()
    value = nll(mean, x)
    value.sum().backward()
    assert torch.isfinite(value).all() and torch.isfinite(mean.grad).all()


def test_negative_elbo_adds_its_two_terms():
    values = tensors()
    posterior = DiagonalGaussian(values["mean"], values["logvar"])
    output = VAEOutput(values["decoded"], posterior, values["mean"])
    terms = losses.negative_elbo(output, values["x"], nll=losses.gaussian_nll, beta=4.0)
    reconstruction = losses.gaussian_nll(values["decoded"], values["x"])
    torch.testing.assert_close(terms["reconstruction"], reconstruction)
    torch.testing.assert_close(terms["kl"], posterior.kl())
    torch.testing.assert_close(terms["loss"], reconstruction + 4 * posterior.kl())


def test_the_unit_is_nats_per_image():
    """A coin for each of 35 pixels costs 35 · log 2."""
    cost = losses.bernoulli_nll(torch.zeros(2, 1, 5, 7), torch.ones(2, 1, 5, 7))
    torch.testing.assert_close(cost, torch.full((2,), 35 * math.log(2)))


@pytest.mark.parametrize(
    "nll", [losses.gaussian_nll, losses.laplace_nll, losses.calibrated_gaussian_nll]
)
def test_shapes_that_would_broadcast_are_one_sentence(nll):
    with pytest.raises(CourseError, match="must be equal"):
        nll(torch.rand(4, 1, 3, 5), torch.rand(4, 3, 5))
