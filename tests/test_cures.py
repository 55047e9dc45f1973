"""The three cures: who learns, what stays, and that learning helps."""

from functools import partial

import pytest
import torch

from helpers.budget import generator_for
from helpers.conv_vae import ConvVAE, VAEConfig, image_loss, to_signed, to_unit
from helpers.cures import decoder_loss, distillation_loss, linear_map, other_language, speaks_like, with_encoder
from helpers.data import Batch
from helpers.drawn_dogs import load_drawn_dogs
from helpers.losses import calibrated_gaussian_nll
from helpers.training import fit

DOGS = load_drawn_dogs(48, 16)


def network(seed: int, scale: float = 1.0) -> ConvVAE:
    torch.manual_seed(seed)
    return ConvVAE(VAEConfig((8, 16), blocks=1, groups=4, scaling_factor=scale))


def gradients(loss) -> tuple[ConvVAE, ConvVAE]:
    """(the model, the old one) after a backward pass of `loss`."""
    model, old = network(1), network(2, scale=2.0)
    loss(model, Batch(DOGS.pixels(), None), generator_for(0), old=old)["loss"].mean().backward()
    return model, old


def test_the_decoder_cure_moves_nothing_but_the_decoder():
    model, old = gradients(decoder_loss)
    learning = {name.split(".")[0] for name, weight in model.named_parameters() if weight.grad is not None}
    assert learning == {"decoder", "from_latent"}
    assert all(weight.grad is None for weight in old.parameters())


def test_the_distillation_moves_everything_but_the_old_one():
    model, old = gradients(distillation_loss)
    assert all(weight.grad is not None for weight in model.parameters())
    assert all(weight.grad is None for weight in old.parameters())


@pytest.mark.parametrize("loss", [decoder_loss, distillation_loss])
def test_in_both_cures_the_decoder_reads_draws_of_the_old_encoder(loss):
    model, old = network(1), network(2)
    batch = Batch(DOGS.pixels(), None)
    found = loss(model, batch, generator_for(3), old=old)
    z = old.encode(to_signed(batch.images)).sample(generator_for(3))
    expected = calibrated_gaussian_nll(to_unit(model.decode(z)), batch.images)
    torch.testing.assert_close(found.get("nll", found["loss"]), expected)


def test_a_model_that_writes_the_same_is_not_apart():
    model = network(1)
    terms = distillation_loss(model, Batch(DOGS.pixels(), None), generator_for(0), old=model)
    assert terms["apart"].abs().max() == 0 and torch.equal(terms["loss"], terms["nll"])


def test_apart_is_in_units_of_the_old_variance():
    model, old = network(1), network(2, scale=3.0)
    batch = Batch(DOGS.pixels(), None)
    terms = distillation_loss(model, batch, generator_for(0), old=old, weight=10.0)
    means = [vae.encode(to_signed(batch.images)).mean for vae in (model, old)]
    torch.testing.assert_close(terms["apart"], 9 * (means[0] - means[1]).square().flatten(1).mean(1))
    torch.testing.assert_close(terms["loss"], terms["nll"] + 10 * terms["apart"])


def test_the_old_scale_is_taken_over():
    model = network(1)
    assert speaks_like(model, network(2, scale=0.7)) is model and model.settings.scaling_factor == 0.7


def test_cure_one_begins_with_a_copy_of_the_old_encoder():
    model, old, x = network(1), network(2, scale=0.7), to_signed(DOGS.pixels())
    begun = with_encoder(model, old)
    assert begun is model and model.settings.scaling_factor == 0.7
    torch.testing.assert_close(model.encode(x).mean, old.encode(x).mean, rtol=0, atol=0)
    assert not {w.data_ptr() for w in model.parameters()} & {w.data_ptr() for w in old.parameters()}
    assert torch.equal(model.decoder.conv_in.weight, network(1).decoder.conv_in.weight)


def test_another_language_says_the_same_in_other_words():
    vae, x = network(1), to_signed(DOGS.pixels())
    with torch.no_grad():
        for weight in vae.parameters():  # biases too, which begin as zero
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator_for("bias")))
    other, again, third = (other_language(vae, seed) for seed in (0, 0, 1))
    ours, theirs = vae.encode(x), other.encode(x)
    torch.testing.assert_close(other.decode(theirs.mean), vae.decode(ours.mean), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(theirs.kl(), ours.kl())
    here, there = (p.mean.abs().transpose(0, 1).flatten(1) for p in (ours, theirs))  # (channels, N·h·w)
    order = torch.cdist(there, here).argmin(1)
    assert sorted(order.tolist()) == list(range(len(here)))
    torch.testing.assert_close(there, here[order], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(theirs.std, ours.std[:, order])
    assert not torch.allclose(theirs.mean, ours.mean, atol=0.01)
    assert torch.equal(other.to_moments.weight, again.to_moments.weight)
    assert not torch.equal(other.to_moments.weight, third.to_moments.weight)


def test_the_linear_map_finds_a_linear_relation_and_its_offset():
    a = torch.randn(50, 3, generator=generator_for("a"))
    matrix, offset = torch.randn(3, 2, generator=generator_for("m")), torch.tensor([5.0, -3.0])
    found = linear_map(a, a @ matrix + offset)
    torch.testing.assert_close(found[0], matrix, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1], offset, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("loss", [decoder_loss, distillation_loss])
def test_a_cure_brings_the_error_of_the_old_latents_down(loss):
    model, old = network(1), network(2)
    fit(old, partial(image_loss, beta=0.0), DOGS, steps=60, batch_size=16, lr=5e-3)

    def error() -> float:
        with torch.no_grad():
            z = old.encode(to_signed(DOGS.pixels())).mode()
            return (to_unit(model.decode(z)) - DOGS.pixels()).square().mean().item()

    before = error()
    fit(model, partial(loss, old=old), DOGS, steps=60, batch_size=16, lr=5e-3)
    assert error() < 0.5 * before
