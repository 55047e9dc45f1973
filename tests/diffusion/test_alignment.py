"""The three cures: who learns, what stays, and that learning helps."""

from functools import partial

import pytest
import torch

from helpers.data.synthetic_dogs import load_synthetic_dogs
from helpers.diffusion.alignment import (
    decoder_loss,
    distillation_loss,
    linear_map,
    permute_latents,
    share_encoder,
    share_scale,
)
from helpers.models.conv_vae import ConvVAE, VAEConfig, image_loss
from helpers.models.losses import calibrated_gaussian_nll
from helpers.rng import generator_for
from helpers.training.loop import fit

DOGS = load_synthetic_dogs(48, 16)
BATCH = {"images": DOGS[:16].pixels()}


def network(seed: int, scale: float = 1.0) -> ConvVAE:
    torch.manual_seed(seed)
    return ConvVAE(VAEConfig((8, 16), blocks=1, groups=4, scaling_factor=scale))


@pytest.mark.parametrize("loss", [decoder_loss, distillation_loss])
def test_who_learns(loss):
    """Cure one moves the decoder alone, cure two all of the model; the reference never moves."""
    model = network(1)
    reference = network(2, scale=2.0)
    loss(model, BATCH, generator_for(0), reference)["loss"].mean().backward()
    learning = {name.split(".")[0] for name, w in model.named_parameters() if w.grad is not None}
    of_the_decoder = {"decoder", "from_latent"}
    of_all = of_the_decoder | {"encoder", "to_moments"}
    assert learning == (of_the_decoder if loss is decoder_loss else of_all)
    assert all(weight.grad is None for weight in reference.parameters())


@pytest.mark.parametrize("loss", [decoder_loss, distillation_loss])
def test_in_both_cures_the_decoder_reads_draws_of_the_references_encoder(loss):
    model = network(1)
    reference = network(2)
    found = loss(model, BATCH, generator_for(3), reference)
    z = reference.encode(BATCH["images"]).sample(generator_for(3))
    expected = calibrated_gaussian_nll(model.decode(z), BATCH["images"])
    torch.testing.assert_close(found.get("nll", found["loss"]), expected)


def test_a_shared_encoder_brings_its_half_of_the_linear_shortcut():
    def with_shortcut(seed: int) -> ConvVAE:
        torch.manual_seed(seed)
        return ConvVAE(VAEConfig((8,), blocks=1, groups=2, patch=2, linear_shortcut=True))

    reference = with_shortcut(2)
    model = share_encoder(with_shortcut(1), reference)
    x = BATCH["images"]
    assert torch.equal(model.encode(x).mean, reference.encode(x).mean)
    own = with_shortcut(1).linear.decode.weight
    assert torch.equal(model.linear.decode.weight, own)


def test_a_model_that_writes_the_same_is_not_apart():
    model = network(1)
    terms = distillation_loss(model, BATCH, generator_for(0), reference=model)
    assert terms["apart"].abs().max() == 0
    assert torch.equal(terms["loss"], terms["nll"])


def test_apart_is_in_units_of_the_references_variance():
    model = network(1)
    reference = network(2, scale=3.0)
    terms = distillation_loss(model, BATCH, generator_for(0), reference, weight=10.0)
    ours, theirs = (vae.encode(BATCH["images"]).mean for vae in (model, reference))
    torch.testing.assert_close(terms["apart"], 9 * (ours - theirs).square().flatten(1).mean(1))
    torch.testing.assert_close(terms["loss"], terms["nll"] + 10 * terms["apart"])


def test_cure_one_begins_with_a_copy_of_the_references_encoder_and_scale():
    model = network(1)
    reference = network(2, scale=0.7)
    x = BATCH["images"]
    begun = share_encoder(model, reference)
    assert begun is model and model.config.scaling_factor == 0.7
    assert torch.equal(model.encode(x).mean, reference.encode(x).mean)
    own = {weight.data_ptr() for weight in model.parameters()}
    assert not own & {weight.data_ptr() for weight in reference.parameters()}
    assert torch.equal(model.decoder.conv_in.weight, network(1).decoder.conv_in.weight)


def test_cure_two_begins_with_the_references_scale_alone():
    model = network(1)
    assert share_scale(model, network(2, scale=0.7)) is model
    assert model.config == network(1, scale=0.7).config
    assert torch.equal(model.encoder.conv_in.weight, network(1).encoder.conv_in.weight)


def test_permuted_latents_say_the_same_in_other_words():
    vae = network(1)
    x = BATCH["images"]
    with torch.no_grad():
        for weight in vae.parameters():  # biases too, which begin as zero
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator_for("bias")))
    other, again, third = (permute_latents(vae, seed) for seed in (0, 0, 1))
    ours = vae.encode(x)
    theirs = other.encode(x)
    given_back = other.decode(theirs.mean)
    torch.testing.assert_close(given_back, vae.decode(ours.mean), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(theirs.kl(), ours.kl())

    # (channels, N·h·w): each of theirs is one of ours, but for the sign
    here, there = (p.mean.abs().transpose(0, 1).flatten(1) for p in (ours, theirs))
    order = torch.cdist(there, here).argmin(1)
    assert sorted(order.tolist()) == list(range(len(here)))
    torch.testing.assert_close(there, here[order], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(theirs.std, ours.std[:, order])
    assert not torch.allclose(theirs.mean, ours.mean, atol=0.01)
    assert torch.equal(other.to_moments.weight, again.to_moments.weight)
    assert not torch.equal(other.to_moments.weight, third.to_moments.weight)


def test_the_linear_map_finds_a_linear_relation_and_its_offset():
    a = torch.randn(50, 3, generator=generator_for("a"))
    matrix = torch.randn(3, 2, generator=generator_for("m"))
    offset = torch.tensor([5.0, -3.0])
    found = linear_map(a, a @ matrix + offset)
    torch.testing.assert_close(found, (matrix, offset), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def trained() -> ConvVAE:
    """A reference whose latents are worth reading."""
    reference = network(2)
    fit(reference, partial(image_loss, beta=0.0), DOGS, steps=20, batch_size=16, lr=5e-3)
    return reference


@pytest.mark.slow
@pytest.mark.parametrize("loss", [decoder_loss, distillation_loss])
def test_a_cure_brings_the_error_of_the_references_latents_down(loss, trained):
    model = network(1)
    x = DOGS.pixels()

    @torch.no_grad()
    def error() -> float:
        return (model.decode(trained.encode(x).mode()) - x).square().mean().item()

    before = error()
    settings = {"steps": 20, "batch_size": 16, "lr": 5e-3}
    fit(model, partial(loss, reference=trained), DOGS, **settings)
    assert error() < 0.5 * before
