# %% [markdown]
# # 7 · A tiny Stable Diffusion, from nothing
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/07_tiny_stable_diffusion.ipynb)
#
# | | |
# |---|---|
# | **You will build** | a complete text-to-image model: your VAE, a text encoder, a UNet and a sampler, trained together on two CPU cores; a `StableDiffusionPipeline` like the large ones |
# | **Minutes** | quick ½ · cpu 30 · gpu not timed yet |
# | **Hardware** | two CPU cores are enough; section 13, on photographs, wants a GPU |
# | **Download** | none (drawn dogs); photographs for section 13 only, 93 MB |
# | **You need to know** | [notebook 5](05_conv_attention_vae_dogs.ipynb): the VAE, attention; [notebook 6](06_diffusers_integration.ipynb): the pipeline's parts |
# | **You will see** | the pictures under the third code cell: dogs drawn from prompts, some of which were never in the training |

# %% tags=["setup"]
import os, pathlib, subprocess, sys  # finds the course, or fetches it; installs nothing
REPO = os.environ.get("COURSE_REPO", "https://github.com/OWNER/REPO")
here = pathlib.Path.cwd()
root = next((p for p in (here, *here.parents) if (p / "helpers").is_dir() and (p / "notebooks").is_dir()), here / "course")
if not root.exists():
    if "OWNER/REPO" in REPO:
        sys.exit("This notebook is away from its course: set COURSE_REPO to the course's git address and run this cell again.")
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", REPO, str(root)], check=True)
sys.path.insert(0, str(root))
import helpers
assert pathlib.Path(helpers.__file__).is_relative_to(root), "another package named helpers is in the way: restart the kernel"
helpers.require("1")

# %%
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial

import matplotlib.pyplot as plt
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
)
from IPython.display import Markdown
from torch import nn

from helpers import checks_text_to_image as check
from helpers import plots
from helpers.budget import budget, device, draw, generator_for, randn_like
from helpers.checkpoints import load_shipped
from helpers.conv_vae import to_signed, to_unit
from helpers.data import ImageSet
from helpers.diffusers_bridge import from_diffusers, to_diffusers
from helpers.diffusion import PromptStrip
from helpers.dog_judge import DogJudge, adherence
from helpers.drawn_dogs import load_drawn_dogs
from helpers.image_metrics import latent_statistics
from helpers.results import load_result
from helpers.text_to_image import NEVER_SEEN, SEEN, draw_prompts, load_seen
from helpers.tiny_sd import (
    STEPS, load_tiny_sd, make_pipeline, make_scheduler, make_text_encoder, make_tokenizer, make_unet, sample, tokenize,
)  # fmt: skip
from helpers.training import fit

# %% [markdown]
# ## Before anything else: the result
#
# The pipeline that this notebook builds comes with the course. Upper row: combinations of words that it was trained on. Lower row: combinations that it has **never seen** together.
#
# **Predict:** how can it know what a red dog with pointy ears looks like in snow, if no training picture shows one?

# %% tags=["teaser"]
pipeline = load_tiny_sd().to(device())
known, new = draw_prompts(SEEN[::7], 6), draw_prompts(NEVER_SEEN, 6)
rows = {"known: " + known[0] + ", …": sample(pipeline, known, seed=1), "never seen: " + ", ".join(new[:2]) + ", …": sample(pipeline, new, seed=1)}
plots.show(plots.image_rows(rows, size=1.3), "Six drawn dogs: " + "; ".join(known) + ". Six more: " + "; ".join(new) + ".")

# %% [markdown]
# Four networks in a row make such a picture, and you know one of them. The **text encoder** turns a prompt into vectors. The **UNet** sees noise and those vectors and says which part of it is noise. The **scheduler** takes a little of that away and asks again, some twenty times. And the **VAE**'s decoder turns the small picture that is left into pixels.
#
# ## 1 · Why in the latent?
#
# Because every one of those twenty questions costs. Let us ask the same UNet about pixels and about latents.
#
# **Predict** the ratio of the two times. The ratio of the numbers is printed.

# %%
vae = from_diffusers(pipeline.vae)
dogs = load_drawn_dogs(96, 64, "test")
with torch.no_grad():
    z = vae.encode(to_signed(dogs.pixels(device()))).mode()
print(f"a picture: {dogs.images[0].numel():,} numbers; its latent {tuple(z.shape[1:])}: {z[0].numel():,}")


@torch.no_grad()
def seconds_of_a_question(channels, side, batch=8, repeats=3):
    """The time that one pass of a UNet takes, on `batch` arrays (channels, side, side)."""
    unet = make_unet(latent_channels=channels, sample_size=side).to(device()).eval()
    x, words = torch.randn(batch, channels, side, side, device=device()), torch.randn(batch, 16, 96, device=device())
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        unet(x, torch.tensor(500), words).sample.sum().item()
        times.append(time.perf_counter() - started)
    return min(times[1:])


small, large = seconds_of_a_question(z.shape[1], z.shape[2]), seconds_of_a_question(3, 64)
print(f"one question about eight latents: {small:.3f} s; about eight pictures: {large:.3f} s, {large / small:.0f} times as long")

# %% [markdown]
# A latent also leaves out what a UNet would otherwise have to learn: the last detail of every edge, which the decoder puts back. That is the whole idea of *latent* diffusion (Rombach et al. 2022).
#
# ## 2 · Words become numbers
#
# Our captions look like «a golden dog with floppy ears on grass»: six coats, two kinds of ears, four grounds. A tokenizer cuts text into pieces and numbers them. CLIP's was learned by **byte pair encoding**: begin with letters; find the two neighbours that stand together most often; make them one piece; again and again.
#
# ### Exercise 1 · The first pair (5 minutes)
#
# `words` says how often each word occurs. Which two neighbouring letters stand together most often?

# %% tags=["later"]
def most_frequent_pair(words):
    """{word: how often it occurs} → the pair of neighbouring letters that stands together most often."""
    raise NotImplementedError

check.most_frequent_pair(most_frequent_pair)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `zip(word, word[1:])` gives all neighbours of one word. A `Counter` can be raised by more than one at a time.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def most_frequent_pair(words):
#     counts = Counter()
#     for word, often in words.items():
#         for pair in zip(word, word[1:], strict=False):
#             counts[pair] += often
#     return max(counts, key=counts.get)
# ```
#
# </details>

# %% tags=["nbval-check-output"]
captioned = load_seen(480)
tokenizer = make_tokenizer(captioned.captions)
for prompt in (captioned.captions[0], "a purple cat at night"):
    print(prompt, "→", tokenizer.convert_ids_to_tokens(tokenizer(prompt).input_ids)[1:-1])
print("tokens in all:", len(tokenizer))

# %% [markdown]
# Each word of our captions has become one token. A word that was not in them is read in pieces, and the model has no idea what «purple» is; section 12 asks it.
#
# ## 3 · What the UNet will see: latents, and their scale
#
# The noise that diffusion adds has a spread of 1. If the latents had another spread, «half noise» would mean something else for them. So they are multiplied by the scaling factor, which you measured in notebooks 5 and 6.

# %%
stats = latent_statistics(vae, dogs)
fig, axes = plt.subplots(1, 2, figsize=(8, 2.8), sharey=True)
for ax, factor, name in zip(axes, (1.0, vae.settings.scaling_factor), ("as encoded", "times the scaling factor"), strict=True):
    for channel in range(z.shape[1]):
        ax.hist((factor * z[:, channel]).flatten().cpu(), bins=60, range=(-5, 5), histtype="step", density=True, label=f"channel {channel}")
    ax.set(title=f"{name}: spread {(factor * z).std():.2f}", xlabel="latent")
axes[0].legend(fontsize=8)
plots.show(fig, "Histograms of the four latent channels, as encoded and after multiplication with the scaling factor.")

# %% [markdown]
# ## 4 · The way into the noise
#
# Forwards is easy: a thousand steps, each of which takes away a share β of what is there and puts as much noise in its place. After step t the picture is √kept · latent + √(1 − kept) · noise. `kept` is the share of variance that is left.
#
# ### Exercise 2 · What is left? (2 minutes)
#
# From `betas` (T,), the share that each step takes, compute the share of variance that is left after each step.

# %% tags=["later"]
def variance_kept(betas):
    """(T,) → (T,): the share of the latent's variance left after each step."""
    raise NotImplementedError

check.variance_kept(variance_kept)

# %% [markdown]
# <details><summary>Hint</summary>
#
# After the first step 1 − β₁ is left; the second one leaves 1 − β₂ *of that*.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def variance_kept(betas):
#     return (1 - betas).cumprod(dim=0)
# ```
#
# </details>

# %% tags=["nbval-check-output"]
def diffuse(latents, noise, kept):
    kept = kept.view(-1, 1, 1, 1)
    return kept.sqrt() * latents + (1 - kept).sqrt() * noise


scheduler = make_scheduler()
kept = scheduler.alphas_cumprod  # (1000,)
some, noise, at = torch.randn(3, 4, 6, 8), torch.randn(3, 4, 6, 8), torch.tensor([10, 500, 990])
print("the library's own noise:", torch.allclose(diffuse(some, noise, kept[at]), scheduler.add_noise(some, noise, at), atol=1e-6))
print("kept after 1, 250, 500, 1000 steps:", [round(kept[t].item(), 3) for t in (0, 249, 499, 999)])

# %%
scaled = vae.settings.scaling_factor * z
noise = torch.randn(z.shape, generator=generator_for("way into the noise")).to(device())
times = (0, 100, 250, 400, 600, 800, 999)
rows = {}
for dog in (0, 5):
    noisy = torch.cat([diffuse(scaled[dog : dog + 1], noise[dog : dog + 1], kept[t : t + 1].to(device())) for t in times])
    with torch.no_grad():
        rows[f"dog {dog}, decoded after {', '.join(map(str, times))} steps"] = to_unit(vae.decode(noisy / vae.settings.scaling_factor)).cpu()
plots.show(plots.image_rows(rows, size=1.1), "Two drawn dogs whose latents take on more and more noise, decoded: they dissolve step by step.")

# %% [markdown]
# ## 5 · What does the UNet predict?
#
# The noise. Whoever knows the noise knows the picture: the equation of section 4 has three parts, and the UNet is given one of them.
#
# ### Exercise 3 · Turn it round (3 minutes)
#
# From `noisy`, the `noise` in it and `kept` (B,), recover the latents.

# %% tags=["later"]
def remove_noise(noisy, noise, kept):
    """(B, C, h, w), (B, C, h, w), (B,) → the clean latents (B, C, h, w)."""
    raise NotImplementedError

check.remove_noise(remove_noise)

# %% [markdown]
# <details><summary>Hint</summary>
#
# noisy = √kept · latents + √(1 − kept) · noise. `kept.view(-1, 1, 1, 1)` broadcasts over a batch of latents.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def remove_noise(noisy, noise, kept):
#     kept = kept.view(-1, 1, 1, 1)
#     return (noisy - (1 - kept).sqrt() * noise) / kept.sqrt()
# ```
#
# </details>
#
# Now let the trained UNet guess the noise of a dog that it has never seen, at four depths. **Predict:** where will its guess be good, and what will the picture look like where it is not?

# %%
@torch.no_grad()
def guess(noisy, t, prompt):
    """The UNet's guess of the noise in `noisy` (B, C, h, w) at step t, with one prompt for all."""
    words = pipeline.text_encoder(tokenize(pipeline.tokenizer, [prompt] * len(noisy)).to(device()))[0]  # (B, 16, width)
    return pipeline.unet(noisy, torch.tensor(t, device=device()), words).sample


def cleaned(noisy, noise, kept):
    """Exercise 3."""
    return (noisy - (1 - kept).sqrt() * noise) / kept.sqrt()


rows, dog, caption = {"the dog": dogs[5:6].pixels()}, scaled[5:6], dogs.captions[5]
columns = {"noisy": [], "what the UNet believes to be under it": []}
for t in (100, 300, 600, 950):
    noisy = diffuse(dog, noise[5:6], kept[t : t + 1].to(device()))
    believed = cleaned(noisy, guess(noisy, t, caption), kept[t].to(device()))
    for name, latent in zip(columns, (noisy, believed), strict=True):
        with torch.no_grad():
            columns[name].append(to_unit(vae.decode(latent / vae.settings.scaling_factor)).cpu())
rows |= {f"{name}, after 100, 300, 600, 950 steps of noise": torch.cat(images) for name, images in columns.items()}
plots.show(plots.image_rows(rows, columns=4, size=1.5), f"{caption}; the same with more and more noise; and what the UNet makes of it in one step.")

# %% [markdown]
# With little noise it sees the dog. With much noise it sees *a* dog: the mean of all that fit the prompt, and therefore a blurred one. One step is not enough; that is why sampling takes many.
#
# ## 6 · The way back
#
# Take the noise off, but not all of it: believe the guess only as far as to the next, slightly smaller noise. Guess again. **DDIM**: clean the latents with the guess, then put *the same* noise back at the share of the next step.
#
# ### Exercise 4 · One step of DDIM (5 minutes)

# %% tags=["later"]
def ddim_step(noisy, noise, now, after):
    """Noisy latents at the share `now` (B,), with the guessed noise → those at the share `after` (B,)."""
    raise NotImplementedError

check.ddim_step(ddim_step)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Exercise 3, and then `diffuse` with `after`.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def ddim_step(noisy, noise, now, after):
#     now = now.view(-1, 1, 1, 1)
#     latents = (noisy - (1 - now).sqrt() * noise) / now.sqrt()
#     return diffuse(latents, noise, after)
# ```
#
# </details>

# %%
@torch.no_grad()
def draw_by_hand(prompts, steps=20, guidance=3.0, seed=0):
    """DDIM written out: latents of noise → latents of pictures, and what they looked like on the way."""
    times = torch.arange(steps).flip(0) * (STEPS // steps) + 1  # 951, 901, …, 1
    z = torch.stack([torch.randn(4, *scaled.shape[2:], generator=torch.Generator().manual_seed(seed + i)) for i in range(len(prompts))])
    z, seen = z.to(device()), []
    words = pipeline.text_encoder(tokenize(pipeline.tokenizer, [""] * len(prompts) + list(prompts)).to(device()))[0]
    for t in times.tolist():
        without, with_prompt = pipeline.unet(torch.cat([z, z]), torch.tensor(t, device=device()), words).sample.chunk(2)
        guess = without + guidance * (with_prompt - without)  # section 7
        after = kept[max(t - STEPS // steps, 0)].to(device())
        now = kept[t].to(device())
        z = after.sqrt() * cleaned(z, guess, now) + (1 - after).sqrt() * guess
        seen.append(cleaned(z, guess, after))
    return z, seen


z_hand, seen = draw_by_hand(known[:2])
by_hand = to_unit(vae.decode(z_hand / vae.settings.scaling_factor)).clamp(0, 1).cpu()
theirs = sample(pipeline, known[:2], seed=0)
print(f"largest difference between this loop and the library's pipeline: {(by_hand - theirs).abs().max():.4f}")
rows = {f"picture {i}: what it believes after steps 1, 4, 8, 12, 16, 20": torch.cat([to_unit(vae.decode(s[i : i + 1] / vae.settings.scaling_factor)).detach().cpu()
        for s in (seen[0], seen[3], seen[7], seen[11], seen[15], seen[19])]) for i in range(2)}  # fmt: skip
plots.show(plots.image_rows(rows, size=1.25), "Two dogs as the sampling believes them after more and more steps: first a blur of colours, then dogs.")

# %% [markdown]
# The first belief is a blur in the right colours: the mean of all dogs that fit. Then a pose is chosen, then ears and a face. Where does the choice come from? From the noise it began with, and from nothing else: the same seed gives the same dog.
#
# ## 7 · Listen to the prompt: guidance
#
# One line of the loop was not explained. The UNet is asked twice, with the prompt and with an empty one, and the answer is pushed *beyond* the one with the prompt.
#
# ### Exercise 5 · Guide (2 minutes)

# %% tags=["later"]
def guide(without, with_prompt, guidance):
    """Two guesses of the noise (B, C, h, w) → the one to use; guidance 1 is the one with the prompt."""
    raise NotImplementedError

check.guide(guide)

# %% [markdown]
# <details><summary>Hint</summary>
#
# On the line from `without` (guidance 0) through `with_prompt` (guidance 1), and on.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def guide(without, with_prompt, guidance):
#     return without + guidance * (with_prompt - without)
# ```
#
# </details>
#
# **Predict:** what does guidance 0 draw? And 12?

# %%
judge = load_shipped(DogJudge, "dog_judge").to(device())
asked = draw_prompts(SEEN, budget(quick=16, cpu=120, gpu=200))
rows = {}
for guidance in budget(quick=(1.0, 3.0), cpu=(0.0, 1.0, 3.0, 6.0, 12.0), gpu=(0.0, 1.0, 3.0, 6.0, 12.0)):
    share = adherence(judge, sample(pipeline, asked, guidance=guidance), asked)
    rows[f"guidance {guidance:g}: coat right in {share['coat']:.0%}, ears {share['ears']:.0%}, ground {share['ground']:.0%}"] = sample(pipeline, known, guidance=guidance, seed=1)
plots.show(plots.image_rows(rows, size=1.0), "The same six prompts with more and more guidance.")

# %% [markdown]
# Without guidance the prompt is heard, but not always; with too much of it every colour is exaggerated. The pipeline's usual value for large models is 7.5; here, less does.
#
# ## 8 · Train it
#
# All parts are on the table. `TextToImage` is what is trained: text encoder and UNet together. (Stable Diffusion took a finished text encoder, CLIP's. Ours knows no words yet, so it learns them on the way.)

# %%
class TextToImage(nn.Module):
    def __init__(self, unet, text_encoder):
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder

    def forward(self, noisy, steps, prompts):
        words = self.text_encoder(prompts)[0]  # (B, T) → (B, T, width)
        return self.unet(noisy, steps, words).sample  # (B, C, h, w)


@dataclass(frozen=True)
class Latents:
    mean: torch.Tensor
    std: torch.Tensor
    prompts: torch.Tensor
    empty: torch.Tensor

    def as_set(self, source):
        return ImageSet(torch.zeros(len(self.mean), 1, 1, 1, dtype=torch.uint8), torch.arange(len(self.mean)), source)


# %% [markdown]
# Encoding takes time, and is the same in every epoch: so all dogs are encoded **once**, and what is stored is their posterior. Each step draws from it, so no two steps see quite the same latent. The loss is four lines of mathematics: draw a latent, noise and a step; mix; ask; compare.

# %%
@torch.no_grad()
def encode_dogs(vae, dogs, tokenizer):
    on = next(vae.parameters()).device
    posteriors = [vae.encode(to_signed(dogs[i : i + 100].pixels(on))) for i in range(0, len(dogs), 100)]
    scale = vae.settings.scaling_factor
    prompts, empty = (tokenize(tokenizer, texts).to(on) for texts in (list(dogs.captions), [""]))
    return Latents(*(scale * torch.cat([getattr(p, name) for p in posteriors]) for name in ("mean", "std")), prompts, empty)


def noise_loss(model, batch, generator, latents, kept, drop=0.1):
    index = batch.labels
    mean, count, on = latents.mean[index], len(index), batch.labels.device
    z = mean + latents.std[index] * randn_like(mean, generator)
    noise = randn_like(mean, generator)
    steps = draw(torch.rand, (count,), generator, device=on).mul(STEPS).long()  # 0 … STEPS - 1
    dropped = draw(torch.rand, (count, 1), generator, device=on) < drop
    prompts = torch.where(dropped, latents.empty, latents.prompts[index])  # (B, T)
    predicted = model(diffuse(z, noise, kept.to(on)[steps]), steps, prompts)
    return {"loss": (predicted.float() - noise).square().flatten(1).mean(1)}


# %% [markdown]
# A tenth of the prompts is emptied: so the UNet also learns to draw without one, which guidance needs. Eight of the 48 combinations are left out, to see whether words are understood one by one.
#
# The VAE comes with the course here, so that the time goes where the news is; `python -m helpers.text_to_image` trains everything from nothing.
#
# **Predict:** what will be learned first: ground, coat or ears?

# %%
seed_everything(0)
training_dogs = load_seen(budget(quick=96, cpu=9600, gpu=9600))
words = make_tokenizer(training_dogs.captions)
text_encoder = make_text_encoder(words)
unet = make_unet(text_encoder.config.hidden_size, sample_size=z.shape[2])
mine = make_pipeline(to_diffusers(vae), text_encoder, words, unet).to(device())
latents = encode_dogs(vae, training_dogs, words)
strip = PromptStrip("tiny-sd-notebook", known[:4] + new[:2])
history = fit(
    TextToImage(unet, text_encoder), partial(noise_loss, latents=latents, kept=kept), latents.as_set(training_dogs.source),
    minutes=budget(quick=0.05, cpu=14, gpu=8), batch_size=32, lr=2e-3, ema=0.999, run="tiny-sd-notebook",
    watch=lambda _, row: strip(mine, row),
)  # fmt: skip
print(f"{len(history.rows)} epochs; loss {history['loss'][0]:.3f} → {history['loss'][-1]:.3f}")
assert history["loss"][-1] < 1.0, "a prediction of nothing at all has a loss of 1"

# %%
frames = strip.frames()
plots.show(
    plots.image_rows({f"after epoch {epoch}": pictures for epoch, pictures in frames.items()}, size=1.0),
    "A filmstrip of six prompts as training goes on: from coloured fog over grounds and blots to dogs.",
)

# %% [markdown]
# The ground first: it fills the picture and is the easiest to predict. Then the coat, then what a dog *is*, and last the ears, which are a few latents large. And how well are the words understood, in the end? By the judge of notebook 6, for three trainings with different seeds, of twenty minutes on one core each (`make bench`):

# %%
measured = load_result("tiny_sd")["values"]
lines = [
    f"| {kind} | " + " | ".join(f"{100 * share['mean']:.1f} ± {100 * share['sd']:.1f} %" for share in found.values()) + " |"
    for kind, found in measured["shares"].items()
]
ours = adherence(judge, sample(mine, asked, seed=1), asked)
lines.append("| the one that you trained | " + " | ".join(f"{share:.0%}" for share in ours.values()) + " |")
Markdown(
    f"{measured['minutes']:g} minutes on {measured['on']}, mean ± sd of three seeds; the judge is right on "
    f"{measured['judge on drawings']['all three']:.1%} of held-out drawings\n\n"
    "| prompts | coat | ears | ground | all three |\n|---|---|---|---|---|\n" + "\n".join(lines)
)

# %% [markdown]
# The row «never seen» is the answer to the question at the top: what a red dog is was learned from other red dogs, what snow is from other dogs in snow, and cross-attention lets every place of the picture ask for the word that concerns it. Words are combined, pictures are not looked up.
#
# ## 9 · How many steps, and whose?
#
# The scheduler is not trained; it can be exchanged. DDIM is the one you wrote. Euler and DPM-Solver++ take more care of where the curve goes, and so need fewer steps.
#
# **Predict:** how few steps are enough?

# %%
kinds = {"DDIM": None, "Euler": EulerDiscreteScheduler, "DPM-Solver++": DPMSolverMultistepScheduler}
lines, rows, plain = [], {}, pipeline.scheduler
for name, kind in kinds.items():
    pipeline.scheduler = kind.from_config(plain.config) if kind else plain
    for steps in budget(quick=(4,), cpu=(3, 6, 12, 25), gpu=(3, 6, 12, 25, 50)):
        started = time.perf_counter()
        pictures = sample(pipeline, asked, steps=steps)
        took, share = time.perf_counter() - started, adherence(judge, pictures, asked)
        lines.append(f"| {name} | {steps} | {share['all three']:.0%} | {16 * took / len(asked):.2f} |")
        if steps == budget(quick=4, cpu=6, gpu=6):
            rows[f"{name}, {steps} steps"] = sample(pipeline, known, steps=steps, seed=1)
pipeline.scheduler = plain
plots.show(plots.image_rows(rows, size=1.0), "The same six prompts drawn with few steps of three schedulers.")
Markdown("| scheduler | steps | all three right | seconds for 16 pictures |\n|---|---|---|---|\n" + "\n".join(lines))

# %% [markdown]
# ## 10 · The library's other pipelines, with our parts
#
# Nothing new has to be trained for them. **Image to image**: do not begin with noise, but with a picture that is noised part of the way; `strength` says how far. **Inpainting**: draw only where the mask is white.

# %%
to_image = StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
inpaint = StableDiffusionInpaintPipeline(**pipeline.components, requires_safety_checker=False)
for other in (to_image, inpaint):
    other.set_progress_bar_config(disable=True)
start, text = dogs[5:6].pixels(), dogs.captions[5]
wish = "a red dog with pointy ears on snow"
rows = {f"from: {text}; wish: {wish}; strength 0, 0.3, 0.5, 0.7, 0.9": [start]}
for strength in (0.3, 0.5, 0.7, 0.9):
    seed = torch.Generator().manual_seed(0)
    found = to_image(wish, image=start, strength=strength, num_inference_steps=30, guidance_scale=3.0, generator=seed, output_type="pt")
    rows[next(iter(rows))].append(found.images.float().cpu())
rows = {name: torch.cat(images) for name, images in rows.items()}
plots.show(plots.image_rows(rows, size=1.5), f"{text}, turned more and more into {wish}.")

# %%
mask = torch.zeros(1, 1, 64, 64)
mask[..., 34:, :] = 1.0  # the ground, the lower half
found = [start, torch.where(mask > 0, torch.ones_like(start), start)]
for ground in ("on grass", "on sand", "on snow", "at night"):
    seed = torch.Generator().manual_seed(0)
    asked_for = text.rsplit(" ", 2)[0] + " " + ground
    done = inpaint(asked_for, image=start, mask_image=mask, height=64, width=64, num_inference_steps=30, guidance_scale=3.0,
                   strength=1.0, generator=seed, output_type="pt")  # fmt: skip
    found.append(done.images.float().cpu())
plots.show(plots.image_rows({"the drawing; its mask; the lower half on grass, on sand, on snow, at night": torch.cat(found)}, size=1.4),
           "A drawn dog, the part that is masked, and four new lower halves.")

# %% [markdown]
# ## 11 · What if the latent scale is wrong?
#
# Notebook 6 lied about the scale while drawing. Worse is a wrong one in *training*: with latents four times too large «half noise» is hardly any noise, with latents four times too small hardly anything is left at all. `make bench` trained the same for the same time with three scales:

# %%
scales = load_result("tiny_sd_scale")["values"]
Markdown(
    f"{scales['steps']:,} steps each; {scales['prompts']} prompts\n\n| spread of the latents | coat | ears | ground | all three |\n|---|---|---|---|---|\n"
    + "\n".join(
        f"| {row['spread']:.2f} | " + " | ".join(f"{row['shares'][k]:.0%}" for k in ("coat", "ears", "ground", "all three")) + " |"
        for row in scales["rows"]
    )
)

# %% [markdown]
# ## 12 · A gallery
#
# Choose words, and a seed. Look for the words it has never seen together.

# %%
widgets.prompt_gallery(pipeline)

# %% [markdown]
# And a word that it does not know at all? **Predict** the colour of a purple dog.

# %%
strange = ["a purple dog with floppy ears on grass", "a dog", "a black white dog with pointy ears on sand", ""]
plots.show(plots.image_rows({"; ".join(map(repr, strange)): torch.cat([sample(pipeline, [p] * 3, seed=s) for s, p in enumerate(strange)])}, size=0.9),
           "Three dogs each for four strange prompts.")  # fmt: skip

# %% [markdown]
# ### Exercise 6 · Fewer questions (10 minutes, or longer)
#
# Draw the prompts that the check gives you with **at most eight** questions to the UNet each (with guidance, a question is one pass for both guesses), and have at least nine in ten right. Anything goes: a scheduler of the library, another guidance, your own loop with steps where they matter.

# %% tags=["later"]
def draw_quickly(pipeline, prompts):
    """A StableDiffusionPipeline and N prompts → pictures (N, 3, 64, 64) in [0, 1]."""
    raise NotImplementedError

check.draw_quickly(draw_quickly)

# %% [markdown]
# <details><summary>Hint</summary>
#
# The table of section 9. `DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)` is one line; put the old scheduler back afterwards.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def draw_quickly(pipeline, prompts):
#     before = pipeline.scheduler
#     pipeline.scheduler = DPMSolverMultistepScheduler.from_config(before.config)
#     pictures = sample(pipeline, prompts, steps=8)
#     pipeline.scheduler = before
#     return pictures
# ```
#
# </details>

# %% [markdown]
# ## 13 · On photographs, with a GPU
#
# The same without words, on the latents of real dogs: notebook 5's VAE, the library's `UNet2DModel`, the same loss without a prompt. Photographs are harder than drawings by far: on a T4 an hour gives dog-shaped colours, a day gives dogs. The cell trains where there is a GPU, and shows the code where there is none.

# %%
class Unconditional(nn.Module):
    def __init__(self, channels, side):
        super().__init__()
        self.unet = UNet2DModel(sample_size=side, in_channels=channels, out_channels=channels, block_out_channels=(128, 256, 256),
                                down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
                                up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"), layers_per_block=2)  # fmt: skip

    def forward(self, noisy, steps, prompts):
        return self.unet(noisy, steps).sample


if profile() == "gpu":
    photo_vae = load_shipped(ConvVAE, "dogs_vae").to(device())
    photos = encode_images(photo_vae, load_dogs(64, "train"))
    painter = Unconditional(4, 16)
    fit(painter, partial(noise_loss, latents=photos, kept=kept), photos.as_set("photographs"), minutes=10, batch_size=64, lr=3e-4, ema=0.999)
else:
    print("no GPU: nothing is trained here")
