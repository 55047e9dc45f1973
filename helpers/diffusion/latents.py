"""Diffusion on latents (notebook 10): noise, the loss, and text encoder and UNet trained together.

Latents are (B, C, h, w), already multiplied by the VAE's scaling factor, so that their variance is
about 1.  `alphas_cumprod` is the share of that variance which is left at a timestep: nearly 1 at
the first, nearly 0 at the last.  Ho, Jain & Abbeel 2020; Rombach et al. 2022.
"""

import functools
from collections.abc import Callable

import torch
from torch import nn

from helpers.data.image_set import ImageSet
from helpers.data.loader import in_chunks
from helpers.data.synthetic_dogs import SyntheticDogs
from helpers.diffusion.parts import (
    NUM_TRAIN_TIMESTEPS,
    make_pipeline,
    make_text_encoder,
    make_tokenizer,
    make_unet,
    sample,
    tokenize,
)
from helpers.env import check_name, runs_dir
from helpers.models.conv_vae import ConvVAE
from helpers.rng import draw, randn_like, seed_everything
from helpers.training.filmstrip import Filmstrip
from helpers.training.fingerprint import fingerprint_of
from helpers.training.loop import fit


class TextToImage(nn.Module):
    """The two networks that are trained together.

    (noisy latents (B, C, h, w), timesteps (B,), prompts (B, T)) → their velocity (B, C, h, w).
    """

    def __init__(self, unet: nn.Module, text_encoder: nn.Module):
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder

    def forward(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, prompts: torch.Tensor
    ) -> torch.Tensor:
        words = self.text_encoder(prompts)[0]  # (B, T) → (B, T, width)
        return self.unet(noisy, timesteps, words).sample  # (B, C, h, w)


@torch.no_grad()
def encode_images(vae: ConvVAE, images: ImageSet) -> tuple[torch.Tensor, torch.Tensor]:
    """The scaled posteriors of all images: (mean, std), each (N, C, h, w), on the VAE's device."""
    means = []
    stds = []
    for batch in in_chunks(images, next(vae.parameters()).device):
        posterior = vae.encode(batch["images"])
        means.append(posterior.mean)
        stds.append(posterior.std)
    scale = vae.config.scaling_factor
    return scale * torch.cat(means), scale * torch.cat(stds)


def encode_dogs(vae: ConvVAE, dogs: SyntheticDogs, tokenizer) -> dict[str, torch.Tensor]:
    """What `fit` trains on: {"mean", "std"} of the scaled posteriors, and "prompts" (N, T)."""
    mean, std = encode_images(vae, dogs)
    prompts = tokenize(tokenizer, list(dogs.captions)).to(mean.device)
    return {"mean": mean, "std": std, "prompts": prompts}


def add_noise(
    latents: torch.Tensor, noise: torch.Tensor, alphas_cumprod: torch.Tensor
) -> torch.Tensor:
    """√α · latents + √(1 - α) · noise, where α is alphas_cumprod (B,) at each latent's timestep."""
    alpha = alphas_cumprod.view(-1, 1, 1, 1)
    return alpha.sqrt() * latents + (1 - alpha).sqrt() * noise


def get_velocity(
    latents: torch.Tensor, noise: torch.Tensor, alphas_cumprod: torch.Tensor
) -> torch.Tensor:
    """√α · noise - √(1 - α) · latents: what the UNet predicts; alphas_cumprod (B,) as above.

    Predicting the noise teaches nothing where there is little else, and predicting the latents
    nothing where there is hardly any noise.  The velocity is worth predicting at every timestep.
    Salimans & Ho 2022, appendix D; Stable Diffusion 2 does so too.
    """
    alpha = alphas_cumprod.view(-1, 1, 1, 1)
    return alpha.sqrt() * noise - (1 - alpha).sqrt() * latents


def from_velocity(
    noisy: torch.Tensor, velocity: torch.Tensor, alphas_cumprod: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(latents, noise) that give these noisy latents and this velocity; alphas_cumprod (B,)."""
    alpha = alphas_cumprod.view(-1, 1, 1, 1)
    latents = alpha.sqrt() * noisy - (1 - alpha).sqrt() * velocity
    noise = (1 - alpha).sqrt() * noisy + alpha.sqrt() * velocity
    return latents, noise


def velocity_loss(
    model: nn.Module,
    batch: dict[str, torch.Tensor],
    generator: torch.Generator,
    alphas_cumprod: torch.Tensor,
    empty: torch.Tensor,
    cond_drop_prob: float = 0.1,
) -> dict[str, torch.Tensor]:
    """The mean squared error of the predicted velocity of each latent, {"loss": (B,)}.

    batch: "mean", "std" and "prompts", as `encode_dogs` makes them.
    alphas_cumprod: all of them, (NUM_TRAIN_TIMESTEPS,).
    empty: the tokens of "", (1, T).  They replace a share cond_drop_prob of the prompts, so that
    the model also learns to draw without one, which classifier-free guidance needs (Ho & Salimans
    2021).  Ho, Jain & Abbeel 2020, algorithm 1, for velocities.
    """
    mean = batch["mean"]
    count = len(mean)
    on = mean.device
    latents = mean + batch["std"] * randn_like(mean, generator)
    noise = randn_like(mean, generator)
    timesteps = draw(torch.rand, (count,), generator, device=on).mul(NUM_TRAIN_TIMESTEPS).long()
    dropped = draw(torch.rand, (count, 1), generator, device=on) < cond_drop_prob
    prompts = torch.where(dropped, empty.to(on), batch["prompts"])  # (B, T)

    alpha = alphas_cumprod.to(on)[timesteps]  # (B,)
    predicted = model(add_noise(latents, noise, alpha), timesteps, prompts)
    error = predicted.float() - get_velocity(latents, noise, alpha)
    return {"loss": error.square().flatten(1).mean(1)}


def train_on_latents(
    vae: ConvVAE,
    dogs: SyntheticDogs,
    seed: int = 0,
    run: str | None = None,
    callback: Callable | None = None,
    layers: int = 0,
    **length,
):
    """Text encoder and UNet, trained on the latents of `dogs`: a StableDiffusionPipeline.

    callback(pipeline, row) is called after each epoch.  layers: of the text encoder.  length:
    epochs=…, steps=… or minutes=…, as `fit` has them.
    """
    seed_everything(seed)
    pipeline = _untrained_pipeline(vae, dogs, layers)
    loss = functools.partial(
        velocity_loss,
        alphas_cumprod=pipeline.scheduler.alphas_cumprod,
        empty=tokenize(pipeline.tokenizer, [""]),
    )
    settings = {"batch_size": 32, "lr": 2e-3, "ema": 0.995, "seed": seed, "run": run} | length
    if callback:
        settings["callback"] = lambda model, row: callback(pipeline, row)
    model = TextToImage(pipeline.unet, pipeline.text_encoder)
    fit(model, loss, encode_dogs(vae, dogs, pipeline.tokenizer), **settings)
    return pipeline


def _untrained_pipeline(vae: ConvVAE, dogs: SyntheticDogs, layers: int):
    """`vae` with a tokenizer of the dogs' captions, and a fresh text encoder and UNet."""
    from helpers.diffusers_bridge import to_diffusers

    resolution = dogs.images.shape[2]
    tokenizer = make_tokenizer(dogs.captions)
    text_encoder = make_text_encoder(tokenizer, layers=layers)
    width = text_encoder.config.hidden_size
    unet = make_unet(width, vae.config.latent_channels, resolution // vae.config.factor)
    return make_pipeline(to_diffusers(vae, resolution), text_encoder, tokenizer, unet)


class PromptStrip(Filmstrip):
    """Pictures of the same prompts as training goes on: the `callback` of `train_on_latents`.

    They are drawn after epochs 1, 2, 4, 8 … and stand in $COURSE_RUNS/<run>/samples.
    """

    def __init__(self, run: str, prompts: list[str]):
        check_name("run", run)
        self.folder = runs_dir() / run / "samples" / fingerprint_of(prompts)
        self.prompts = prompts
        self.count = len(prompts)

    def __call__(self, pipeline, row: dict) -> None:
        if row["epoch"].bit_count() == 1:  # a power of two
            self.save(sample(pipeline, self.prompts), row["epoch"])
