"""Diffusion on latents: noise, the loss, and the training of text encoder and UNet together (notebook 07)."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from helpers.budget import draw, randn_like, runs_dir, seed_everything
from helpers.checkpoints import fingerprint
from helpers.conv_vae import ConvVAE, to_signed
from helpers.data import Batch, ImageSet
from helpers.drawn_dogs import DrawnDogs
from helpers.filmstrip import Filmstrip
from helpers.tiny_sd import (
    STEPS,
    make_pipeline,
    make_text_encoder,
    make_tokenizer,
    make_unet,
    sample,
    tokenize,
)
from helpers.training import fit


class TextToImage(nn.Module):
    """The two networks that are trained together: (noisy latents, steps, prompts) → their velocity."""

    def __init__(self, unet: nn.Module, text_encoder: nn.Module):
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder

    def forward(self, noisy: torch.Tensor, steps: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
        words = self.text_encoder(prompts)[0]  # (B, T) → (B, T, width)
        return self.unet(noisy, steps, words).sample  # (B, C, h, w)


@dataclass(frozen=True)
class Latents:
    """What the training reads: posteriors (N, C, h, w), already scaled, and prompts (N, T); `empty` is the prompt ""."""

    mean: torch.Tensor
    std: torch.Tensor
    prompts: torch.Tensor
    empty: torch.Tensor

    def as_set(self, source: str) -> ImageSet:
        """An ImageSet for `fit` whose labels are positions in the latents; its images are not looked at."""
        return ImageSet(torch.zeros(len(self.mean), 1, 1, 1, dtype=torch.uint8), torch.arange(len(self.mean)), source)


@torch.no_grad()
def encode_images(vae: ConvVAE, images: ImageSet) -> tuple[torch.Tensor, torch.Tensor]:
    """The posteriors of all images, mean and std (N, C, h, w), times the VAE's scaling factor."""
    on, scale = next(vae.parameters()).device, vae.settings.scaling_factor
    posteriors = [vae.encode(to_signed(images[i : i + 100].pixels(on))) for i in range(0, len(images), 100)]
    return tuple(scale * torch.cat([getattr(p, name) for p in posteriors]) for name in ("mean", "std"))


def encode_dogs(vae: ConvVAE, dogs: DrawnDogs, tokenizer) -> Latents:
    """The scaled posteriors of all dogs, and their captions as tokens."""
    mean, std = encode_images(vae, dogs)
    prompts, empty = (tokenize(tokenizer, texts).to(mean.device) for texts in (list(dogs.captions), [""]))
    return Latents(mean, std, prompts, empty)


def diffuse(latents: torch.Tensor, noise: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """√kept · latents + √(1 - kept) · noise; kept (B,): the share of variance that is left of the latents."""
    kept = kept.view(-1, 1, 1, 1)
    return kept.sqrt() * latents + (1 - kept).sqrt() * noise


def velocity(latents: torch.Tensor, noise: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """√kept · noise - √(1 - kept) · latents: what the UNet predicts, as that of Stable Diffusion 2 does; kept (B,).

    Noise alone is nearly given where there is nothing but noise, and so teaches nothing there; the latents alone are nearly
    given where there is no noise.  This is worth predicting at every step.  Salimans & Ho 2022, appendix D.
    """
    kept = kept.view(-1, 1, 1, 1)
    return kept.sqrt() * noise - (1 - kept).sqrt() * latents


def separate(noisy: torch.Tensor, v: torch.Tensor, kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(latents, noise) that give these noisy latents and this velocity; kept (B,)."""
    kept = kept.view(-1, 1, 1, 1)
    return kept.sqrt() * noisy - (1 - kept).sqrt() * v, (1 - kept).sqrt() * noisy + kept.sqrt() * v


def velocity_loss(
    model: TextToImage, batch: Batch, generator: torch.Generator, latents: Latents, kept: torch.Tensor, drop: float = 0.1
) -> dict[str, torch.Tensor]:
    """The mean squared error of the predicted velocity, per image.  Ho, Jain & Abbeel 2020, algorithm 1, for velocities.

    batch.labels: positions in `latents`; kept (STEPS,): `alphas_cumprod`.  A share `drop` of the prompts is emptied, so
    that the model also learns to draw without one: classifier-free guidance needs both (Ho & Salimans 2021).
    """
    index = batch.labels
    mean, count, on = latents.mean[index], len(index), batch.labels.device
    z = mean + latents.std[index] * randn_like(mean, generator)
    noise = randn_like(mean, generator)
    steps = draw(torch.rand, (count,), generator, device=on).mul(STEPS).long()  # 0 … STEPS - 1
    dropped = draw(torch.rand, (count, 1), generator, device=on) < drop
    prompts = torch.where(dropped, latents.empty, latents.prompts[index])  # (B, T)
    left = kept.to(on)[steps]
    predicted = model(diffuse(z, noise, left), steps, prompts)
    return {"loss": (predicted.float() - velocity(z, noise, left)).square().flatten(1).mean(1)}


def train_on_latents(
    vae: ConvVAE,
    dogs: DrawnDogs,
    seed: int = 0,
    run: str | None = None,
    watch: Callable | None = None,
    layers: int = 0,
    **length,
):
    """Text encoder and UNet, trained on the latents of `dogs`: a StableDiffusionPipeline.

    watch(pipeline, row) is called after each epoch; layers: of the text encoder; length: as of `fit`.
    """
    from helpers.diffusers_bridge import to_diffusers

    seed_everything(seed)
    resolution = dogs.images.shape[2]
    tokenizer = make_tokenizer(dogs.captions)
    text_encoder = make_text_encoder(tokenizer, layers=layers)
    unet = make_unet(text_encoder.config.hidden_size, vae.settings.latent_channels, resolution // vae.settings.factor)
    pipeline = make_pipeline(to_diffusers(vae, resolution), text_encoder, tokenizer, unet)
    latents = encode_dogs(vae, dogs, tokenizer)
    loss = functools.partial(velocity_loss, latents=latents, kept=pipeline.scheduler.alphas_cumprod)
    settings = {"batch_size": 32, "lr": 2e-3, "ema": 0.995, "seed": seed, "run": run}
    watcher = watch and (lambda _, row: watch(pipeline, row))
    fit(TextToImage(unet, text_encoder), loss, latents.as_set(dogs.source), watch=watcher, **settings, **length)
    return pipeline


class PromptStrip(Filmstrip):
    """Pictures of the same prompts as training goes on, after epochs 1, 2, 4, 8 …: the `watch` of `train_on_latents`."""

    def __init__(self, run: str, prompts: list[str]):
        self.folder, self.prompts = runs_dir() / run / "samples" / fingerprint(prompts), prompts
        self.count = len(prompts)

    def __call__(self, pipeline, row: dict) -> None:
        if row["epoch"].bit_count() == 1:  # a power of two
            self.save(sample(pipeline, self.prompts), row["epoch"])
