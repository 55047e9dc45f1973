"""Another VAE in the tiny Stable Diffusion: what the naive swap does, and each of the three cures.

The other VAE and the new UNet are trained on all cores, for as long as the pipeline's own were;
cures one and two on one core.  The VAE and what the cures trained come with the course as
checkpoints.  About 30 minutes.
"""

from functools import partial
from pathlib import Path

import torch

from helpers.classifiers.dogs import DogClassifier, prompt_accuracy
from helpers.data.synthetic_dogs import load_synthetic_dogs
from helpers.diffusers_bridge import from_diffusers, swap_vae, to_diffusers
from helpers.diffusion.alignment import (
    decoder_loss,
    distillation_loss,
    permute_latents,
    share_encoder,
    share_scale,
)
from helpers.diffusion.latents import train_on_latents
from helpers.diffusion.parts import load_tiny_sd, sample
from helpers.env import budget, published_dir
from helpers.metrics.images import psnr, reconstruct
from helpers.models.conv_vae import ConvVAE
from helpers.results import describe_device
from helpers.rng import seed_everything
from helpers.train_tiny_sd import POSE, SEEN, draw_prompts, load_seen, train_first_stage
from helpers.training.checkpoints import load_shipped, load_weights, read_tensors, save_model
from helpers.training.loop import fit
from tests.benchmarks.common import over_seeds, publish
from tests.benchmarks.parallel import side_by_side

NEEDS = ("checkpoints/tiny-sd", "checkpoints/dog_classifier")
WRITES = (
    "results/cures",
    "checkpoints/drawn_dogs_vae",
    "checkpoints/cure_decoder",
    "checkpoints/cure_distilled",
    "checkpoints/cure_unet",
)

DOGS = budget(quick=96, cpu=9600, gpu=9600)
PROMPTS = budget(quick=8, cpu=200, gpu=200)
PERMUTATIONS = budget(quick=2, cpu=100, gpu=100)
VAE_MINUTES = budget(quick=0.02, cpu=7.0, gpu=3.0)
CURE_MINUTES = budget(quick=0.02, cpu=6.0, gpu=3.0)
UNET_MINUTES = budget(quick=0.02, cpu=13.0, gpu=7.0)
MINE = "drawn_dogs_vae"
SEED = 1  # tiny-sd's own VAE has seed 0
CURES = {"decoder": (decoder_loss, share_encoder), "distilled": (distillation_loss, share_scale)}
NAMES = {
    "decoder": "cure one: a new decoder",
    "distilled": "cure two: a distilled encoder",
    "new UNet": "cure three: a new UNet",
}


def folder() -> Path:
    """Where checkpoints are written, and read again."""
    return published_dir("checkpoints")


def stored(name: str) -> ConvVAE:
    """A VAE that this benchmark has saved."""
    path = folder() / f"{name}.safetensors"
    model = ConvVAE(**read_tensors(path)[1]["config"])
    load_weights(model, path)
    return model.eval()


def tiny_sd():
    """The pipeline of bench_tiny_sd."""
    return load_tiny_sd(folder() / "tiny-sd")


def drawings(split: str = "test"):
    """Sitting dogs that no training sees."""
    return load_synthetic_dogs(96, 64, split, pose=POSE)


def measured(pipeline) -> dict:
    """The shares of the pipeline's pictures that show what was asked for."""
    prompts = draw_prompts(SEEN, PROMPTS)
    classifier = load_shipped(DogClassifier, "dog_classifier")
    shares = prompt_accuracy(classifier, sample(pipeline, prompts, seed=1), prompts)
    return {"shares": shares, "on": describe_device()}


@torch.no_grad()
def decoded_permuted(mine: ConvVAE) -> dict:
    """Shares of the pipeline's pictures read by `mine` with its latent channels permuted."""
    prompts = draw_prompts(SEEN, PROMPTS)
    classifier = load_shipped(DogClassifier, "dog_classifier")
    noise = [torch.Generator().manual_seed(1000 + i) for i in range(PROMPTS)]
    settings = {"num_inference_steps": 20, "guidance_scale": 3.0, "output_type": "latent"}
    scaled = tiny_sd()(prompts, generator=noise, **settings).images
    z = scaled / mine.config.scaling_factor
    rows = []
    for seed in range(PERMUTATIONS):
        images = permute_latents(mine, seed).decode(z).clamp(0, 1)
        rows.append(prompt_accuracy(classifier, images, prompts))
    return over_seeds(rows)


@torch.no_grad()
def psnr_of_old_latents(vae: ConvVAE) -> float:
    """PSNR of held-out drawings that the pipeline's own encoder wrote and `vae` decodes."""
    images = drawings().pixels()
    z = from_diffusers(tiny_sd().vae).encode(images).mode()
    return psnr(vae.decode(z).clamp(0, 1), images).mean().item()


def train_unet() -> dict:
    """Cure three: train text encoder and UNet anew, save them, and measure their pictures."""
    run = "bench_cures-unet"
    found = train_on_latents(stored(MINE), load_seen(DOGS), SEED, run, minutes=UNET_MINUTES)
    found.unet.half().save_pretrained(folder() / "cure_unet" / "unet")
    found.unet.float()
    # in fp32: transformers loads it in the dtype that is stored, diffusers the rest in fp32
    found.text_encoder.save_pretrained(folder() / "cure_unet" / "text_encoder")
    return {"minutes": UNET_MINUTES, "psnr": None} | measured(found)


def train_vae(cure: str) -> dict:
    """Cures one and two: train `mine` to take the old VAE's place, save it, and measure."""
    pipeline = tiny_sd()
    reference = from_diffusers(pipeline.vae)
    seed_everything(SEED)
    loss, begin = CURES[cure]
    mine = begin(stored(MINE), reference)
    settings = {"batch_size": 8, "lr": 2e-3, "ema": 0.99, "seed": SEED}
    settings |= {"run": f"bench_cures-{cure}", "minutes": CURE_MINUTES}
    fit(mine, partial(loss, reference=reference), load_seen(DOGS), **settings)
    save_model(f"cure_{cure}", mine, half=True)
    cured = stored(f"cure_{cure}")
    found = measured(swap_vae(pipeline, to_diffusers(cured)))
    return {"minutes": CURE_MINUTES, "psnr": psnr_of_old_latents(cured)} | found


def prepare() -> ConvVAE:
    """Train and save the other VAE."""
    dogs = load_seen(DOGS, seed=SEED)
    run = "bench_cures-mine"
    mine = train_first_stage(dogs, drawings("validation"), SEED, run, minutes=VAE_MINUTES)
    save_model(MINE, mine, half=True)
    return stored(MINE)


def main() -> None:
    mine = prepare()
    own = from_diffusers(tiny_sd().vae)
    rows = {}
    rows["its own VAE"] = {"minutes": 0, "psnr": psnr_of_old_latents(own)} | measured(tiny_sd())
    swapped = swap_vae(tiny_sd(), to_diffusers(mine))
    rows["another VAE, naively"] = {"minutes": 0, "psnr": psnr_of_old_latents(mine)}
    rows["another VAE, naively"] |= measured(swapped)
    permuted = decoded_permuted(mine)

    done = {"new UNet": train_unet()}
    done |= zip(CURES, side_by_side(train_vae, list(CURES)), strict=True)
    rows |= {name: done[cure] for cure, name in NAMES.items()}
    quality = psnr(reconstruct(mine, drawings()), drawings().pixels()).mean().item()
    values = {"prompts": PROMPTS, "rows": rows, "psnr of mine": quality, "permuted": permuted}
    publish("cures", values, seeds=[SEED], data="drawn dogs, embedded")


if __name__ == "__main__":
    main()
