"""Losses: against torch.distributions, per image, in float32, and the same whatever the batch."""

import inspect
import math

import pytest
import torch
from torch.distributions import Bernoulli, Independent, Laplace, Normal, kl_divergence

from helpers import CourseError, losses
from helpers.distributions import DiagonalGaussian
from helpers.mlp import VAEOutput

SHAPE = (5, 3, 7, 4)  # neither square nor of equal height and width
PUBLIC = {
    name: function
    for name, function in inspect.getmembers(losses, inspect.isfunction)
    if function.__module__ == losses.__name__ and not name.startswith("_")
}


def tensors(dtype=torch.float64) -> dict[str, torch.Tensor]:
    """What a loss may ask for, by the name of its argument."""
    generator = torch.Generator().manual_seed(4)
    made = {name: torch.randn(SHAPE, generator=generator, dtype=torch.float64) for name in ("logits", "mean", "logvar")}
    made["x"] = torch.rand(SHAPE, generator=generator, dtype=torch.float64)
    return {name: tensor.to(dtype) for name, tensor in made.items()}


def call(function, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Call a loss with the arguments that it requires; one tensor becomes {"loss": tensor}."""
    output = VAEOutput(values["logits"], DiagonalGaussian(values["mean"], values["logvar"]), values["mean"])
    known = values | {"output": output}
    wanted = [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    assert set(wanted) <= set(known), f"this test cannot make {set(wanted) - set(known)}: add it to `tensors`"
    result = function(*(known[name] for name in wanted))
    return result if isinstance(result, dict) else {"loss": result}


every_loss = pytest.mark.parametrize("name", sorted(PUBLIC))


def test_the_losses_are_found():
    assert {"bernoulli_nll", "gaussian_nll", "laplace_nll", "kl_standard_normal", "negative_elbo"} <= set(PUBLIC)


@every_loss
def test_one_number_per_image_whatever_the_batch(name):
    values = tensors()
    whole = call(PUBLIC[name], values)
    parts = [call(PUBLIC[name], {k: v[rows] for k, v in values.items()}) for rows in (slice(0, 2), slice(2, 5))]
    for term, value in whole.items():
        assert value.shape == (5,), term
        torch.testing.assert_close(value, torch.cat([part[term] for part in parts]), msg=term)


@every_loss
def test_float32_under_autocast_and_float64_stays(name):
    values = tensors(torch.float32)
    plain = call(PUBLIC[name], values)
    with torch.autocast("cpu", torch.bfloat16):
        cast = call(PUBLIC[name], values)
        half = call(PUBLIC[name], {k: v.bfloat16() for k, v in values.items()})
    rounded = call(PUBLIC[name], {k: v.bfloat16().float() for k, v in values.items()})
    for term in plain:
        assert plain[term].dtype == cast[term].dtype == half[term].dtype == torch.float32, term
        torch.testing.assert_close(cast[term], plain[term], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(half[term], rounded[term], rtol=1e-6, atol=1e-6)
    assert all(v.dtype == torch.float64 for v in call(PUBLIC[name], tensors()).values())


@every_loss
def test_no_argument_is_changed(name):
    values = tensors()
    before = {k: v.clone() for k, v in values.items()}
    call(PUBLIC[name], values)
    assert all(torch.equal(values[k], before[k]) for k in values)


@every_loss
def test_gradients_are_finite(name):
    values = {k: v.requires_grad_() for k, v in tensors().items()}
    call(PUBLIC[name], values)["loss"].sum().backward()
    gradients = [v.grad for v in values.values() if v.grad is not None]
    assert gradients and all(torch.isfinite(g).all() for g in gradients)


def test_bernoulli_against_torch():
    values = tensors()
    binary = (values["x"] > 0.5).double()
    truth = -Independent(Bernoulli(logits=values["logits"]), 3).log_prob(binary)
    torch.testing.assert_close(losses.bernoulli_nll(values["logits"], binary), truth)


def test_bernoulli_of_grey_pixels_is_the_cross_entropy():
    values = tensors()
    x, p = values["x"], values["logits"].sigmoid()
    truth = -(x * p.log() + (1 - x) * (1 - p).log()).sum((1, 2, 3))
    torch.testing.assert_close(losses.bernoulli_nll(values["logits"], x), truth)


def test_bernoulli_of_sure_logits_is_finite():
    logits = torch.tensor([[200.0, -200.0]])
    torch.testing.assert_close(losses.bernoulli_nll(logits, torch.tensor([[0.0, 0.0]])), torch.tensor([200.0]))


@pytest.mark.parametrize("sigma", [1.0, 0.1])
def test_gaussian_against_torch(sigma):
    values = tensors()
    truth = -Independent(Normal(values["mean"], sigma), 3).log_prob(values["x"])
    torch.testing.assert_close(losses.gaussian_nll(values["mean"], values["x"], sigma), truth)


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_laplace_against_torch(scale):
    values = tensors()
    truth = -Independent(Laplace(values["mean"], scale), 3).log_prob(values["x"])
    torch.testing.assert_close(losses.laplace_nll(values["mean"], values["x"], scale), truth)


def test_laplace_of_a_perfect_image_has_a_finite_gradient():
    x = torch.rand(2, 1, 3, 5)
    mean = x.clone().requires_grad_()
    value = losses.laplace_nll(mean, x)
    value.sum().backward()
    torch.testing.assert_close(value, torch.full((2,), 15 * math.log(2)))
    assert torch.isfinite(mean.grad).all()


def test_kl_against_torch():
    values = tensors()
    q = Independent(Normal(values["mean"], (values["logvar"] / 2).exp()), 3)
    p = Independent(Normal(torch.zeros(SHAPE[1:]).double(), 1.0), 3)
    torch.testing.assert_close(losses.kl_standard_normal(values["mean"], values["logvar"]), kl_divergence(q, p))


def test_calibrated_is_the_best_gaussian_of_each_image():
    values = tensors()
    mean, x = values["mean"], values["x"]
    calibrated = losses.calibrated_gaussian_nll(mean, x)
    sigmas = (mean - x).square().flatten(1).mean(1).sqrt()
    for image, sigma in enumerate(sigmas.tolist()):
        part = mean[image : image + 1], x[image : image + 1]
        torch.testing.assert_close(calibrated[image], losses.gaussian_nll(*part, sigma)[0])
        others = torch.stack([losses.gaussian_nll(*part, sigma * factor)[0] for factor in (0.5, 0.9, 1.1, 2.0)])
        assert (others > calibrated[image]).all()


def test_calibrated_of_a_perfect_image_is_finite():
    x = torch.rand(2, 1, 3, 5).requires_grad_()
    value = losses.calibrated_gaussian_nll(x, x.detach())
    value.sum().backward()
    assert torch.isfinite(value).all() and torch.isfinite(x.grad).all()


def test_negative_elbo_adds_its_two_terms():
    values = tensors()
    output = VAEOutput(values["mean"], DiagonalGaussian(values["mean"], values["logvar"]), values["mean"])
    terms = losses.negative_elbo(output, values["x"], nll=losses.gaussian_nll, beta=4.0)
    torch.testing.assert_close(terms["reconstruction"], losses.gaussian_nll(values["mean"], values["x"]))
    torch.testing.assert_close(terms["kl"], losses.kl_standard_normal(values["mean"], values["logvar"]))
    torch.testing.assert_close(terms["loss"], terms["reconstruction"] + 4 * terms["kl"])


def test_the_unit_is_nats_per_image():
    """A coin for each of 35 pixels costs 35 · log 2."""
    cost = losses.bernoulli_nll(torch.zeros(2, 1, 5, 7), torch.ones(2, 1, 5, 7))
    torch.testing.assert_close(cost, torch.full((2,), 35 * math.log(2)))


@pytest.mark.parametrize("nll", [losses.gaussian_nll, losses.laplace_nll, losses.calibrated_gaussian_nll])
def test_shapes_that_would_broadcast_are_one_sentence(nll):
    with pytest.raises(CourseError, match="must be equal"):
        nll(torch.rand(4, 1, 3, 5), torch.rand(4, 3, 5))
