"""Diffusion on latents: the noise, the loss, and that training learns."""

from functools import partial

import pytest
import torch

from helpers.data.image_set import ImageSet
from helpers.data.synthetic_dogs import load_synthetic_dogs
from helpers.diffusion import latents as module
from helpers.diffusion.latents import (
    PromptStrip,
    TextToImage,
    add_noise,
    encode_dogs,
    encode_images,
    from_velocity,
    get_velocity,
    train_on_latents,
    velocity_loss,
)
from helpers.diffusion.parts import (
    NUM_TRAIN_TIMESTEPS,
    make_noise_scheduler,
    make_text_encoder,
    make_tokenizer,
    make_unet,
    sample,
    tokenize,
)
from helpers.models.conv_vae import ConvVAE, VAEConfig
from helpers.rng import generator_for

ALPHAS = make_noise_scheduler().alphas_cumprod
EMPTY = torch.zeros(1, 5, dtype=torch.int64)


@pytest.fixture(scope="module")
def dogs():
    return load_synthetic_dogs(64, 16)


@pytest.fixture(scope="module")
def vae() -> ConvVAE:
    torch.manual_seed(0)
    # untrained, its latents have about a fifth of the spread that diffusion expects
    return ConvVAE(VAEConfig((8, 16), blocks=1, groups=4, scaling_factor=5.0)).eval()


class Silent(torch.nn.Module):
    """Remembers what it is asked, and answers with zeros."""

    def forward(self, noisy, timesteps, prompts):
        self.asked = (noisy, timesteps, prompts)
        return torch.zeros_like(noisy)


def batch_of(count: int, value: float = 3.0, std: float = 0.0) -> dict[str, torch.Tensor]:
    """Latents that are `value` everywhere, with prompts of the token 11."""
    mean = torch.full((count, 2, 3, 4), value)
    prompts = torch.full((count, 5), 11)
    return {"mean": mean, "std": torch.full_like(mean, std), "prompts": prompts}


def loss_of(model: torch.nn.Module, batch: dict, seed: int = 0) -> torch.Tensor:
    return velocity_loss(model, batch, generator_for(seed), ALPHAS, EMPTY)["loss"]


# --- noise and velocity ---


def test_noise_and_velocity_are_those_of_the_library():
    scheduler = make_noise_scheduler()
    assert scheduler.config.prediction_type == "v_prediction"
    z, noise = torch.randn(2, 5, 4, 3, 2)
    timesteps = torch.tensor([0, 10, 500, 900, 999])
    alphas = ALPHAS[timesteps]
    expected = scheduler.add_noise(z, noise, timesteps)
    torch.testing.assert_close(add_noise(z, noise, alphas), expected)
    expected = scheduler.get_velocity(z, noise, timesteps)
    torch.testing.assert_close(get_velocity(z, noise, alphas), expected)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_noise_keeps_the_variance(alpha):
    z, noise = torch.randn(2, 1, 1, 300, 300, generator=generator_for("variance"))
    found = add_noise(z, noise, torch.tensor([alpha]))
    assert found.var().item() == pytest.approx(1, abs=0.02)


def test_latents_and_noise_follow_from_the_velocity():
    z, noise = torch.randn(2, 3, 4, 3, 2)
    alphas = torch.tensor([0.99, 0.5, 0.005])
    noisy = add_noise(z, noise, alphas)
    velocity = get_velocity(z, noise, alphas)
    found = from_velocity(noisy, velocity, alphas)
    torch.testing.assert_close(found, (z, noise), rtol=1e-4, atol=1e-5)


# --- the loss ---


def test_the_loss_is_the_mean_square_of_the_velocity_that_was_missed():
    """Of unit noise and latents of 3: α + (1 - α) · 9, on average over the timesteps."""
    loss = loss_of(Silent(), batch_of(4000))
    assert loss.shape == (4000,)
    assert loss.mean().item() == pytest.approx((ALPHAS + 9 * (1 - ALPHAS)).mean().item(), rel=0.02)


def test_a_model_that_knows_the_latents_has_no_loss():
    """Noisy latents, timestep and true latents give the noise: (noisy - √α · z) / √(1 - α)."""

    class Knows(torch.nn.Module):
        def forward(self, noisy, timesteps, prompts):
            alpha = ALPHAS[timesteps].view(-1, 1, 1, 1)
            noise = (noisy - alpha.sqrt() * 3.0) / (1 - alpha).sqrt()
            return alpha.sqrt() * noise - (1 - alpha).sqrt() * 3.0

    assert loss_of(Knows(), batch_of(50)).max() < 1e-4


def test_timesteps_cover_the_whole_range_evenly_and_a_tenth_of_the_prompts_is_emptied():
    model = Silent()
    loss_of(model, batch_of(20_000))
    _, timesteps, prompts = model.asked
    assert timesteps.min() == 0 and timesteps.max() == NUM_TRAIN_TIMESTEPS - 1
    middle = (NUM_TRAIN_TIMESTEPS - 1) / 2
    assert timesteps.float().mean().item() == pytest.approx(middle, abs=8)
    emptied = (prompts == 0).all(1)
    assert ((prompts == 11).all(1) | emptied).all()
    assert emptied.float().mean().item() == pytest.approx(0.1, abs=0.01)


def test_latents_are_drawn_from_their_posteriors():
    model = Silent()
    loss_of(model, batch_of(30_000, std=0.5))
    noisy, timesteps, _ = model.asked
    clean = noisy[timesteps == 0]  # hardly any noise yet
    assert clean.mean().item() == pytest.approx(3, abs=0.05)
    assert clean.std().item() == pytest.approx(0.5, abs=0.05)


def test_the_noise_follows_the_generator():
    first, again, other = (loss_of(Silent(), batch_of(4), seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


# --- what it trains on, and training ---


def test_images_are_encoded_in_their_order_and_scaled(vae):
    """More of them than one chunk holds."""
    pixels = torch.rand(1010, 3, 4, 6, generator=generator_for("pixels"))
    images = ImageSet((255 * pixels).byte(), None, "noise")
    found = encode_images(vae, images)
    with torch.no_grad():
        posterior = vae.encode(images.pixels())
    expected = 5 * posterior.mean, 5 * posterior.std
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not found[0].requires_grad


def test_dogs_are_encoded_with_their_captions(dogs, vae):
    tokenizer = make_tokenizer(dogs.captions)
    found = encode_dogs(vae, dogs, tokenizer)
    assert found.keys() == {"mean", "std", "prompts"}
    assert torch.equal(found["prompts"], tokenize(tokenizer, list(dogs.captions)))
    mean, std = encode_images(vae, dogs)
    assert torch.equal(found["mean"], mean) and torch.equal(found["std"], std)


def test_both_networks_are_trained(dogs, vae):
    tokenizer = make_tokenizer(dogs.captions)
    batch = encode_dogs(vae, dogs[:8], tokenizer)
    model = TextToImage(make_unet(16, channels=(16, 32)), make_text_encoder(tokenizer, 16))
    empty = tokenize(tokenizer, [""])
    loss = velocity_loss(model, batch, generator_for(0), ALPHAS, empty)["loss"]
    loss.mean().backward()
    without = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert not without
    assert model.text_encoder.get_input_embeddings().weight.grad.abs().sum() > 0


@pytest.mark.parametrize("asked", [{}, {"layers": 2}])
def test_the_text_encoder_has_as_many_layers_as_asked_for(dogs, vae, monkeypatch, asked):
    trained = []
    monkeypatch.setattr(module, "fit", lambda model, *_, **__: trained.append(model))
    train_on_latents(vae, dogs, steps=1, **asked)
    assert len(trained[0].text_encoder.encoder.layers) == asked.get("layers", 0)


@pytest.mark.slow
def test_training_learns_and_its_pictures_are_watched(dogs, vae, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path))
    monkeypatch.setattr(module, "sample", partial(sample, steps=2))
    monkeypatch.setattr(module, "make_unet", partial(make_unet, channels=(16, 32)))
    strip = PromptStrip("toy", ["a red dog", "a gray dog"])
    seen = []

    def callback(pipeline, row: dict) -> None:
        seen.append(row["loss"])
        strip(pipeline, row)

    pipeline = train_on_latents(vae, dogs, run="toy", callback=callback, epochs=8)
    assert seen[-1] < 0.6 * seen[0]
    assert list(strip.frames()) == [1, 2, 4, 8]
    assert strip.frames()[4].shape == (2, 3, 16, 16)
    assert pipeline.vae.config.scaling_factor == 5.0 and not pipeline.unet.training

    resumed = train_on_latents(vae, dogs, run="toy", epochs=8)
    pairs = zip(pipeline.unet.parameters(), resumed.unet.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
