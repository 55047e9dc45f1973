"""Another VAE in the tiny Stable Diffusion: what the naive swap does, and each of the three cures.  About 30 minutes.

The other VAE and the new UNet are trained on all cores, for as long as the pipeline's own were; cures one and two on one
core.  The VAE and what the cures trained come with the course as checkpoints.
"""

from functools import partial

import torch

from helpers.budget import budget, published_dir, seed_everything
from helpers.checkpoints import load_shipped, load_weights, read_tensors, save_model
from helpers.conv_vae import ConvVAE, to_signed, to_unit
from helpers.cures import decoder_loss, distillation_loss, other_language, speaks_like, with_encoder
from helpers.diffusers_bridge import from_diffusers, swap_vae, to_diffusers
from helpers.diffusion import train_on_latents
from helpers.dog_judge import DogJudge, adherence
from helpers.drawn_dogs import load_drawn_dogs
from helpers.image_metrics import psnr, reconstruct
from helpers.results import describe_device, save_result
from helpers.text_to_image import POSE, SEEN, draw_prompts, load_seen, train_vae
from helpers.tiny_sd import load_tiny_sd, sample
from helpers.training import fit
from tests.benchmarks.common import over_seeds, side_by_side

DOGS, PROMPTS = budget(quick=96, cpu=9600, gpu=9600), budget(quick=8, cpu=200, gpu=200)
LANGUAGES = budget(quick=2, cpu=100, gpu=100)
VAE_MINUTES, CURE_MINUTES, UNET_MINUTES = budget(quick=(0.02,) * 3, cpu=(7.0, 6.0, 13.0), gpu=(3.0, 3.0, 7.0))
MINE, SEED = "drawn_dogs_vae", 1  # tiny-sd's own VAE has seed 0
CURES = {"decoder": (decoder_loss, with_encoder), "distilled": (distillation_loss, speaks_like)}
NAMES = {
    "decoder": "cure one: a new decoder",
    "distilled": "cure two: a distilled encoder",
    "new UNet": "cure three: a new UNet",
}


def stored(name: str) -> ConvVAE:
    """A VAE that this benchmark has saved."""
    path = published_dir("checkpoints") / f"{name}.safetensors"
    model = ConvVAE(**read_tensors(path)[1]["config"])
    load_weights(model, path)
    return model.eval()


def tiny_sd():
    """The pipeline of bench_14."""
    return load_tiny_sd(published_dir("checkpoints") / "tiny-sd")


def judged(pipeline) -> dict:
    """The shares of the pipeline's pictures that show what was asked for."""
    prompts = draw_prompts(SEEN, PROMPTS)
    judge = load_shipped(DogJudge, "dog_judge")
    return {"shares": adherence(judge, sample(pipeline, prompts, seed=1), prompts), "on": describe_device()}


@torch.no_grad()
def in_other_languages(mine: ConvVAE) -> dict:
    """Shares of the pipeline's pictures read by `mine` with its channels shuffled, over as many shuffles as LANGUAGES."""
    prompts, pipeline, judge = draw_prompts(SEEN, PROMPTS), tiny_sd(), load_shipped(DogJudge, "dog_judge")
    noise = [torch.Generator().manual_seed(1000 + i) for i in range(PROMPTS)]
    settings = {"num_inference_steps": 20, "guidance_scale": 3.0, "output_type": "latent"}
    z = pipeline(prompts, generator=noise, **settings).images / mine.settings.scaling_factor
    decoders = (other_language(mine, seed) for seed in range(LANGUAGES))
    return over_seeds([adherence(judge, to_unit(vae.decode(z)).clamp(0, 1), prompts) for vae in decoders])


@torch.no_grad()
def read_old_latents(vae: ConvVAE) -> float:
    """PSNR of held-out drawings written by the pipeline's own encoder and read by the decoder of `vae`."""
    dogs, old = load_drawn_dogs(96, 64, "test", pose=POSE), from_diffusers(tiny_sd().vae)
    z = old.encode(to_signed(dogs.pixels())).mode()
    return psnr(to_unit(vae.decode(z)).clamp(0, 1), dogs.pixels()).mean().item()


def train(cure: str) -> dict:
    """Train one cure, save it, and judge its pictures."""
    dogs, mine, pipeline = load_seen(DOGS), stored(MINE), tiny_sd()
    run = f"bench_15_cures-{cure}"
    if cure == "new UNet":
        found = train_on_latents(mine, dogs, SEED, run, minutes=UNET_MINUTES)
        folder = published_dir("checkpoints") / "cure_unet"
        found.unet.half().save_pretrained(folder / "unet")
        found.unet.float()
        found.text_encoder.save_pretrained(folder / "text_encoder")  # in fp32, as `text_to_image.export` says
        return {"minutes": UNET_MINUTES, "psnr": None} | judged(found)
    old = from_diffusers(pipeline.vae)
    seed_everything(SEED)
    loss, begin = CURES[cure]
    settings = {"batch_size": 8, "lr": 2e-3, "ema": 0.99, "seed": SEED, "run": run}
    fit(begin(mine, old), partial(loss, old=old), dogs, minutes=CURE_MINUTES, **settings)
    save_model(f"cure_{cure}", mine, half=True)
    cured = stored(f"cure_{cure}")
    found = judged(swap_vae(pipeline, to_diffusers(cured)))
    return {"minutes": CURE_MINUTES, "psnr": read_old_latents(cured)} | found


def prepare() -> dict:
    """Train and save the other VAE; what the pipeline draws with its own VAE, and naively with this one."""
    dogs, validation = load_seen(DOGS, seed=SEED), load_drawn_dogs(96, 64, "validation", pose=POSE)
    save_model(MINE, train_vae(dogs, validation, SEED, "bench_15_cures-mine", minutes=VAE_MINUTES), half=True)
    mine, rows = stored(MINE), {}
    rows["its own VAE"] = {"minutes": 0, "psnr": read_old_latents(from_diffusers(tiny_sd().vae))} | judged(tiny_sd())
    swapped = swap_vae(tiny_sd(), to_diffusers(mine))
    rows["another VAE, naively"] = {"minutes": 0, "psnr": read_old_latents(mine)} | judged(swapped)
    test = load_drawn_dogs(96, 64, "test", pose=POSE)
    found = {"rows": rows, "languages": in_other_languages(mine)}
    return found | {"psnr of mine": psnr(reconstruct(mine, test), test.pixels()).mean().item()}


def main() -> None:
    found = prepare()
    done = {"new UNet": train("new UNet")}
    done |= zip(("decoder", "distilled"), side_by_side(train, ["decoder", "distilled"]), strict=True)
    rows = found["rows"] | {name: done[job] for job, name in NAMES.items()}
    values = {"prompts": PROMPTS, "rows": rows} | {key: found[key] for key in ("psnr of mine", "languages")}
    save_result("cures", values, seeds=[SEED], data="drawn dogs, embedded")


if __name__ == "__main__":
    main()
