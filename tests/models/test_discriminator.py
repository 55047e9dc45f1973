"""The adversarial recipe: who learns from which loss, and the published formulas."""

import pytest
import torch
from torch import nn

from helpers.models.conv_vae import ConvVAE, VAEConfig
from helpers.models.discriminator import (
    VAEGAN,
    PatchDiscriminator,
    adaptive_weight,
    hinge_loss,
    vae_gan_loss,
)
from helpers.rng import generator_for

TINY = VAEConfig((8, 8), latent_channels=2, blocks=1, groups=2)


@pytest.fixture
def model() -> VAEGAN:
    torch.manual_seed(0)
    return VAEGAN(ConvVAE(TINY), PatchDiscriminator(width=8, layers=2, groups=2))


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    return {"images": torch.rand(3, 3, 24, 32, generator=generator_for(1))}


def total_gradient(module: nn.Module) -> float:
    gradients = [weight.grad for weight in module.parameters() if weight.grad is not None]
    return sum(float(gradient.abs().sum()) for gradient in gradients)


@pytest.mark.parametrize(("layers", "field"), [(2, 34), (3, 70)])
def test_each_logit_looks_at_one_patch(layers, field):
    discriminator = PatchDiscriminator(width=8, layers=layers, groups=2)
    for norm in (m for m in discriminator.modules() if isinstance(m, nn.GroupNorm)):
        norm.forward = lambda h: h  # it looks at the whole picture; the convolutions do not
    x = torch.rand(1, 3, 96, 128).requires_grad_()
    logits = discriminator(x)
    assert logits.shape[:2] == (1, 1) and logits.shape[2] < logits.shape[3]

    middle = logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2]
    (reached,) = torch.autograd.grad(middle, x)
    rows, columns = (reached.abs().sum((0, 1)) > 0).nonzero().T
    assert int(rows.max() - rows.min()) + 1 == field
    assert int(columns.max() - columns.min()) + 1 == field


def test_the_discriminator_takes_pixels_from_0_to_1():
    discriminator = PatchDiscriminator(width=8, layers=2, groups=2)
    x = torch.rand(2, 3, 24, 32)
    torch.testing.assert_close(discriminator(x), discriminator.layers((x - 0.5) / 0.5))


def test_hinge_loss_asks_for_margins_of_1():
    real, fake = torch.tensor([[[[2.0, 0.5]]]]), torch.tensor([[[[-3.0, 0.0]]]])
    assert hinge_loss(real, fake).tolist() == [0.5 * ((0 + 0.5) / 2 + (0 + 1) / 2)]


def test_adaptive_weight_is_the_ratio_of_the_gradients():
    last = torch.tensor([3.0, 4.0], requires_grad=True)
    nll = (last * torch.tensor([6.0, 8.0])).sum()
    generator_loss = (last * torch.tensor([0.0, 0.5])).sum()
    weight = adaptive_weight(nll, generator_loss, last)
    assert float(weight) == pytest.approx(10 / (0.5 + 1e-4)) and not weight.requires_grad
    assert float(adaptive_weight(nll, (last * 1e-9).sum(), last)) == 1e4
    with torch.no_grad():
        assert float(adaptive_weight(nll, generator_loss, last)) == 0


def test_the_discriminator_learns_from_its_own_loss_only(model, batch):
    vae_gan_loss(model, batch, generator_for(0))["loss"].mean().backward()
    together = [weight.grad.clone() for weight in model.discriminator.parameters()]
    model.zero_grad()
    vae_gan_loss(model, batch, generator_for(0))["discriminator"].mean().backward()
    assert total_gradient(model.vae) == 0 and total_gradient(model.discriminator) > 0
    for weight, expected in zip(model.discriminator.parameters(), together, strict=True):
        torch.testing.assert_close(weight.grad, expected)


def test_the_vae_learns_from_the_generator_loss(model, batch):
    vae_gan_loss(model, batch, generator_for(0))["generator"].mean().backward()
    assert total_gradient(model.discriminator) == 0 and total_gradient(model.vae) > 0


def test_the_loss_is_stable_diffusions_sum(model, batch):
    x = batch["images"]
    terms = vae_gan_loss(model, batch, generator_for(0), beta=0.25, adversarial=0.5)
    made = model(x, generator_for(0))
    inside = [2 * image - 1 for image in (made.vae.decoded, x)]  # errors are published in [-1, 1]
    error = (inside[0] - inside[1]).abs().flatten(1).sum(1)
    torch.testing.assert_close(terms["reconstruction"], error)
    torch.testing.assert_close(terms["generator"], -made.fake.mean((1, 2, 3)))
    torch.testing.assert_close(terms["discriminator"], hinge_loss(made.real, made.fake))

    last = model.vae.decoder.conv_out.weight
    weight = adaptive_weight(error.mean(), -made.generated.mean(), last)
    assert float(weight) > 0
    plain = error + 0.25 * terms["kl"] + terms["discriminator"]
    whole = plain + 0.5 * weight * terms["generator"]
    torch.testing.assert_close(terms["loss"], whole, rtol=1e-5, atol=1e-3)
    without = vae_gan_loss(model, batch, generator_for(0), beta=0.25, adversarial=0.0)
    torch.testing.assert_close(without["loss"], plain)


def test_the_perceptual_distance_counts_once_for_every_value_of_the_image(model, batch):
    class Constant(nn.Module):
        def forward(self, a, b):
            return torch.full((len(a),), 0.01)

    plain = vae_gan_loss(model, batch, generator_for(0))["reconstruction"]
    model.distance = Constant()
    more = vae_gan_loss(model, batch, generator_for(0))["reconstruction"]
    expected = torch.full((3,), 0.01 * 3 * 24 * 32)
    torch.testing.assert_close(more - plain, expected, rtol=1e-3, atol=1e-3)
