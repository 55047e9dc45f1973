# %% [markdown]
# # 6 · Your VAE in a real pipeline
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/06_diffusers_integration.ipynb)
#
# | | |
# |---|---|
# | **You will build** | the bridge between your VAE and Hugging Face diffusers, both ways; and three cures for the noise that everybody gets who puts their own VAE into a trained pipeline |
# | **Minutes** | quick ½ · cpu 10 · gpu not timed yet |
# | **Hardware** | two CPU cores are enough |
# | **Download** | none; optional, on a GPU: a VAE of Stable Diffusion, 335 MB, and Stable Diffusion 1.5 itself, 4 GB |
# | **You need to know** | [notebook 5](05_conv_attention_vae_dogs.ipynb): the network, its latent, the scaling factor |
# | **You will see** | the pictures under the third code cell, the same prompts as blots in section 4, and as dogs again in sections 6 to 8 |

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
import copy
import json
import tempfile
import warnings
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ConfigMixin, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import AutoencoderMixin, DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from IPython.display import Markdown
from torch import nn
from transformers import CLIPTextModel

from helpers import CourseError, plots
from helpers import checks_diffusers as check
from helpers.blocks import AttentionBlock, Downsample, ResBlock
from helpers.budget import budget, device, generator_for, seed_everything
from helpers.checkpoints import load_shipped
from helpers.conv_vae import ConvVAE, VAEConfig, image_loss, to_signed, to_unit
from helpers.cures import linear_map, other_language
from helpers.data import load_dogs, load_mnist
from helpers.diffusers_bridge import DiffusersVAE, StableDiffusionPipeline, from_diffusers, swap_vae, to_diffusers
from helpers.diffusion import TextToImage, encode_dogs, velocity_loss
from helpers.dog_judge import DogJudge, adherence
from helpers.drawn_dogs import draw_dog, load_drawn_dogs
from helpers.image_metrics import latent_statistics, psnr, reconstruct
from helpers.losses import bernoulli_nll, calibrated_gaussian_nll, negative_elbo
from helpers.mlp import MLPVAE
from helpers.results import load_result
from helpers.text_to_image import SEEN, draw_prompts, load_seen
from helpers.tiny_sd import TINY_SD, load_tiny_sd, make_pipeline, make_text_encoder, make_unet, sample
from helpers.training import fit
from helpers.weight_names import COMPVIS, DIFFUSERS

# %% [markdown]
# ## Before anything else: the pipeline
#
# `StableDiffusionPipeline` is the library's own class, the one that draws astronauts on horses. This one is small: it was trained for this course, on drawings of dogs (notebook 7 trains it, from nothing). It has the four parts of its large sister. The **text encoder** turns a prompt into vectors. The **UNet** is given a noisy latent and those vectors, and says which part of it is noise. The **scheduler** takes a little of that away and asks again, some twenty times. The **VAE**'s decoder turns the latent that is left into pixels.

# %% tags=["teaser"]
MODEL = TINY_SD  # or, on a Colab GPU: "stable-diffusion-v1-5/stable-diffusion-v1-5" (4 GB), for the second half of section 4
pipeline = load_tiny_sd().to(device())
paint = partial(sample, steps=budget(quick=5, cpu=20, gpu=20))
prompts = draw_prompts(SEEN[::7], 6)
before = paint(pipeline, prompts, seed=1)
plots.show(plots.image_rows({"; ".join(prompts[:2]) + " …": before}, size=1.3), "Six drawn dogs: " + "; ".join(prompts) + ".")

# %% [markdown]
# Take its VAE out, put yours in: what happens? That is the question of this notebook.
#
# ## 1 · What does a pipeline ask of its VAE?
#
# Nobody says; so give it something wrong and read the error. `mine` is a VAE as you built it in notebook 5: not the pipeline's own, but trained on other drawings of the same kind, with another seed, and just as good (section 4 measures that).
#
# **Predict:** what will the pipeline miss first: a method with another name, a setting, or something that has nothing to do with pictures?

# %%
mine = load_shipped(ConvVAE, "drawn_dogs_vae").to(device())
copied = copy.deepcopy(mine).cpu()  # these attempts are made on the CPU, where the library asks for most


def attempt(vae, note):
    """Put `vae` into the pipeline, ask for two dogs, and say how far that went."""
    broken = load_tiny_sd()
    try:
        broken.vae = vae
        found = broken(prompts[:2], num_inference_steps=2, output_type="pt").images
        print(f"{note:42} pictures of shape {tuple(found.shape)}")
    except Exception as error:
        print(f"{note:42} {type(error).__name__}: {str(error).splitlines()[0][:90]}")


class Placed(nn.Module):
    """What the pipeline missed first: a device."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, network):
        super().__init__()
        self.network = network

    def decode(self, z):
        return self.network.decode(z)


attempt(copied, "our ConvVAE as it is:")
attempt(Placed(copied), "with a device:")


# %% [markdown]
# The first message names the pipeline and not the VAE, although it is the VAE's `device` that is missing. The next thing it looks for is a configuration: `config.scaling_factor`, and when it is built also `len(config.block_out_channels)`, from which it takes the factor. Go on:

# %%
class Configured(Placed):
    def __init__(self, network):
        super().__init__(network)
        self.config = SimpleNamespace(scaling_factor=1.0, block_out_channels=(8, 16, 32, 64))


class Named(Configured):
    def decode(self, z, return_dict=True, generator=None):  # the arguments that the library's VAE takes
        return self.network.decode(z)


class Wrapped(Named):
    def decode(self, z, return_dict=True, generator=None):
        return (super().decode(z),)  # a tuple, of which the pipeline takes the first


attempt(Configured(copied), "with a configuration:")
attempt(Named(copied), "with the library's arguments:")
attempt(Wrapped(copied), "with a tuple around the pictures:")

# %% [markdown]
# Look at the second line: no error at all, and of two pictures one is left, because the pipeline takes element `[0]` of what it gets, and that was the first picture of the batch. And the last one runs, but cannot be saved, loaded, cast or moved like the pipeline's other parts. So do not patch. There are two clean ways: **convert** it (section 2), or **adapt** it (section 3).
#
# ### Exercise 1 · What the pipeline computes (2 minutes)
#
# When it is built, the pipeline computes its VAE's factor from `block_out_channels`; the number of latent channels is that of its UNet's input. So it knows which latents belong to a picture of `height` × `width`, and so do you.

# %% tags=["exercise"]
def latent_shape(latent_channels, block_out_channels, height, width):
    """(channels, height, width) of the latents of one picture."""
    raise NotImplementedError

check.latent_shape(latent_shape)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Every level but the last halves both sides: how many halvings do `n` levels have?
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def latent_shape(latent_channels, block_out_channels, height, width):
#     factor = 2 ** (len(block_out_channels) - 1)
#     return latent_channels, height // factor, width // factor
# ```
#
# </details>

# %% [markdown]
# ## 2 · Cure zero: the same network under other names
#
# Notebook 5 said: what you wrote *is* Stable Diffusion's autoencoder. If that is so, every one of its weights must have a place in the library's `AutoencoderKL`, and both must compute the same. The table of names is all there is to a conversion:

# %% tags=["nbval-check-output"]
Markdown("| ours | diffusers' `AutoencoderKL` | CompVis', the authors' |\n|---|---|---|\n" + "\n".join(
    f"| `{ours}` | `{theirs}` | `{COMPVIS.get(ours, ours)}` |" for ours, theirs in DIFFUSERS.items()
))

# %% [markdown]
# `I` and `J` are numbers. Two things are more than a name: CompVis' attention is made of 1×1 convolutions, weights (C, C, 1, 1), where ours has matrices (C, C); and CompVis counts the decoder's levels from high resolution to low, where ours and the library's count in the order in which they are passed.
#
# ### Exercise 2 · Rename (5 minutes)
#
# Write the part of it that concerns the encoder's residual blocks: `encoder.stages.I.blocks.J.…` becomes `encoder.down_blocks.I.resnets.J.…`, and in it `shortcut` becomes `conv_shortcut`. All other keys stay as they are, the decoder's too.

# %% tags=["exercise"]
def rename_key(key):
    """The library's name of one weight of an encoder's residual block; any other key unchanged."""
    raise NotImplementedError

check.rename_key(rename_key)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `key.startswith("encoder.stages.")` and `".blocks."` tell the keys in question; three times `replace` does the rest. Mind `encoder.stages.0.resample.conv.weight`.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def rename_key(key):
#     if not (key.startswith("encoder.stages.") and ".blocks." in key):
#         return key
#     key = key.replace("encoder.stages.", "encoder.down_blocks.").replace(".blocks.", ".resnets.")
#     return key.replace(".shortcut.", ".conv_shortcut.")
# ```
#
# </details>

# %% [markdown]
# Now the whole network. **Predict:** how far apart will the two be? Zero?

# %% tags=["nbval-check-output"]
converted = to_diffusers(mine)  # the library loads all weights, strictly: none missing, none left over
x = torch.rand(1, 3, 64, 96, generator=generator_for("bridge")).to(device()) * 2 - 1
with torch.no_grad():
    ours, theirs = mine.encode(x), converted.encode(x).latent_dist
    apart = [(ours.mean - theirs.mean), (mine.decode(ours.mean) - converted.decode(ours.mean).sample)]
print("a", type(converted).__name__, "of", f"{converted.num_parameters():,}", "parameters")
print("encoded and decoded alike, to 0.0001:", all(d.abs().max() < 1e-4 for d in apart))
print("and back again, the same weights:", all(
    torch.equal(a, b) for a, b in zip(from_diffusers(converted).state_dict().values(), mine.state_dict().values())
))

# %%
print("largest difference of the latents and of the pictures:", *(f"{d.abs().max():.1g}" for d in apart))

# %% [markdown]
# Zero, or what rounding leaves, where one of the two adds the same numbers in another order. But does a port go *wrong* loudly, if it goes wrong? Here are a right one and three wrong ones, all of which load every weight without a word. Predict which of them you would notice in a picture.

# %%
def wrong_ports():
    """{what is wrong: a copy of `mine` with it}."""
    ports = {name: copy.deepcopy(mine) for name in ("as it should be", "padding on all sides", "no activation before conv2", "eps 1e-5")}
    for module in ports["padding on all sides"].modules():
        if isinstance(module, Downsample):
            module.forward = lambda x, conv=module.conv: F.conv2d(x, conv.weight, conv.bias, stride=2, padding=1)
    for block in ports["no activation before conv2"].modules():
        if isinstance(block, ResBlock):
            block.forward = lambda x, b=block: b.shortcut(x) + b.conv2(b.norm2(b.conv1(F.silu(b.norm1(x)))))
    for module in ports["eps 1e-5"].modules():
        if isinstance(module, nn.GroupNorm):
            module.eps = 1e-5
    return ports


dogs = load_drawn_dogs(96, 64, "test", pose="sitting")
some = dogs[:6].pixels(device())
rows = {"drawings": dogs[:6].pixels()}
with torch.no_grad():
    for name, port in wrong_ports().items():
        z = port.encode(to_signed(some)).mode()
        error = (z - converted.encode(to_signed(some)).latent_dist.mode()).norm() / z.norm()
        rows[f"{name}: latents off by {error:.1g}"] = to_unit(port.decode(z)).cpu()
plots.show(plots.image_rows(rows, size=1.0), "Six drawn dogs, and what a right and three wrong ports make of them.")

# %% [markdown]
# Compare the numbers above the rows with what you see. Not every fault shows, and a wrong eps shows least of all; so the tests of this course compare the eps itself. That is the lesson of every port: *it loads* means nothing, *it looks right* means little, compare numbers.
#
# On a GPU with a connection to the hub the next cell loads a VAE of Stable Diffusion 1 (its encoder, with the decoder that was trained anew for it) into **your** class, 83,653,863 weights, and reconstructs dogs with it. In the tests the same is done with random weights of the full size, in both directions.

# %%
LOAD_THE_REAL_ONE = False  # True on Colab: 335 MB from huggingface.co
if LOAD_THE_REAL_ONE:
    real = from_diffusers(AutoencoderKL.from_pretrained("stabilityai/sd-vae-ft-mse")).to(device()).eval()
    large = load_drawn_dogs(4, 256, "test", pose="sitting").pixels(device())  # at 64 pixels its latent would be 8×8
    with torch.no_grad():
        through = to_unit(real.decode(real.encode(to_signed(large)).mode())).cpu()
    print(f"{sum(p.numel() for p in real.parameters()):,} weights in our class; {psnr(through.clamp(0, 1), large.cpu()).mean():.1f} dB")
    plots.show(plots.image_rows({"drawings": large.cpu(), "through Stable Diffusion's VAE": through}, size=2.0), "Four dogs through it.")

# %% [markdown]
# ## 3 · An adapter, for networks that are not Stable Diffusion's
#
# `AutoencoderKL` has one attention head, and always this architecture. Whatever else you built needs an **adapter**: a class of the library's kind around your network. `ModelMixin` brings saving, loading, casting; `ConfigMixin` writes the arguments of `__init__` into a `config.json`; `AutoencoderMixin` the switches for slicing and tiling. This is the smallest one that works:

# %% tags=["nbval-check-output"]
class SmallAdapter(ModelMixin, AutoencoderMixin, ConfigMixin):
    @register_to_config
    def __init__(self, block_out_channels=(8, 16, 32, 64), latent_channels=8, heads=2, scaling_factor=1.0):
        super().__init__()
        self.network = ConvVAE(VAEConfig(tuple(block_out_channels), latent_channels, blocks=1, groups=2, heads=heads))

    def encode(self, x, return_dict=True):
        posterior = self.network.encode(x)
        moments = torch.cat([posterior.mean, posterior.logvar], dim=1)  # (B, 2·latent, H/f, W/f)
        found = DiagonalGaussianDistribution(moments)  # the library's
        return AutoencoderKLOutput(latent_dist=found) if return_dict else (found,)

    def decode(self, z, return_dict=True, generator=None):
        images = self.network.decode(z)
        return DecoderOutput(sample=images) if return_dict else (images,)


with tempfile.TemporaryDirectory() as folder:
    small = SmallAdapter(scaling_factor=0.9)
    small.save_pretrained(folder)
    again = SmallAdapter.from_pretrained(folder)
    print(sorted(os.listdir(folder)), again.config.scaling_factor, again.dtype)
attempt(small, "the adapter, untrained:")
print("where it would be looked for when the pipeline is loaded again:", type(small).__module__)

# %% [markdown]
# The last line is a trap: a class that lives in a notebook is saved as `__main__.SmallAdapter`, which nobody else can load. So the course's own adapter lives in a file, `helpers.diffusers_bridge.DiffusersVAE`, with slicing, tiling and gradient checkpointing as well. (diffusers imports no foreign file by itself: `import helpers.diffusers_bridge` before `from_pretrained`.)
#
# Two more traps, in one cell:

# %% tags=["nbval-check-output"]
adapted = DiffusersVAE.of(mine)
adapted.config.scaling_factor = 0.5
print("after an assignment the saved configuration says 0.5:", json.loads(adapted.to_json_string())["scaling_factor"] == 0.5)
adapted.register_to_config(scaling_factor=0.5)
print("after register_to_config:", json.loads(adapted.to_json_string())["scaling_factor"] == 0.5)
half = load_tiny_sd()
half.unet.half()
half.vae = adapted
print("an assigned VAE is in the pipeline's dtype:", half.vae.dtype == half.unet.dtype)
print("swap_vae checks, and casts:", swap_vae(half, adapted).vae.dtype == half.unet.dtype)

# %% [markdown]
# And what if it cannot fit at all? The library samples all its steps, and then fails with the shape of some convolution. `swap_vae` says it before:

# %%
four = to_diffusers(ConvVAE(VAEConfig.course(8, latent_channels=4)))
attempt(four, "4 latent channels, assigned:")
try:
    swap_vae(load_tiny_sd(), four)
except CourseError as why:
    print("swap_vae:", why)

# %% [markdown]
# ## 4 · Injection
#
# Now it fits, formally. Everybody's next line is this one, with `MODEL = "stable-diffusion-v1-5/stable-diffusion-v1-5"` and «a photo of a dog». Here it is our small pipeline, which needs no network.
#
# **Predict:** the VAE is well trained, the UNet is well trained. What comes out?

# %%
injected = StableDiffusionPipeline.from_pretrained(TINY_SD, vae=to_diffusers(mine)).to(device())
injected.set_progress_bar_config(disable=True)
naive = paint(injected, prompts, seed=1)
plots.show(
    plots.image_rows({"with its own VAE": before, "with mine": naive}, size=1.3),
    "Above, six dogs of the pipeline; below, the same with another VAE: coloured blots.",
)

# %% [markdown]
# Blots. Some light and dark came through, and no dog. The same with the real one, if you said so at the top. It wants latents of 4 channels, so a VAE that has them is trained for it first.

# %%
if MODEL != TINY_SD:
    guest = ConvVAE(VAEConfig.course(8))
    fit(guest, partial(image_loss, beta=0.1), load_dogs(128, "train"), minutes=5, batch_size=8, lr=3e-3, ema=0.99)
    guest.settings = replace(guest.settings, scaling_factor=latent_statistics(guest, load_dogs(128, "validation")).scaling_factor)
    unfiltered = {"safety_checker": None, "requires_safety_checker": False}  # it may take noise for something else
    real = StableDiffusionPipeline.from_pretrained(MODEL, torch_dtype=torch.float16, **unfiltered).to(device())
    rows = {"with its own VAE": real("a photo of a dog", output_type="pt").images.float().cpu()}
    rows["with mine"] = swap_vae(real, to_diffusers(guest))("a photo of a dog", output_type="pt").images.float().cpu()
    plots.show(plots.image_rows(rows, size=4), "«A photo of a dog» by Stable Diffusion with its own VAE, and with mine.")

# %% [markdown]
# «It needs more epochs», say the forums, and the blots seem to say so too: a little is there already. Ask that question properly: is `mine` a bad VAE? And how wrong are the pictures, in numbers? A **judge** helps: a classifier that was trained on drawings only and says which coat, which ears, which ground it sees. It had no part in anything else here.

# %%
judge = load_shipped(DogJudge, "dog_judge").to(device())
old = from_diffusers(pipeline.vae)  # the pipeline's own VAE, as our class
asked = draw_prompts(SEEN, budget(quick=8, cpu=200, gpu=200))


def table_of_shares(found):
    """{pipeline: shares} as a table."""
    lines = [f"| {name} | " + " | ".join(f"{share:.0%}" for share in shares.values()) + " |" for name, shares in found.items()]
    return Markdown("| pictures | coat | ears | ground | all three |\n|---|---|---|---|---|\n" + "\n".join(lines))


found = {"chance": {"coat": 1 / 6, "ears": 1 / 2, "ground": 1 / 4, "all three": 1 / 48}}
with torch.no_grad():
    for name, vae in {"drawings through the pipeline's VAE": old, "drawings through mine": mine}.items():
        through = to_unit(vae.decode(vae.encode(to_signed(dogs.pixels(device()))).mode())).clamp(0, 1).cpu()
        quality = psnr(through, dogs.pixels()).mean().item()
        found[f"{name}: {quality:.1f} dB"] = adherence(judge, through, dogs.captions)
found["pipeline with its own VAE"] = adherence(judge, paint(pipeline, asked, seed=1), asked)
found["pipeline with mine"] = adherence(judge, paint(injected, asked, seed=1), asked)
table_of_shares(found)

# %% [markdown]
# `mine` is no bad VAE: of what goes through it everything comes back. And yet most of what the pipeline draws with it is wrong. If it is not how well it was trained, what is it? And whence comes what *is* right?
#
# ## 5 · Two people who each have their own language
#
# Thirty seconds, on digits: two VAEs, A and B, the same network, the same data, the same recipe, another random seed. Both good. Now let B's decoder read what A's encoder writes.
#
# Without looking at the latent at all, the best that a decoder could do is to answer with the mean of all digits:

# %%
digits, held_out = load_mnist("train"), load_mnist("test")
mean_image = digits.pixels().mean(0, keepdim=True).to(device()).clamp(1e-4, 1 - 1e-4)
constant = bernoulli_nll(mean_image.logit().expand(len(held_out), -1, -1, -1), held_out.pixels(device())).mean()
print(f"{digits.source}: the mean of all digits, whatever was written: {constant:.1f} nats")

# %% [markdown]
# **Predict:** will B, reading what A wrote, be better than that?

# %%
def train_digits(seed):
    seed_everything(seed)
    vae = MLPVAE(20, (400,))
    fit(vae, lambda model, batch, generator: negative_elbo(model(batch.images, generator), batch.images), digits,
        epochs=budget(quick=20, cpu=3, gpu=6), batch_size=budget(quick=64, cpu=256, gpu=256), lr=5e-3, seed=seed)  # fmt: skip
    return vae.eval()


def misread(encoder, decoder, between=lambda z: z):
    """Cross-entropy in nats per image: written by one, read by the other."""
    x = held_out.pixels(device())
    with torch.no_grad():
        return bernoulli_nll(decoder.decode(between(encoder.encode(x).mode())), x).mean().item()


a, b = train_digits(seed=1), train_digits(seed=2)
with torch.no_grad():
    shown = held_out[:10].pixels(device())
    rows = {"digits": shown, "written by A, read by A": a.decode(a.encode(shown).mode()).sigmoid()}
    rows["written by A, read by B"] = b.decode(a.encode(shown).mode()).sigmoid()
plots.show(plots.image_rows(rows), "Ten digits; the same through A; and what B reads in the latents that A wrote: other digits, or none.")
assert max(misread(a, a), misread(b, b)) < constant, "each should at least be better than the mean image"
Markdown(
    "| nats | read by A | read by B |\n|---|---|---|\n"
    f"| written by A | {misread(a, a):.1f} | **{misread(a, b):.1f}** |\n| written by B | **{misread(b, a):.1f}** | {misread(b, b):.1f} |"
)

# %% [markdown]
# Far worse than the mean image: B reads A's words in its own language and answers with confidence. Nothing in the loss says which latent number should mean what: let two of them change places, or one its sign, in the encoder and the decoder alike, and the loss is the same. Every training ends in another such language. **A UNet is trained on the language of one encoder.** That is why your VAE gives noise: too few epochs have nothing to do with it.
#
# How different are two languages? Perhaps one matrix would translate.
#
# ### Exercise 3 · The best linear dictionary (7 minutes)
#
# `a` and `b` (N, d) are what two encoders write about the same N pictures. Find the matrix `M` (d, d) and the offset `c` (d,) for which `a @ M + c` comes nearest to `b`, in squared error.

# %% tags=["exercise"]
def linear_dictionary(a, b):
    """(M, c) with a @ M + c ≈ b, by least squares."""
    raise NotImplementedError

check.linear_dictionary(linear_dictionary)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `torch.linalg.lstsq(A, b).solution` solves A X ≈ b. The offset is one more row of X, if A has one more column of ones. (Or: subtract both means first.)
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def linear_dictionary(a, b):
#     ones = torch.ones(len(a), 1, dtype=a.dtype, device=a.device)
#     solution = torch.linalg.lstsq(torch.cat([a, ones], dim=1), b).solution  # (d + 1, d)
#     return solution[:-1], solution[-1]
# ```
#
# </details>

# %%
with torch.no_grad():
    some_digits = digits[:5000].pixels(device())
    matrix, offset = linear_map(a.encode(some_digits).mode(), b.encode(some_digits).mode())  # exercise 3
translated = misread(a, b, lambda z: z @ matrix + offset)
print(f"A's latents read by B: {misread(a, b):.1f}; translated by one matrix first: {translated:.1f}; B's own: {misread(b, b):.1f}")

# %% [markdown]
# One matrix mends most of it, and not all: the two languages are bent against each other as well. Now the same on the dogs. Is it perhaps only the scale, or can a matrix for each place translate here too?

# %%
x = dogs.pixels(device())
vaes = {"the pipeline's": old, "mine": mine}
with torch.no_grad():
    written = {name: vae.encode(to_signed(x)).mode() for name, vae in vaes.items()}
    lesson = to_signed(load_seen(480).pixels(device()))
    places = [vae.encode(lesson).mode().movedim(1, 3).flatten(0, 2) for vae in (old, mine)]  # (N·h·w, C) each
matrix, offset = linear_map(*places)
ratio = old.settings.scaling_factor / mine.settings.scaling_factor
ways = {
    "as they are": lambda z: z,
    "brought to my scale": lambda z: ratio * z,
    "by the best matrix for each place": lambda z: (z.movedim(1, 3) @ matrix + offset).movedim(3, 1),
}
lines, rows = [], {"drawings": dogs[:6].pixels()}
with torch.no_grad():
    for name, way in ways.items():
        pictures = to_unit(mine.decode(way(written["the pipeline's"]))).clamp(0, 1).cpu()
        rows[f"the pipeline's latents, {name}, read by mine"] = pictures[:6]
        lines.append(f"| the pipeline's latents, {name} | {psnr(pictures, dogs.pixels()).mean():.1f} dB |")
for name, vae in vaes.items():
    quality = psnr(reconstruct(vae, dogs), dogs.pixels()).mean().item()
    lines.append(f"| {name}, written and read by itself | {quality:.1f} dB |")
plots.show(plots.image_rows(rows, size=1.0), "Six dogs, and what my decoder reads in the pipeline's latents: as they are, scaled, translated by a matrix.")
Markdown("| read by mine | held-out drawings |\n|---|---|\n" + "\n".join(lines))

# %%
found_stats = {name: latent_statistics(vae, dogs) for name, vae in vaes.items()}
lines = [
    f"| {channel} | " + " | ".join(f"{stats.mean[channel]:+.2f} ± {stats.std[channel]:.2f}" for stats in found_stats.values()) + " |"
    for channel in range(mine.settings.latent_channels)
]
scale_line = "| scaling factor | " + " | ".join(f"{stats.scaling_factor:.3f}" for stats in found_stats.values()) + " |"
Markdown("| channel: mean ± spread | " + " | ".join(found_stats) + " |\n|---|---|---|\n" + "\n".join([*lines, scale_line]))

# %% [markdown]
# Same network, same kind of drawings, same loss, and the channels mean different things. The scale is the least of it.
#
# One question is left. Not all was wrong in section 4: some coats and grounds came through. So is `mine` on the way, and would more epochs bring the rest? Let two of its latent channels change places, or one its sign, in encoder and decoder alike. It gives every picture back as before, at the same loss. And the same training could as well have ended there: first weights and noise have no preferred order and no preferred sign, and nor has the optimizer. There are 8!·2⁸ = 10,321,920 such VAEs, all trained equally long and equally well.
#
# **Predict:** how much of the pipeline's pictures do *they* read?

# %%
noise = [torch.Generator().manual_seed(i) for i in range(len(asked))]
settings = {"num_inference_steps": budget(quick=5, cpu=20, gpu=20), "guidance_scale": 3.0}
painted = pipeline(asked, generator=noise, output_type="latent", **settings).images  # latents of the pipeline's pictures
lines, rows = [], {}
with torch.no_grad():
    for seed in range(budget(quick=3, cpu=12, gpu=12)):
        vae = other_language(mine, seed)
        quality = psnr(reconstruct(vae, dogs), dogs.pixels()).mean().item()
        pictures = torch.cat([to_unit(vae.decode(z / vae.settings.scaling_factor)) for z in painted.split(50)]).clamp(0, 1).cpu()
        shares = adherence(judge, pictures, asked)
        lines.append(f"| {seed} | {quality:.3f} dB | " + " | ".join(f"{share:.0%}" for share in shares.values()) + " |")
        if seed < 3:
            rows[f"read by shuffle {seed} of my channels: coat {shares['coat']:.0%}, ears {shares['ears']:.0%}, ground {shares['ground']:.0%}"] = pictures[:6]
languages = load_result("cures")["values"]["languages"]
for name, of in (("mean of 100", lambda row: row["mean"]), ("least", lambda row: min(row["each"])), ("most", lambda row: max(row["each"]))):
    lines.append(f"| **{name}**, `make bench` | | " + " | ".join(f"**{of(languages[key]):.0%}**" for key in shares) + " |")
lines.append("| chance | | " + " | ".join(f"{share:.0%}" for share in found["chance"].values()) + " |")
plots.show(plots.image_rows(rows, size=1.0), "Six pictures of the pipeline, read by three VAEs that differ in the order and the signs of their channels: blots of other colours in each.")
Markdown("| shuffle | own drawings | coat | ears | ground | all three |\n|---|---|---|---|---|---|\n" + "\n".join(lines))

# %% [markdown]
# All have the same decibels, and what they read ranges from nothing to a good deal; on average it is about what guessing gives. So what came through in section 4 was **luck**: the language happened to lie near. More epochs would have made `mine` a better VAE, in the same language.
#
# Three cures exist, and each has been used in earnest. Each is written out here, run briefly, and then loaded as it came out of a longer run (`make bench` trained all three).
#
# ## 6 · Cure one: the decoder learns the old language
#
# *Old* encoder, new decoder: it learns to read what the UNet has always written. Stable Diffusion's «ft-MSE» VAE was made like this, and fits every pipeline of its family.

# %%
def decoder_loss(model, batch, generator, old):
    with torch.no_grad():
        z = old.encode(to_signed(batch.images)).sample(generator)
    return {"loss": calibrated_gaussian_nll(to_unit(model.decode(z)), batch.images)}


def with_encoder(model, old):
    model.encoder, model.to_moments = copy.deepcopy(old.encoder), copy.deepcopy(old.to_moments)
    return speaks_like(model, old)


def speaks_like(model, old):
    model.settings = replace(model.settings, scaling_factor=old.settings.scaling_factor)
    return model


lessons = load_seen(budget(quick=96, cpu=2400, gpu=9600))
trained = with_encoder(copy.deepcopy(mine), old)
minutes = budget(quick=0.02, cpu=1.0, gpu=1.0)
history = fit(trained, partial(decoder_loss, old=old), lessons, minutes=minutes, batch_size=8, lr=2e-3, ema=0.99)
assert history["loss"][-1] < history["loss"][0] or len(history.rows) == 1, "the loss should fall"
cured = load_shipped(ConvVAE, "cure_decoder").to(device())

# %%
def judged(vae, seed=1):
    """Shares, and six pictures, of the pipeline with `vae` in place of its own."""
    swapped = swap_vae(load_tiny_sd().to(device()), to_diffusers(vae))
    return adherence(judge, paint(swapped, asked, seed=seed), asked), paint(swapped, prompts, seed=1)


shares = {"the pipeline with its own VAE": found["pipeline with its own VAE"], "with mine, naively": found["pipeline with mine"]}
shares[f"after {minutes:g} minutes of cure one"], brief = judged(trained)
shares["after cure one in full"], drawn = judged(cured)
plots.show(
    plots.image_rows({"with its own VAE": before, f"{minutes:g} minutes of cure one": brief, "cure one in full": drawn}, size=1.0),
    "Six dogs of the pipeline, and the same with another decoder that has learned the old latents.",
)
table_of_shares(shares)

# %% [markdown]
# ## 7 · Cure two: the encoder learns the old language
#
# What if you want your own *encoder* too, because it is smaller or faster? Image-to-image and inpainting need one that writes. It sees a picture and must write what the old encoder would have written. That is **distillation**; TAESD, the tiny VAE behind many previews, learned Stable Diffusion's language like this. The decoder learns to read the old latents, as in cure one: if it read what the *new* encoder writes, the two would settle on a language between the old and their own.

# %%
def distillation_loss(model, batch, generator, old, weight=300.0):
    with torch.no_grad():
        wanted = old.encode(to_signed(batch.images))
    written = model.encode(to_signed(batch.images)).mean
    apart = F.mse_loss(written, wanted.mean, reduction="none").flatten(1).mean(1) * old.settings.scaling_factor**2
    nll = calibrated_gaussian_nll(to_unit(model.decode(wanted.sample(generator))), batch.images)
    return {"loss": nll + weight * apart, "nll": nll, "apart": apart}


student = speaks_like(copy.deepcopy(mine), old)
history = fit(student, partial(distillation_loss, old=old), lessons, minutes=minutes, batch_size=8, lr=2e-3, ema=0.99)
print(f"in the last of {len(history.rows)} epochs the encoders are {history['apart'][-1]:.3f} of the old latents' variance apart")
assert history["apart"][-1] < history["apart"][0] or len(history.rows) == 1, "the encoders should come nearer"
distilled = load_shipped(ConvVAE, "cure_distilled").to(device())
shares[f"after {minutes:g} minutes of cure two"], brief = judged(student)
shares["after cure two in full"], drawn = judged(distilled)
plots.show(
    plots.image_rows({f"{minutes:g} minutes of cure two": brief, "cure two in full": drawn}, size=1.0),
    "Six dogs drawn with a VAE whose encoder and decoder have both learned the old latents.",
)
table_of_shares(shares)

# %% [markdown]
# ## 8 · Cure three: a new UNet for the new language
#
# Leave `mine` as it is and teach the *UNet* its latents, with their own scaling factor. For Stable Diffusion that is weeks of a large machine, and everybody who changes the latent space itself has to pay it (SDXL did). [Notebook 7](07_tiny_stable_diffusion.ipynb) writes out how a UNet is trained; here its loss is used as it is.
#
# The old UNet already knows what dogs and words are. **Predict:** does that help, if the language is another one? So there are two brief runs, of the same length, one from the old UNet and one from nothing; and the full one, from nothing.

# %%
latents, unet_minutes = encode_dogs(mine, lessons, pipeline.tokenizer), budget(quick=0.02, cpu=2.0, gpu=2.0)
loss = partial(velocity_loss, latents=latents, kept=pipeline.scheduler.alphas_cumprod)
mine_in_diffusers = to_diffusers(mine).to(device())


def pipeline_of(unet, text_encoder):
    """A pipeline with my VAE."""
    return make_pipeline(mine_in_diffusers, text_encoder, pipeline.tokenizer, unet).to(device())


seed_everything(0)
fresh = make_text_encoder(pipeline.tokenizer)
starts = {
    "from the old UNet": TextToImage(copy.deepcopy(pipeline.unet), copy.deepcopy(pipeline.text_encoder)),
    "from nothing": TextToImage(make_unet(fresh.config.hidden_size, mine.settings.latent_channels), fresh),
}
pipelines = {}
for name, network in starts.items():
    history = fit(network, loss, latents.as_set(lessons.source), minutes=unet_minutes, batch_size=32, lr=2e-3, ema=0.99)
    assert history["loss"][-1] < budget(quick=2.0, cpu=0.5, gpu=0.5), "who predicts nothing at all has a loss of 1"
    pipelines[f"cure three, {unet_minutes:g} minutes {name}"] = pipeline_of(network.unet, network.text_encoder)
pipelines["cure three in full"] = pipeline_of(
    UNet2DConditionModel.from_pretrained(TINY_SD.parent / "cure_unet" / "unet"),
    CLIPTextModel.from_pretrained(TINY_SD.parent / "cure_unet" / "text_encoder"),
)

# %%
rows = {"mine, naively": naive}
for name, other in pipelines.items():
    rows[name] = paint(other, prompts, seed=1)
    shares[name] = adherence(judge, paint(other, asked, seed=1), asked)
plots.show(plots.image_rows(rows, size=1.0), "Six prompts with the other VAE: blots; after a brief training of the UNet; after a full one.")
table_of_shares(shares)

# %% [markdown]
# The same VAE that gave blots in section 4, without a change in a single weight of it. So it never was a bad VAE.
#
# | cure | what is trained | what it costs | when |
# |---|---|---|---|
# | one | the decoder | minutes | better pictures out of a given pipeline |
# | two | encoder and decoder, to the old latents | minutes | a smaller or faster VAE for a given pipeline |
# | three | the UNet | as much as the pipeline did | the latent space itself is to be better |
#
# How much did each cost here, and what did it bring, measured once in full?

# %%
measured = load_result("cures")["values"]
Markdown(
    f"{measured['prompts']} prompts\n\n| | minutes | on | coat | ears | ground | all three | old latents read |\n|---|---|---|---|---|---|---|---|\n"
    + "\n".join(
        f"| {name} | {row['minutes']:g} | {row['on'].split(' (')[0]} | " + " | ".join(f"{row['shares'][k]:.1%}" for k in ("coat", "ears", "ground", "all three"))
        + (f" | {row['psnr']:.1f} dB |" if row["psnr"] else " | |")
        for name, row in measured["rows"].items()
    )
)

# %% [markdown]
# ## 9 · The scale: where 0.18215 comes from, and what yours is
#
# A diffusion model expects its inputs to have a spread of about 1, because it adds noise of spread 1 to them. Latents have whatever spread the VAE gave them. So the pipeline multiplies by `scaling_factor` on the way in and divides on the way out. For Stable Diffusion's own VAE 1 / 5.49 = 0.18215.
#
# ### Exercise 4 · Measure it (5 minutes)
#
# `mean` and `std` (N, C, h, w) are the posteriors of many pictures. The scaling factor is 1 / the standard deviation of **draws** from them, all numbers together. Compute it without drawing: the variance of a draw is the variance of the means plus the mean of the variances.

# %% tags=["exercise"]
def measured_scale(mean, std):
    """1 / standard deviation of draws from all the posteriors together, as one number."""
    raise NotImplementedError

check.measured_scale(measured_scale)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `mean.var()` and `std.square().mean()`, then a root and a division.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def measured_scale(mean, std):
#     return 1 / (mean.var() + std.square().mean()).sqrt()
# ```
#
# </details>

# %% [markdown]
# The same on your own latents, beside what the course's helper finds by drawing:

# %%
with torch.no_grad():
    posterior = mine.encode(to_signed(dogs.pixels(device())))
    spread = (posterior.mean.var() + posterior.std.square().mean()).sqrt().item()
print(f"mine: spread {spread:.3f}, scaling factor {1 / spread:.4f}; by drawing {latent_statistics(mine, dogs).scaling_factor:.4f}; "
      f"in its configuration, from other drawings: {mine.settings.scaling_factor:.4f}")  # fmt: skip

# %% [markdown]
# What happens with a wrong one? Take the latents that the pipeline painted in section 5, and lie about the scale when its own VAE decodes them. **Predict:** what does a factor that is twice too large do to the pictures?

# %%
true, rows = pipeline.vae.config.scaling_factor, {}
for times in (0.5, 0.8, 1.0, 1.25, 2.0):
    with torch.no_grad():
        pictures = torch.cat([to_unit(old.decode(part / (times * true))) for part in painted.split(50)]).clamp(0, 1).cpu()
    right = adherence(judge, pictures, asked)
    rows[f"{times:g} times the true factor: coat {right['coat']:.0%}, ears {right['ears']:.0%}, ground {right['ground']:.0%}"] = pictures[:6]
plots.show(plots.image_rows(rows, size=0.9), "Six dogs decoded with a latent scale from half to twice the true one.")

# %% [markdown]
# Decoding divides by the factor: too small a factor makes the latents too large. Training with a wrong factor is another matter, because then no noise level fits: [notebook 7](07_tiny_stable_diffusion.ipynb) shows that one.
#
# Some newer pipelines (Stable Diffusion 3, Flux) subtract a `shift_factor` first, and others take a mean and a spread for each channel. Is there something to shift in ours?

# %%
stats = latent_statistics(mine, dogs)
shift = float(stats.mean.mean())
print("means of the channels", [f"{v:+.2f}" for v in stats.mean], "· spreads", [f"{v:.2f}" for v in stats.std])
adapted = DiffusersVAE.of(mine)
adapted.register_to_config(shift_factor=shift)
print("saved:", {key: round(adapted.config[key], 4) for key in ("scaling_factor", "shift_factor")})

# %% [markdown]
# There is a little, and it can be saved. (`StableDiffusionPipeline` does not read `shift_factor`; whoever trains a UNet with it needs a pipeline that does.)
#
# ## 10 · Half precision, black pictures, and tiles
#
# What goes wrong on real machines: numbers, and memory. First, numbers. In fp16 nothing above 65,504 exists. What in a VAE could be that large? Not its input or its output; look inside, at the largest value that any layer gives:

# %%
@torch.no_grad()
def largest(vae, x):
    """The largest absolute value that any layer gives on the way through."""
    seen = {}
    hooks = [m.register_forward_hook(lambda _, __, out, n=n: seen.update({n: out.abs().max().item()}))
             for n, m in vae.named_modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.GroupNorm | ResBlock | AttentionBlock)]  # fmt: skip
    vae(x)
    for hook in hooks:
        hook.remove()
    name = max(seen, key=seen.get)
    return seen[name], name


x = to_signed(dogs[:6].pixels(device()))
value, where = largest(mine, x)
print(f"ours: at most {value:.0f}, in {where}; below 65,504: {value < 65_504}; room for a factor of {65_504 / value:,.0f}")

# %% [markdown]
# The VAE of Stable Diffusion XL goes beyond that limit and gives NaN, and its pipeline would make of it a **black picture**. Its configuration therefore says `force_upcast: true`: compute the VAE in fp32. (The pipeline of Stable Diffusion 1 does not read that flag.) Make one black by hand, and see how to notice it:

# %%
overflowing = load_tiny_sd()
with torch.no_grad():
    overflowing.vae.decoder.conv_in.weight.mul_(1e39)  # beyond the largest number of fp32: infinite
with warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always")
    black = overflowing(prompts[0], num_inference_steps=2).images[0]
heard = [str(w.message) for w in heard if "invalid value" in str(w.message)]
latents = overflowing(prompts[0], num_inference_steps=2, output_type="latent").images
with torch.no_grad():
    raw = overflowing.vae.decode(latents / overflowing.vae.config.scaling_factor).sample
print("darkest and brightest value of the picture:", black.convert("L").getextrema(), "· warnings:", heard)
print("finite numbers from the decoder:", bool(raw.isfinite().all()), "← ask this of every VAE that you put into a pipeline")

# %% [markdown]
# Second, memory. A picture of 1024×1024 needs sixteen times as much as one of 256×256. `enable_slicing()` decodes a batch one by one, exactly; `enable_tiling()` cuts each picture into tiles, and that is *not* exact: GroupNorm and attention see only their own tile. Tiles overlap and are blended, so that the edges show less.
#
# ### Exercise 5 · Blend (7 minutes)
#
# `left` and `right` share `overlap` columns: the last ones of the one, the first ones of the other. In column i = 1 … overlap of them the right one has the share i / (overlap + 1), the left one the rest. Return the whole picture.

# %% tags=["exercise"]
def blend(left, right, overlap):
    """(B, C, H, V) and (B, C, H, W) → (B, C, H, V + W - overlap)."""
    raise NotImplementedError

check.blend(blend)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `torch.arange(1, overlap + 1) / (overlap + 1)` are the shares, and they broadcast over the last axis. `torch.cat(…, dim=3)` puts three parts together.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def blend(left, right, overlap):
#     share = torch.arange(1, overlap + 1, device=left.device) / (overlap + 1)
#     mixed = (1 - share) * left[..., -overlap:] + share * right[..., :overlap]
#     return torch.cat([left[..., :-overlap], mixed, right[..., overlap:]], dim=3)
# ```
#
# </details>

# %%
large = draw_dog("golden", "floppy", "snow", resolution=256)[None].to(device()).float() / 255  # (1, 3, 256, 256)
big = DiffusersVAE.of(mine, sample_size=64).eval()
with torch.no_grad():
    whole = to_unit(big(to_signed(large)).sample)
    pieces = torch.cat([torch.cat([to_unit(big(to_signed(tile)).sample) for tile in row.split(64, dim=3)], dim=3)
                        for row in large.split(64, dim=2)], dim=2)  # fmt: skip
    big.enable_tiling()
    tiles = to_unit(big(to_signed(large)).sample)
rows = {"whole": whole, "16 tiles, side by side": pieces, "tiles that overlap and are blended": tiles}
for name, image in rows.items():
    steps = (image[..., 1:] - image[..., :-1]).abs().mean((0, 1, 2))  # (255,): from each column to the next
    seams = [max(steps[47], steps[63]), max(steps[95], steps[127]), max(steps[143], steps[191])]
    off = (image - whole).abs().mean()
    print(f"{name:36} off by {off:.4f}; at a seam a step {sum(seams) / 3 / steps.mean():.1f} times as large as elsewhere")
fig, axes = plt.subplots(1, 3, figsize=(9, 3.3))
for ax, (name, image) in zip(axes, rows.items(), strict=True):
    plots.draw_images(ax, image.cpu(), 1, name)
plots.show(fig, "A dog of 256 pixels: decoded whole, in 16 tiles with visible seams, and in blended tiles.")

# %% [markdown]
# ## 11 · Share it
#
# What others need: the weights as safetensors, the configuration with *your* scaling factor, and a card that says what it is. `save_pretrained` writes the first two:

# %%
with tempfile.TemporaryDirectory() as folder:
    to_diffusers(mine).save_pretrained(folder)
    card = (
        "---\nlibrary_name: diffusers\n---\n\n# A VAE for drawn dogs\n\n64×64 pixels, f8, 8 channels; trained on the drawings of "
        f"this course, {quality:.1f} dB on held-out ones; scaling factor {mine.settings.scaling_factor:.4f}.\n\nOnly for UNets trained "
        "on its latents: in another pipeline it gives noise.\n"
    )
    pathlib.Path(folder, "README.md").write_text(card)
    for file in sorted(pathlib.Path(folder).iterdir()):
        print(f"{file.name:38} {file.stat().st_size / 1000:8.1f} kB")
    loaded = from_diffusers(AutoencoderKL.from_pretrained(folder))

# %% tags=["nbval-check-output"]
print("loaded again, equal:", all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(loaded.state_dict().values(), mine.state_dict().values())))

# %%
PUSH_TO = ""  # "your-name/my-dog-vae": needs `hf auth login` once
if PUSH_TO:
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as folder:
        to_diffusers(mine).save_pretrained(folder)
        pathlib.Path(folder, "README.md").write_text(card)
        HfApi().create_repo(PUSH_TO, exist_ok=True)
        HfApi().upload_folder(folder_path=folder, repo_id=PUSH_TO)

# %% [markdown]
# ### Exercise 6 · Your own cure (10 minutes, or a weekend)
#
# Return a VAE made of `mine` whose decoder reads `old`'s latents: at least 3 dB better than the naive swap, on drawings that nobody trained on. Minutes of training will do; so will none at all, with exercise 3 and a look at what `from_latent` is. Leave `mine` itself as it is.

# %% tags=["exercise"]
def my_cure(old, mine):
    """Two ConvVAEs → one of mine's kind that reads old's latents."""
    raise NotImplementedError

check.my_cure(my_cure)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `mine.from_latent` is a 1×1 convolution: a matrix for each place. A linear dictionary in front of it is another matrix for each place, and two of those are one.
#
# </details>
# <details><summary>Solution</summary>
#
# The dictionary of exercise 3, learned on the latents of some drawings and folded into `from_latent`: no training at all.
#
# ```python
# def my_cure(old, mine):
#     cured, x = copy.deepcopy(mine), to_signed(load_drawn_dogs(96, 64, "train", pose="sitting").pixels(device()))
#     with torch.no_grad():
#         theirs, ours = (vae.encode(x).mode().movedim(1, 3).flatten(0, 2) for vae in (old, mine))  # (N·h·w, C)
#         ones = torch.ones(len(theirs), 1, device=theirs.device)
#         solution = torch.linalg.lstsq(torch.cat([theirs, ones], dim=1), ours).solution
#         weight = mine.from_latent.weight[:, :, 0, 0]  # (C, C): z → weight @ z + bias
#         cured.from_latent.weight.copy_((weight @ solution[:-1].T)[:, :, None, None])
#         cured.from_latent.bias.copy_(weight @ solution[-1] + mine.from_latent.bias)
#     return cured
# ```
#
# </details>

# %% [markdown]
# ## Questions people ask
#
# **What does Stable Diffusion need from its VAE?** `config.scaling_factor`, `config.block_out_channels`, a device, a dtype, `encode` and `decode` with the library's arguments (section 1); and latents in the language that its UNet was trained on (section 5).
#
# **How does swapping the VAE change the pictures?** If it speaks the same language, in details only (section 6). If not, nothing is left of them (section 4).
#
# **Why does my own VAE give noise in a pretrained pipeline?** Often said: «too few epochs». Section 4 puts in one that gives everything back, and gets blots; section 5 shows that what little comes through is luck, and equally good ones get nothing; section 8 trains a UNet for it, and the same VAE draws dogs. It is another latent language.
#
# **Where does 0.18215 come from, and what is mine?** 1 / the spread of the latents of one VAE (section 9); the cell after exercise 4 computes yours.
#
# **How do I share my VAE so that others can load it?** `save_pretrained` or `push_to_hub`, with the measured scaling factor in the configuration and a card that says which UNets it is for (section 11). An adapter has to live in a module that others can import (section 3).
#
# ## Recap
#
# - A conversion is a table of names; whether it is right, only numbers show (section 2).
# - A pipeline wants a class of the library's kind: convert, or adapt (sections 1 and 3).
# - Noise after a swap is no sign of a bad VAE: the UNet speaks another language (sections 4 and 5).
# - Three cures: a new decoder, a distilled encoder, a new UNet (sections 6 to 8).
# - Scale, precision and tiles are the three places where a right VAE still gives wrong pictures (sections 9 and 10).
#
# **To read next:** Rombach et al. 2022, section 4.3.2 and appendix D.1 (the scale); the model cards of `stabilityai/sd-vae-ft-mse` (cure one) and `madebyollin/taesd` (cure two).
#
# **Next:** [notebook 7](07_tiny_stable_diffusion.ipynb) trains the pipeline that you used here.
