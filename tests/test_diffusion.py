"""Diffusion on latents: the noise, the loss, and that training learns."""

import pytest
import torch

from helpers.budget import generator_for
from helpers.conv_vae import ConvVAE, VAEConfig, to_signed
from helpers.data import Batch
from helpers.diffusion import (
    Latents,
    PromptStrip,
    TextToImage,
    diffuse,
    encode_dogs,
    encode_images,
    separate,
    train_on_latents,
    velocity,
    velocity_loss,
)
from helpers.drawn_dogs import load_drawn_dogs
from helpers.tiny_sd import STEPS, make_scheduler, make_text_encoder, make_tokenizer, make_unet, tokenize

KEPT = make_scheduler().alphas_cumprod


@pytest.fixture(scope="module")
def dogs():
    return load_drawn_dogs(48, 16)


@pytest.fixture(scope="module")
def vae() -> ConvVAE:
    torch.manual_seed(0)
    return ConvVAE(VAEConfig((8, 16), blocks=1, groups=4, scaling_factor=2.0)).eval()


class Oracle(torch.nn.Module):
    """Remembers what it is asked, and answers with zeros."""

    def __init__(self):
        super().__init__()
        self.asked = None

    def forward(self, noisy, steps, prompts):
        self.asked = (noisy, steps, prompts)
        return torch.zeros_like(noisy)


def latents(count: int = 4, std: float = 0.0) -> Latents:
    mean = torch.arange(1.0, count + 1).view(-1, 1, 1, 1).expand(-1, 2, 3, 4)
    prompts = torch.arange(count)[:, None].expand(-1, 5) + 10
    return Latents(mean, torch.full_like(mean, std), prompts, torch.zeros(1, 5, dtype=torch.int64))


def batch_of(count: int, number: int = 0) -> Batch:
    return Batch(torch.zeros(count, 1, 1, 1), torch.full((count,), number))


def test_noise_is_that_of_the_library():
    scheduler = make_scheduler()
    z, noise, steps = torch.randn(5, 4, 3, 2), torch.randn(5, 4, 3, 2), torch.tensor([0, 10, 500, 900, 999])
    torch.testing.assert_close(diffuse(z, noise, KEPT[steps]), scheduler.add_noise(z, noise, steps))


def test_noise_keeps_the_variance():
    z, noise = torch.randn(1, 1, 300, 300), torch.randn(1, 1, 300, 300)
    for kept in (0.0, 0.3, 1.0):
        assert diffuse(z, noise, torch.tensor([kept])).var().item() == pytest.approx(1, abs=0.02)


def test_velocity_is_that_of_the_library():
    scheduler = make_scheduler()
    z, noise, steps = torch.randn(5, 4, 3, 2), torch.randn(5, 4, 3, 2), torch.tensor([0, 10, 500, 900, 999])
    torch.testing.assert_close(velocity(z, noise, KEPT[steps]), scheduler.get_velocity(z, noise, steps))
    assert scheduler.config.prediction_type == "v_prediction"


def test_latents_and_noise_are_separated_again():
    z, noise, kept = torch.randn(3, 4, 3, 2), torch.randn(3, 4, 3, 2), torch.tensor([0.99, 0.5, 0.005])
    found = separate(diffuse(z, noise, kept), velocity(z, noise, kept), kept)
    torch.testing.assert_close(found, (z, noise), rtol=1e-4, atol=1e-5)


def test_the_loss_is_the_mean_square_of_the_velocity_that_was_missed():
    """Of unit noise and latents of 3: kept + (1 - kept) · 9, on average over the steps."""
    loss = velocity_loss(Oracle(), batch_of(4000, 2), generator_for(0), latents(), KEPT)["loss"]
    assert loss.shape == (4000,) and loss.mean().item() == pytest.approx((KEPT + 9 * (1 - KEPT)).mean().item(), rel=0.02)


def test_a_model_that_knows_the_latents_has_no_loss():
    """From the noisy latent, the step and the true latent the noise follows: (noisy - √kept · z) / √(1 - kept)."""

    class Knows(torch.nn.Module):
        def forward(self, noisy, steps, prompts):
            kept = KEPT[steps].view(-1, 1, 1, 1)
            noise = (noisy - kept.sqrt() * 3.0) / (1 - kept).sqrt()
            return kept.sqrt() * noise - (1 - kept).sqrt() * 3.0

    assert velocity_loss(Knows(), batch_of(50, 2), generator_for(0), latents(), KEPT)["loss"].max() < 1e-4


def test_steps_cover_the_whole_range_evenly():
    oracle = Oracle()
    velocity_loss(oracle, batch_of(20_000), generator_for(0), latents(), KEPT)
    steps = oracle.asked[1]
    assert steps.min() == 0 and steps.max() == STEPS - 1
    assert steps.float().mean().item() == pytest.approx((STEPS - 1) / 2, abs=8)


def test_a_tenth_of_the_prompts_is_emptied():
    oracle = Oracle()
    velocity_loss(oracle, batch_of(5000, 1), generator_for(0), latents(), KEPT)
    prompts = oracle.asked[2]
    emptied = (prompts == 0).all(1)
    assert ((prompts == 11).all(1) | emptied).all() and emptied.float().mean().item() == pytest.approx(0.1, abs=0.015)


def test_latents_are_drawn_from_their_posteriors():
    class Denoises(Oracle):
        def forward(self, noisy, steps, prompts):
            self.asked = noisy[steps == 0]
            return torch.zeros_like(noisy)

    oracle = Denoises()
    velocity_loss(oracle, batch_of(30_000, 2), generator_for(0), latents(std=0.5), KEPT)
    assert oracle.asked.mean().item() == pytest.approx(3, abs=0.05) and oracle.asked.std().item() == pytest.approx(
        0.5, abs=0.05
    )


def test_the_noise_follows_the_generator():
    runs = [velocity_loss(Oracle(), batch_of(4), generator_for(seed), latents(), KEPT)["loss"] for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_encoded_dogs_are_scaled_and_keep_their_captions(dogs, vae):
    tokenizer = make_tokenizer(dogs.captions)
    found = encode_dogs(vae, dogs, tokenizer)
    posterior = vae.encode(to_signed(dogs.pixels()))
    torch.testing.assert_close(found.mean, 2 * posterior.mean)
    torch.testing.assert_close(found.std, 2 * posterior.std)
    assert torch.equal(found.prompts, tokenize(tokenizer, list(dogs.captions)))
    assert torch.equal(found.empty, tokenize(tokenizer, [""]))
    assert not found.mean.requires_grad
    assert torch.equal(found.as_set("dogs").labels, torch.arange(len(dogs)))


def test_more_images_than_one_batch_are_encoded_in_their_order(vae):
    dogs = load_drawn_dogs(130, 16)
    mean, std = encode_images(vae, dogs)
    with torch.no_grad():
        posterior = vae.encode(to_signed(dogs.pixels()))
    torch.testing.assert_close((mean, std), (2 * posterior.mean, 2 * posterior.std), rtol=1e-4, atol=1e-5)


def test_both_networks_are_trained(dogs, vae):
    tokenizer = make_tokenizer(dogs.captions)
    found = encode_dogs(vae, dogs, tokenizer)
    model = TextToImage(make_unet(16, channels=(16, 32)), make_text_encoder(tokenizer, 16))
    batch = Batch(torch.zeros(8, 1, 1, 1), torch.arange(8))
    velocity_loss(model, batch, generator_for(0), found, KEPT)["loss"].mean().backward()
    without = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert without == [], without
    assert model.text_encoder.get_input_embeddings().weight.grad.abs().sum() > 0


@pytest.mark.parametrize("asked", [{}, {"layers": 2}])
def test_the_text_encoder_has_as_many_layers_as_asked_for(dogs, vae, monkeypatch, asked):
    trained = []
    monkeypatch.setattr("helpers.diffusion.fit", lambda model, *_, **__: trained.append(model))
    train_on_latents(vae, dogs, steps=1, **asked)
    assert len(trained[0].text_encoder.encoder.layers) == asked.get("layers", 0)


@pytest.mark.slow
def test_training_learns_and_its_pictures_are_watched(dogs, vae, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path))
    strip = PromptStrip("toy", ["a red dog", "a gray dog"])
    seen = []
    pipeline = train_on_latents(vae, dogs, run="toy", watch=lambda p, row: seen.append(row) or strip(p, row), epochs=5)
    assert seen[-1]["loss"] < 0.98 and list(strip.frames()) == [1, 2, 4]
    assert strip.frames()[4].shape == (2, 3, 16, 16)
    assert pipeline.vae.config.scaling_factor == 2.0 and not pipeline.unet.training
    resumed = train_on_latents(vae, dogs, run="toy", epochs=5)
    assert all(torch.equal(a, b) for a, b in zip(pipeline.unet.parameters(), resumed.unet.parameters(), strict=True))
