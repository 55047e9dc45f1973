# %% [markdown]
# # 5 · A convolutional VAE with attention, on photographs of dogs
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/05_conv_attention_vae_dogs.ipynb)
#
# | | |
# |---|---|
# | **You will build** | self-attention, the residual block, an encoder and a decoder, by hand; together they **are** Stable Diffusion's autoencoder |
# | **Minutes** | quick ½ · cpu 12 · gpu not timed yet |
# | **Hardware** | two CPU cores are enough for 64×64 pixels, and the outputs below come from them; on a GPU the notebook trains at 128×128, eight-fold |
# | **Download** | Imagewoof, 93 MB, unless there are dogs in `COURSE_DATA`; a folder of your own photographs works as well |
# | **You need to know** | [notebook 2](02_mlp_vae_mnist.ipynb): the posterior, the KL, nats; what a convolution is |
# | **You will see** | the picture and the numbers under the third code cell: dogs that the network has never seen, through 1/12 of their numbers and back |

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
import math
import time
from dataclasses import asdict, dataclass, replace
from functools import partial

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from IPython.display import Markdown
from torch import nn
from torch.utils.checkpoint import checkpoint

from helpers import CourseError, conv_vae, plots, widgets
from helpers import checks_dogs as check
from helpers.budget import budget, device, generator_for, profile, seed_everything
from helpers.checkpoints import load_shipped
from helpers.conv_vae import check_size
from helpers.data import load_dogs, random_flip
from helpers.distributions import DiagonalGaussian
from helpers.filmstrip import Filmstrip
from helpers.image_metrics import BlockPCA, latent_statistics, psnr, reconstruct, sharpness, ssim
from helpers.losses import calibrated_gaussian_nll, gaussian_nll, negative_elbo
from helpers.mlp import VAEOutput, mlp
from helpers.results import load_result
from helpers.training import fit

# import os; os.environ["COURSE_RUNS"] = "/content/drive/MyDrive/course-runs"  # on Colab, with Drive mounted: runs survive

# %% [markdown]
# ## Before anything else: the result
#
# The model that this notebook builds comes with the course. It has never seen these twelve dogs. Upper rows: the photographs, 12,288 numbers each. Lower rows: what came back out of 1,024 numbers.
#
# **Predict before you run:** which parts of a dog will suffer most?

# %% tags=["teaser"]
dogs = load_dogs(64, "test")[:12]  # the same twelve in the whole notebook
shipped = load_shipped(conv_vae.ConvVAE, "dogs_vae").to(device())
decoded = reconstruct(shipped, dogs)  # (12, 3, 64, 64) in [0, 1]
plots.show(
    plots.image_rows({"photographs": dogs.pixels(), "through 1,024 numbers and back": decoded}, columns=6, size=1.3),
    "Twelve dogs, and below them the same dogs reconstructed: poses, colours and faces are kept, fur is smoother.",
)
print(f"PSNR {psnr(decoded, dogs.pixels()).mean():.1f} dB (section 11 explains it; higher is better)  data: {dogs.source}")

# %% [markdown]
# Four things make this possible, and notebook 2 had none of them: **convolutions**, **normalisation**, **shortcuts** and **attention**. For each we ask what goes wrong without it, and at the end of section 7 three of them are taken out of the trained network.
#
# ## 1 · A picture is not a list of numbers
#
# Why not take the VAE of notebook 2 and give it more inputs? Try. `PixelMLP` sees the dog as a list; `small_conv` slides a few small filters over it. Both get a code of the same length, the same seconds, the same optimiser. (The MLP's other layers have only 256 units, so hardly more than 256 numbers get through: look at its number of weights and ask what wider ones would cost.)
#
# **Predict:** how many weights does each have? Which one wins?

# %%
RESOLUTION, FACTOR = budget(quick=(32, 4), cpu=(64, 4), gpu=(128, 8))
train, validation = load_dogs(RESOLUTION, "train"), load_dogs(RESOLUTION, "validation")
small_dogs = load_dogs(RESOLUTION, "test")[:12]
print(f"{train.source}: {len(train)} to train on, {len(validation)} to choose with; profile {profile()}")


class PixelMLP(nn.Module):
    """All pixels to all units: 3·R² → 256 → 4·(R/4)² codes → 256 → 3·R²."""

    def __init__(self, resolution):
        super().__init__()
        values, codes = 3 * resolution**2, 4 * (resolution // 4) ** 2
        self.resolution = resolution
        self.net = nn.Sequential(mlp(values, 256, codes), mlp(codes, 256, values))

    def forward(self, x):
        return self.net(x.flatten(1)).unflatten(1, (3, self.resolution, self.resolution))  # (B, 3·R²) → (B, 3, R, R)


def small_conv():
    """Filters of 4×4 pixels that move by 2: (B, 3, R, R) → (B, 4, R/4, R/4) → (B, 3, R, R)."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 4, stride=2, padding=1), nn.ReLU(), nn.Conv2d(32, 4, 4, stride=2, padding=1),  # (B, 4, R/4, R/4)
        nn.ConvTranspose2d(4, 32, 4, stride=2, padding=1), nn.ReLU(), nn.ConvTranspose2d(32, 3, 4, stride=2, padding=1),
    )  # fmt: skip


# %%
def squared_error(model, batch, generator):
    return {"loss": gaussian_nll(model(batch.images), batch.images, sigma=0.1)}


contenders = {"MLP": PixelMLP(RESOLUTION), "convolutions": small_conv()}
rows, heights = {"photographs": small_dogs.pixels()}, {}
for name, model in contenders.items():
    seed_everything(0)
    history = fit(model, squared_error, train, minutes=budget(quick=0.03, cpu=0.5, gpu=0.5), batch_size=16, lr=2e-3)
    with torch.no_grad():
        rows[name] = model(small_dogs.pixels(device())).cpu().clamp(0, 1)
    heights[name] = psnr(rows[name], small_dogs.pixels()).mean().item()
    count = sum(p.numel() for p in model.parameters())
    print(f"{name:12} {count:>9,} weights   {history.seconds:4.0f} s   {heights[name]:.1f} dB on the twelve held-out dogs")
plots.show(
    plots.image_rows(rows, size=0.7),
    "Twelve dogs, their reconstructions by the MLP, which are smears of colour, and by convolutions, which are the dogs.",
)
assert heights["convolutions"] > heights["MLP"], "convolutions should win by far"


# %% [markdown]
# A photograph has two properties that a list does not know of. **What is near belongs together**, so a filter needs to see only a few pixels. **What is true here is true there**: an eye is an eye in every corner, so the same filter serves everywhere. The MLP has to learn each eye at each place. Move the dogs and see:

# %%
def shifted(images, pixels):
    return torch.roll(images, pixels, dims=3)


moved = shifted(small_dogs.pixels(device()), 4)
with torch.no_grad():
    for name, model in contenders.items():
        there, here = model(moved), shifted(model(small_dogs.pixels(device())), 4)
        away = (there - here)[..., 12:-12].abs().mean().item()  # without the borders, where something new came in
        print(f"{name:12} moving the dog and moving its reconstruction differ by {away:.4f}")


# %% [markdown]
# For convolutions the two are the same but for rounding: they are *equivariant*, that is, shifting the input shifts the output (here by multiples of 4 pixels, the product of the strides). One filter for all places gives them that, and their small number of weights.

# %% [markdown]
# ### Exercise 1 · The price of a filter (2 minutes)
#
# How many numbers does training change in a convolution with `inputs` channels in, `outputs` channels out, filters of `kernel` × `kernel` pixels, and a bias?
#
# **Predict first:** does a larger picture need more of them?

# %% tags=["exercise"]
def conv_parameters(inputs, outputs, kernel):
    """The number of parameters of a convolution with bias."""
    raise NotImplementedError

check.conv_parameters(conv_parameters)


# %% [markdown]
# <details><summary>Hint</summary>
#
# Each output channel has one filter for every input channel, and one bias.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def conv_parameters(inputs, outputs, kernel):
#     return outputs * (inputs * kernel**2 + 1)
# ```
#
# </details>
#
#

# %% [markdown]
# ## 2 · Shrinking and growing
#
# The encoder halves the picture several times, and at each halving every value sees twice as far. Stable Diffusion's way: a 3×3 convolution that moves by 2, with one row of zeros at the bottom and one column at the right. **Why not the usual padding on all sides?** It would work equally well, but weights trained with one padding load into the other without a word and then compute something else, as the cell shows:

# %% tags=["nbval-check-output"]
class Downsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # (B, C, H, W) → (B, C, H/2, W/2)


down, x = Downsample(8), torch.rand(1, 8, 12, 20)
usual = F.conv2d(x, down.conv.weight, down.conv.bias, stride=2, padding=1)
print("12×20 becomes", tuple(down(x).shape[2:]), "both ways:", down(x).shape == usual.shape)
print("and the values are the same:", torch.allclose(down(x), usual))


# %% [markdown]
# How does a decoder grow a picture? Often said: «with transposed convolutions». Let us give both ways a constant grey picture. A decoder should be able to leave it constant.

# %%
class Upsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))  # (B, C, H, W) → (B, C, 2H, 2W)


seed_everything(1)
grey = torch.ones(1, 1, 10, 14)
ways = {"transposed 3×3, stride 2": nn.ConvTranspose2d(1, 1, 3, stride=2), "nearest, then 3×3": Upsample(1)}
fig, axes = plt.subplots(1, 2, figsize=(7.5, 2.6))
with torch.no_grad():
    for ax, (name, way) in zip(axes, ways.items(), strict=True):
        out = way(grey)[0, 0, 4:-4, 4:-4]  # the inside, away from the border
        ax.imshow(out, vmin=-1, vmax=1)
        ax.set_title(f"{name}: spread {out.std():.3f}")
        ax.axis("off")
plots.show(fig, "Left, a checkerboard made of a constant input by a transposed convolution; right, an even grey.")


# %% [markdown]
# Where the stride does not divide the kernel, neighbouring outputs collect different numbers of products: a **checkerboard**, before any training (Odena et al., Distill 2016). (Section 1's kernel of 4 is divisible by its stride of 2. That evens out the counts, but training can still bring the pattern back.) Repeating pixels and then convolving has no such pattern. Stable Diffusion does that, and so do we.

# %% [markdown]
# ### Exercise 2 · How far does it see? (5 minutes)
#
# A stack of convolutions, `layers = [(kernel, stride), …]` from first to last. How many pixels of the input, along one side, can change one value of the output? (This is its **receptive field**.) The check compares with gradients through real convolutions.

# %% tags=["exercise"]
def receptive_field(layers):
    """How many input pixels, along one side, one output value sees."""
    raise NotImplementedError

check.receptive_field(receptive_field)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Without a layer a value sees 1 pixel. A layer adds kernel − 1 steps to that; how many pixels wide is a step after a stride of 2, and after two of them?
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def receptive_field(layers):
#     seen, step = 1, 1  # in pixels of the input
#     for kernel, stride in layers:
#         seen += (kernel - 1) * step
#         step *= stride
#     return seen
# ```
#
# </details>
#
#

# %% [markdown]
# ## 3 · Group normalisation
#
# Deep networks have a problem of scale: each layer multiplies, and after thirty of them numbers have exploded or vanished. **Normalise** them on the way: subtract a mean, divide by a standard deviation. Over which values? BatchNorm takes each channel over the whole *batch*; GroupNorm takes a group of channels of *one* image.
#
# **Predict:** for which of the two does a dog's output depend on the other dogs in its batch?

# %% tags=["nbval-check-output"]
EPS = 1e-6  # Stable Diffusion's; PyTorch's default is 1e-5


def group_norm(channels, groups):
    if channels % groups:
        raise CourseError(f"{channels} channels cannot be shared by {groups} groups: choose groups that divide every width.")
    return nn.GroupNorm(groups, channels, eps=EPS)


x = torch.randn(4, 8, 6, 10) * 3 + 5
for name, norm in {"BatchNorm": nn.BatchNorm2d(8), "GroupNorm": group_norm(8, 2)}.items():
    alone_or_not = torch.allclose(norm(x)[:1], norm(x[:1]), atol=1e-5)
    print(f"{name}: the first image comes out the same alone and in company: {alone_or_not}")

# %% [markdown]
# That is BatchNorm in training. In use it takes averages saved during training instead, so it computes something else than it was trained with, and small batches make those averages poor. GroupNorm is the same in both, so GroupNorm it is. **How many groups?** The fewer channels in a group, the more is normalised away. With one channel per group (`GroupNorm(32)` on 32 channels, a popular choice) each channel loses its own mean and contrast. Then a dog and a fogged dog become the same thing:

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
dog = torch.randn(1, 32, 6, 10)
gain, shift = torch.rand(1, 32, 1, 1) + 0.5, torch.randn(1, 32, 1, 1)
fogged = dog * gain + shift  # every channel brighter or darker, with more or less contrast
for groups in (32, 8):
    norm = group_norm(32, groups)
    print(f"{groups:2} groups: the network can still tell them apart:", not torch.allclose(norm(dog), norm(fogged), atol=1e-3))


# %% [markdown]
# So leave several channels in a group: at least 4. Stable Diffusion's 32 groups hold 4 to 16 channels, the course's networks begin at 4.

# %% [markdown]
# ### Exercise 3 · Group normalisation by hand (5 minutes)
#
# Cut the channels of `x` (B, C, H, W) into `groups` groups of neighbours. Give each group of each image mean 0 and variance 1, with eps = 10⁻⁶ added to the variance, under the root. No learned gain or shift, and no `group_norm`.

# %% tags=["exercise"]
def normalise_groups(x, groups):
    """(B, C, H, W) → (B, C, H, W), normalised in each group of channels of each image."""
    raise NotImplementedError

check.normalise_groups(normalise_groups)


# %% [markdown]
# <details><summary>Hint</summary>
#
# `x.reshape(B, groups, -1)` puts everything that shares a mean into the last axis. The variance is the mean of the squared differences, so divided by n, not by n − 1.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def normalise_groups(x, groups):
#     grouped = x.reshape(len(x), groups, -1)  # (B, groups, C/groups · H · W)
#     centred = grouped - grouped.mean(2, keepdim=True)
#     variance = centred.square().mean(2, keepdim=True)
#     return (centred / (variance + 1e-6).sqrt()).reshape(x.shape)
# ```
#
# </details>
#
#

# %% [markdown]
# ## 4 · Shortcuts
#
# Now stack thirty layers, and ask how much of the gradient reaches the first one. A **residual block** does not replace its input but adds to it: x + f(x). Its gradient has a way around f.
#
# **Predict:** which of the four stacks below keep a gradient?

# %%
def first_gradient(depth, norm, shortcut):
    """The size of the loss's gradient at the input of a stack of `depth` layers."""
    torch.manual_seed(0)
    x = torch.randn(4, 32, 8, 8, requires_grad=True)
    h = x
    for _ in range(depth):
        conv = nn.Conv2d(32, 32, 3, padding=1)
        f = conv(F.silu(F.group_norm(h, 8) if norm else h))
        h = h + f if shortcut else f
    return torch.autograd.grad(h.square().mean(), x)[0].norm().item()


fig, ax = plt.subplots(figsize=(7.5, 3.4))
for norm in (False, True):
    for shortcut in (False, True):
        label = f"{'norm' if norm else 'no norm'}, {'shortcut' if shortcut else 'no shortcut'}"
        depths = (1, 2, 4, 8, 16, 32)
        ax.plot(depths, [first_gradient(d, norm, shortcut) for d in depths], "o-" if shortcut else "o--", label=label)
ax.set(yscale="log", xlabel="layers", ylabel="gradient at the input")
ax.legend(fontsize=10)
plots.show(fig, "Gradient at the input against depth: without norm and shortcut it vanishes; with either it survives.")


# %% [markdown]
# The bare stack's gradient vanishes with depth. **Either** cure alone keeps it alive, though with the shortcut alone it grows layer by layer: one reason to have both. What each is worth in decibels, the table at the end of section 7 measures.
#
# This is the block of which nearly everything is made (some courses call it the *visual block*): normalise, bend (SiLU, x · sigmoid(x), a smooth ReLU), convolve, twice, and a shortcut around it all. Where the width changes, a 1×1 convolution stands in the shortcut. `conv2` starts at zero (our choice; Stable Diffusion's starts at random), so a fresh block is exactly its shortcut: the network starts shallow and grows deep as it learns.

# %% tags=["nbval-check-output"]
class ResBlock(nn.Module):
    def __init__(self, inputs, outputs, groups=32):
        super().__init__()
        self.norm1 = group_norm(inputs, groups)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = group_norm(outputs, groups)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        nn.init.zeros_(self.conv2.weight)  # a fresh block is its shortcut: the network begins shallow
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))  # (B, outputs, H, W)
        h = self.conv2(F.silu(self.norm2(h)))
        return self.shortcut(x) + h


block, x = ResBlock(32, 64, groups=8), torch.rand(2, 32, 12, 20)
print("a change of width:", tuple(block(x).shape))
print("a fresh block is its shortcut:", torch.equal(block(x), block.shortcut(x)))

# %% [markdown]
# ## 5 · Attention, with a pencil
#
# One 3×3 filter sees only its neighbours. A stack of them sees further (exercise 2: try the layers of an encoder), but step by step, and with the same weights for every picture. The left ear should know of the right ear, wherever that is. **Attention** lets every position look at every other one and decide by content where to look. Three things for each position (a *token*): what am I looking for (**query**), what do I have to offer (**key**), what do I pass on (**value**)?
#
# Four tokens, with queries and keys of two numbers: few enough for a pencil. The score of a query and a key is their product, summed, divided by √2 because there are two numbers. The queries below are multiples of √2·log 2, so that every score is a whole number times log 2, and its exponential a power of two. Take the exponential of every score and divide each row by its sum. That is **softmax**, and these are the weights. The output is the weighted mean of the values.
#
# **On paper first:** the first row of weights, and the first output.

# %% tags=["nbval-check-output"]
unit = math.sqrt(2) * math.log(2)
q = unit * torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
k = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
v = torch.tensor([[6.0], [12.0], [18.0], [36.0]])

scores = q @ k.T / math.sqrt(2)  # (4, 4): row = who asks, column = who answers
weights = scores.softmax(dim=1)
print("exp(scores):", scores.exp().round().int().tolist())
print("weights of token 1, in sixths:", (6 * weights[0]).round().int().tolist())
print("outputs:", (weights @ v).flatten().round(decimals=3).tolist())

# %% [markdown]
# Token 3 asks for nothing (its query is 0), so it looks everywhere equally and gets the plain mean, 18. Why divide by √d? The score of two vectors of d independent random numbers (mean 0, spread 1) is a sum of d products, so its spread is √d. Without the division the softmax of a wide layer is nearly a yes or no, and its gradient nearly nothing:

# %%
torch.manual_seed(0)
for d in (2, 32, 512):
    a, b = torch.randn(256, d), torch.randn(256, d)
    for name, scale in (("plain", 1.0), ("divided by √d", math.sqrt(d))):
        largest = (a @ b.T / scale).softmax(dim=1).max(dim=1).values.mean()
        print(f"d = {d:3}, {name:13}: the largest of 256 weights is {largest:.2f} on average")


# %% [markdown]
# ### Exercise 4 · One head of attention (5 minutes)
#
# Queries, keys and values of shape (B, T, d). Return what each token takes from all tokens, itself included, (B, T, d): two matrix products, one softmax, one division.

# %% tags=["exercise"]
def attend(q, k, v):
    """softmax(q kᵀ / √d) v, each (B, T, d)."""
    raise NotImplementedError

check.attend(attend)


# %% [markdown]
# <details><summary>Hint</summary>
#
# `k.transpose(1, 2)` is (B, d, T). In the (B, T, T) scores a row belongs to one query; its weights should add up to 1.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def attend(q, k, v):
#     scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[2])  # (B, T, T)
#     return scores.softmax(2) @ v
# ```
#
# </details>
#
#

# %% [markdown]
# ## 6 · Several heads, and no big matrix
#
# One set of weights can look for one thing at a time. **Multi-head** attention cuts the C channels into `heads` parts and lets each look for itself; the parts are put together again and mixed by one more linear layer. First with the matrix products written out:

# %%
class ManualSelfAttention(nn.Module):
    def __init__(self, channels, heads=1):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(channels, channels) for _ in range(4))

    def split(self, tokens):
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, T, C) → (B, heads, T, C/heads)

    def forward(self, tokens):
        q, k, v = self.split(self.q(tokens)), self.split(self.k(tokens)), self.split(self.v(tokens))
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])  # (B, heads, T, T)
        mixed = scores.softmax(dim=3) @ v  # (B, heads, T, C/heads)
        return self.out(mixed.transpose(1, 2).flatten(2))  # (B, T, C)


# %% [markdown]
# The matrix of scores has T² entries a head. A picture of 64×64 positions has T = 4,096: 17 million numbers, kept for the backward pass. PyTorch's `scaled_dot_product_attention` computes the same output in tiles and never holds that matrix (where it has a fused kernel, as here). This is the version that we keep; `weights` is for looking at.

# %%
class SelfAttention(nn.Module):
    def __init__(self, channels, heads=1):
        super().__init__()
        if channels % heads:
            raise CourseError(f"{channels} channels cannot be shared by {heads} heads.")
        self.heads = heads
        self.q = nn.Linear(channels, channels)
        self.k = nn.Linear(channels, channels)
        self.v = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def split(self, tokens):
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, T, C) → (B, heads, T, C/heads)

    def forward(self, tokens):
        q, k, v = (self.split(project(tokens)) for project in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v)  # never holds the (T, T) weights in memory
        return self.out(mixed.transpose(1, 2).flatten(2))  # (B, heads, T, C/heads) → (B, T, C)

    def weights(self, tokens):
        q, k = self.split(self.q(tokens)), self.split(self.k(tokens))
        return (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(dim=3)


# %% tags=["nbval-check-output"]
torch.manual_seed(0)
manual, fast = ManualSelfAttention(16, heads=4), SelfAttention(16, heads=4)
fast.load_state_dict(manual.state_dict())
tokens = torch.randn(2, 5, 16)
print("the same output:", torch.allclose(manual(tokens), fast(tokens), atol=1e-6))
truth = nn.MultiheadAttention(16, 4, batch_first=True)
with torch.no_grad():
    truth.in_proj_weight.copy_(torch.cat([fast.q.weight, fast.k.weight, fast.v.weight]))
    truth.in_proj_bias.copy_(torch.cat([fast.q.bias, fast.k.bias, fast.v.bias]))
    truth.out_proj.load_state_dict(fast.out.state_dict())
print("and that of PyTorch's own layer:", torch.allclose(truth(tokens, tokens, tokens)[0], fast(tokens), atol=1e-6))


# %% [markdown]
# Equal, so which one? Measure, on the CPU: seconds for a step forward and back, and the megabytes that are kept for the way back.

# %%
def cost(attention, tokens, repeats=3):
    """(seconds of a forward and backward step, MB kept for the backward pass)."""
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.update({t.data_ptr(): t.nbytes}) or t, lambda t: t):
        attention(tokens)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        attention(tokens).sum().backward()
        seconds.append(time.perf_counter() - started)
    return min(seconds), sum(kept.values()) / 1e6


table = "| positions | tokens | written out: s | MB | in tiles: s | MB |\n|---|---|---|---|---|---|\n"
for side in budget(quick=(8, 16), cpu=(16, 32, 64), gpu=(16, 32, 64)):
    tokens = torch.randn(1, side * side, 128)
    numbers = [f"{value:.3g}" for kind in (ManualSelfAttention, SelfAttention) for value in cost(kind(128, 4), tokens)]
    table += f"| {side}×{side} | {side * side:,} | " + " | ".join(numbers) + " |\n"
Markdown(table)


# %% [markdown]
# Time grows with T² for both; only the tiled one's memory does not. That is a good reason for Stable Diffusion's *autoencoder* to attend in one place only, in the middle, where the picture is smallest. It uses a single head there. The block: normalise, read the positions as tokens, attend, add.

# %%
class AttentionBlock(SelfAttention):
    def __init__(self, channels, heads=1, groups=32):
        super().__init__(channels, heads)
        self.norm = group_norm(channels, groups)

    def tokens(self, x):
        return self.norm(x).flatten(2).transpose(1, 2)  # (B, C, H, W) → (B, H·W, C)

    def forward(self, x):
        mixed = super().forward(self.tokens(x))
        return x + mixed.transpose(1, 2).reshape(x.shape)  # (B, H·W, C) → (B, C, H, W)


# %% [markdown]
# ## 7 · What does it look at?
#
# The shipped model has such a block in the middle of its encoder. The red square marks one position in the middle; change `row, column` to choose another. The brighter a cell, the more of it flows into the marked one.
#
# **Predict:** will it look at itself, at its neighbours, or at places far away?

# %%
@torch.no_grad()
def attention_map(model, pixels, row, column):
    """What the position (row, column) of the encoder's middle looks at: (heads, h, w)."""
    h = model.encoder.conv_in(conv_vae.to_signed(pixels))
    for stage in model.encoder.stages:
        h = stage(h)
    h = model.encoder.mid.res1(h)  # (1, C, h, w)
    attention = model.encoder.mid.attn
    weights = attention.weights(attention.tokens(h))[0]  # (heads, h·w, h·w)
    return weights[:, row * h.shape[3] + column].unflatten(1, h.shape[2:]).cpu()


fig, axes = plt.subplots(2, 4, figsize=(8, 4.3))
for number, pair in zip((0, 4, 7, 10), axes.T, strict=True):
    picture = dogs[number : number + 1].pixels(device())
    row, column = 7, 8
    seen = attention_map(shipped, picture, row, column).mean(0)
    f = shipped.settings.factor
    for ax in pair:
        ax.imshow(picture[0].movedim(0, 2).cpu())
        ax.plot(column * f + f / 2, row * f + f / 2, "s", mfc="none", mec="red", ms=8, mew=2)
        ax.axis("off")
    pair[1].imshow(seen.repeat_interleave(f, 0).repeat_interleave(f, 1), cmap="magma", alpha=0.75)
    print(f"dog {number}: the marked cell takes {seen[row, column]:.1%} from itself; an even look would be {1 / seen.numel():.1%}")
plots.show(fig, "Four dogs, one cell marked in each, and below them a heat map of where that cell looks.")

# %% [markdown]
# Compare each percentage with the even look: these cells take no more than that from themselves. The brightest cells are far away, where a 3×3 filter could not have reached: under the dark dogs of the outputs here, mostly the light ground. What the network does with that, no such map says.
#
# Is it worth its cost? The honest test is to train with and without it, the same minutes each. `make bench` did:

# %%
parts = load_result("dog_parts")["values"]
whole = parts["rows"]["all parts"]["psnr"]["mean"]


def part_cells(row):
    if "psnr" not in row:
        return f"{row['stopped']} | | "
    quality = row["psnr"]
    return f"{quality['mean']:.2f} ± {quality['sd']:.2f} dB | {quality['mean'] - whole:+.2f} dB | {row['images']['mean']:,.0f}"


Markdown(
    f"{parts['minutes']:g} minutes each on {parts['on']}, {parts['resolution']} px, held-out dogs, mean ± sd of three seeds\n\n"
    "| | PSNR | difference from all parts | images seen |\n|---|---|---|---|\n"
    + "\n".join(f"| {name} | {part_cells(row)} |" for name, row in parts["rows"].items())
)


# %% [markdown]
# Read the last column too: a part that costs time buys fewer images. The rows without normalisation, without shortcuts and with a learned scale belong to sections 3, 4 and to an exercise below.
#
# ## 8 · The whole network
#
# One frozen dataclass says everything about a network. Two class methods make one: `course()`, small enough for two cores, and `stable_diffusion()`.

# %%
@dataclass(frozen=True)
class VAEConfig:
    channels: tuple[int, ...] = (128, 256, 512, 512)  # width of each level, from full resolution down
    latent_channels: int = 4
    blocks: int = 2  # residual blocks per encoder level
    groups: int = 32  # of every GroupNorm
    heads: int = 1
    mid_attention: bool = True
    quant_conv: bool = True  # the 1×1 convolutions around the latent
    scaling_factor: float = 1.0  # measured after training, never applied here

    @classmethod
    def stable_diffusion(cls):
        return cls(scaling_factor=0.18215)

    @classmethod
    def course(cls, factor=8, latent_channels=4):
        widths = {4: (16, 32, 64), 8: (8, 16, 32, 64)}
        if factor not in widths:
            raise CourseError(f"factor is {factor}; VAEConfig.course has 4 and 8.")
        return cls(widths[factor], latent_channels, blocks=1, groups=widths[factor][0] // 4)

    @property
    def factor(self):
        return 2 ** (len(self.channels) - 1)


# %% [markdown]
# A **stage** is one level: some residual blocks, then a change of resolution. The **middle** is where everybody sees everybody. (`recompute` trades time for memory; section 17 uses it.)

# %%
class Stage(nn.Module):
    def __init__(self, inputs, outputs, blocks, groups, resample):
        super().__init__()
        widths = [inputs] + [outputs] * blocks
        self.blocks = nn.ModuleList(ResBlock(a, b, groups) for a, b in zip(widths, widths[1:], strict=False))
        self.resample = resample or nn.Identity()
        self.recompute = False

    def forward(self, x):
        for block in self.blocks:
            saving = self.recompute and torch.is_grad_enabled()
            x = checkpoint(block, x, use_reentrant=False) if saving else block(x)
        return self.resample(x)


class Middle(nn.Module):
    def __init__(self, config):
        super().__init__()
        width = config.channels[-1]
        self.res1 = ResBlock(width, width, config.groups)
        self.attn = AttentionBlock(width, config.heads, config.groups) if config.mid_attention else nn.Identity()
        self.res2 = ResBlock(width, width, config.groups)

    def forward(self, x):
        return self.res2(self.attn(self.res1(x)))


# %%
class Encoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        channels, groups = config.channels, config.groups
        inputs = (channels[0], *channels[:-1])
        self.conv_in = nn.Conv2d(3, channels[0], 3, padding=1)
        self.stages = nn.ModuleList(
            Stage(a, b, config.blocks, groups, Downsample(b) if level < len(channels) - 1 else None)
            for level, (a, b) in enumerate(zip(inputs, channels, strict=True))
        )
        self.mid = Middle(config)
        self.norm_out = group_norm(channels[-1], groups)
        self.conv_out = nn.Conv2d(channels[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x):
        h = self.conv_in(x)  # (B, C0, H, W)
        for stage in self.stages:
            h = stage(h)  # (B, Ci, H/2, W/2), but for the last one
        h = self.mid(h)  # (B, Cn, H/f, W/f)
        return self.conv_out(F.silu(self.norm_out(h)))  # (B, 2·latent, H/f, W/f)


# %% [markdown]
# The decoder is the encoder in a mirror, with one block more at each level.

# %%
class Decoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        channels, groups = config.channels[::-1], config.groups
        inputs = (channels[0], *channels[:-1])
        self.conv_in = nn.Conv2d(config.latent_channels, channels[0], 3, padding=1)
        self.mid = Middle(config)
        self.stages = nn.ModuleList(
            Stage(a, b, config.blocks + 1, groups, Upsample(b) if level < len(channels) - 1 else None)
            for level, (a, b) in enumerate(zip(inputs, channels, strict=True))
        )
        self.norm_out = group_norm(channels[-1], groups)
        self.conv_out = nn.Conv2d(channels[-1], 3, 3, padding=1)

    def forward(self, z):
        h = self.mid(self.conv_in(z))  # (B, Cn, H/f, W/f)
        for stage in self.stages:
            h = stage(h)  # (B, Ci, 2H, 2W), but for the last one
        return self.conv_out(F.silu(self.norm_out(h)))  # (B, 3, H, W)


# %% [markdown]
# And the VAE around them. It works with pixels in [−1, 1]; two functions convert (`to_signed` and `to_unit`, written out in section 10). A 1×1 convolution before and after the latent mixes channels; it could be left out (`quant_conv=False`), but Stable Diffusion has it. The latents are **not** scaled here: 0.18215 lives in the configuration and is the pipeline's business.

# %%
class ConvVAE(nn.Module):
    def __init__(self, config=None, **fields):
        super().__init__()
        settings = replace(config or VAEConfig.course(), **fields)
        self.settings = replace(settings, channels=tuple(settings.channels))
        latent = self.settings.latent_channels
        self.encoder, self.decoder = Encoder(self.settings), Decoder(self.settings)
        self.to_moments = nn.Conv2d(2 * latent, 2 * latent, 1) if self.settings.quant_conv else nn.Identity()
        self.from_latent = nn.Conv2d(latent, latent, 1) if self.settings.quant_conv else nn.Identity()
        last = self.to_moments if self.settings.quant_conv else self.encoder.conv_out
        nn.init.constant_(last.bias[latent:], -6.0)  # posteriors begin narrow, σ = 0.05: decoding pure noise teaches nothing

    @property
    def config(self):
        return asdict(self.settings)

    def encode(self, x):
        check_size(x, self.settings.factor)
        mean, logvar = self.to_moments(self.encoder(x)).chunk(2, dim=1)  # 2 × (B, latent, H/f, W/f)
        return DiagonalGaussian(mean, logvar)

    def decode(self, z):
        return self.decoder(self.from_latent(z))  # (B, latent, H/f, W/f) → (B, 3, H, W)

    def forward(self, x, generator=None):
        posterior = self.encode(x)
        z = posterior.sample(generator)
        return VAEOutput(self.decode(z), posterior, z)

    def recompute(self, on=True):
        for stage in (*self.encoder.stages, *self.decoder.stages):
            stage.recompute = on
        return self


# %% [markdown]
# The published network has 83,653,863 parameters in 248 tensors. Run the cell and compare. **What you have written is Stable Diffusion's autoencoder**: the same layers in the same order, with fresh weights. (Equal counts alone would be no proof; loading the real weights would be. The zero start of `conv2` and the narrow start of σ are ours.) (On the device «meta» a network has shapes but no memory.)

# %% tags=["nbval-check-output"]
with torch.device("meta"):
    published = ConvVAE(VAEConfig.stable_diffusion())
count = sum(p.numel() for p in published.parameters())
print(f"{count:,} parameters in {len(published.state_dict())} tensors")
print("every GroupNorm has eps 1e-6:", {m.eps for m in published.modules() if isinstance(m, nn.GroupNorm)} == {1e-6})
print("a 512×768 photograph becomes", tuple(published.encode(torch.empty(1, 3, 512, 768, device="meta")).mean.shape))
small = ConvVAE(VAEConfig.course(4))
print("ours and the helpers' give the same output:", end=" ")
theirs = conv_vae.ConvVAE(conv_vae.VAEConfig.course(4))
theirs.load_state_dict(small.state_dict())
x = torch.rand(1, 3, 24, 40) * 2 - 1
print(torch.equal(small.encode(x).mean, theirs.encode(x).mean))


# %% [markdown]
# ### Exercise 5 · The shapes of an encoder (7 minutes)
#
# Without running it: which shapes (C, H, W) does the encoder of `config` give for a picture of `height` × `width`? A list: after `conv_in`, after each stage, after `conv_out`. The check traces the real encoders, Stable Diffusion's too.

# %% tags=["exercise"]
def shape_trace(config, height, width):
    """[(C, H, W), …] after conv_in, each stage, and conv_out of the encoder of a VAEConfig."""
    raise NotImplementedError

check.shape_trace(shape_trace)


# %% [markdown]
# <details><summary>Hint</summary>
#
# A stage gives `config.channels[level]` channels and halves both sides, but the last one does not halve. What comes out of `conv_out` is a mean and a log-variance.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def shape_trace(config, height, width):
#     shapes = [(config.channels[0], height, width)]
#     for level, channels in enumerate(config.channels):
#         if level < len(config.channels) - 1:
#             height, width = height // 2, width // 2
#         shapes.append((channels, height, width))
#     return [*shapes, (2 * config.latent_channels, height, width)]
# ```
#
# </details>
#
#

# %% [markdown]
# Compare your list with the real ones:

# %%
def trace(config, height, width):
    """{part of the encoder: shape of what it gives}, without computing a value."""
    with torch.device("meta"):
        encoder, x = Encoder(config), torch.empty(1, 3, height, width)
    parts = {"conv_in": encoder.conv_in} | {f"stage {i}": stage for i, stage in enumerate(encoder.stages, 1)}
    parts |= {"middle": encoder.mid, "conv_out": encoder.conv_out}
    shapes = {}
    for name, part in parts.items():
        part.register_forward_hook(lambda _, __, out, name=name: shapes.update({name: tuple(out.shape[1:])}))
    encoder(x)
    return shapes


course, large = trace(VAEConfig.course(4), 64, 96), trace(VAEConfig.stable_diffusion(), 512, 768)
lines = [f"| {part} | {course.get(part, '')} | {shape} |" for part, shape in large.items()]
Markdown("| part | course(4), 64×96 | stable_diffusion(), 512×768 |\n|---|---|---|\n" + "\n".join(lines))

# %% [markdown]
# ## 9 · Pools on a feature map
#
# Notebook 2's posterior had 20 numbers for a whole picture. Here every position of a small feature map has its own: 4 means and 4 log-variances at each of 16×16 places. `DiagonalGaussian` does not care; it adds up the KL over everything. What does a draw do to a dog? Multiply the noise and see:

# %%
with torch.no_grad():
    posterior = shipped.encode(conv_vae.to_signed(dogs[:6].pixels(device())))
    noise = torch.randn(posterior.mean.shape, generator=generator_for("pools")).to(device())
    rows = {}
    for size in (0.0, 1.0, 8.0, 32.0):
        z = posterior.mean + size * posterior.std * noise
        images = conv_vae.to_unit(shipped.decode(z)).cpu()
        quality = psnr(images.clamp(0, 1), dogs[:6].pixels()).mean()
        rows[f"noise × {size:g}: PSNR {quality:.1f} dB"] = images
print("posterior", tuple(posterior.mean.shape), "· KL", [round(v) for v in posterior.kl().tolist()], "nats per image")
plots.show(
    plots.image_rows(rows, size=1.0),
    "Six dogs decoded from the mean, from a draw, and with 8 and 32 times the noise: grain appears, then the dog dissolves.",
)


# %% [markdown]
# One draw (noise × 1) is hardly visible: the posterior is narrow. Noise on a feature map is **local** grain; it never turns one dog into another. Section 15 measures how narrow, and section 14 shows the price.
#
# ## 10 · The loss: how much does the KL weigh?
#
# Published recipes write squared error and KL in many ways. To compare them, bring each into nats: the loss is, up to a factor, the negative ELBO of a Gaussian with some σ, and then the KL has a factor β.
#
# First by yourself, for one of the ways:

# %% [markdown]
# ### Exercise 6 · Which β is that? (5 minutes)
#
# A recipe says `loss = ((x - decoded)**2).mean() + weight * kl`: the squared error averaged over the `values` numbers of an image, the KL summed, in nats per image. Up to a factor and a constant this is the negative ELBO of a Gaussian with variance σ², and the KL has a factor β. With σ² = `mse`, the mean squared error that the model reaches: which β?

# %% tags=["exercise"]
def weight_in_nats(weight, values, mse):
    """β of `mean squared error + weight · KL` for pixels with σ² = mse."""
    raise NotImplementedError

check.weight_in_nats(weight_in_nats)


# %% [markdown]
# <details><summary>Hint</summary>
#
# A Gaussian's reconstruction term is the *sum* of squared errors, divided by 2 σ². By what must the whole loss be multiplied to make that of its first term?
#
# </details>
# <details><summary>Solution</summary>
#
# Multiply everything by values / (2 σ²): the mean becomes a sum in nats, and the KL gets the same factor.
#
# ```python
# def weight_in_nats(weight, values, mse):
#     return weight * values / (2 * mse)
# ```
#
# </details>
#
#

# %% [markdown]
# Now all of them. **Predict:** which of them asks for a talkative code, and which for a silent one?

# %%
def beta_of(values, latents, error="mean", kl="sum", weight=1.0, mse=0.005):
    """β when the pixels' variance σ² is the mean squared error; values, latents: numbers per image."""
    per_image_error = 1.0 if error == "sum" else 1 / values
    per_image_kl = weight if kl == "sum" else weight / latents
    return per_image_kl / (2 * mse * per_image_error)


pixels, recipes = 3 * 256 * 256, {}
recipes["chapter: mean error + 1.0 · mean KL"] = beta_of(pixels, 4 * 32 * 32, kl="mean")
recipes["original course: mean error + 0.00025 · KL summed over a batch of 8"] = beta_of(pixels, 4 * 32 * 32, weight=8 * 0.00025)
recipes["Stable Diffusion's weight, were its error squared: summed error + 0.000001 · summed KL"] = beta_of(pixels, 4 * 32 * 32, error="sum", weight=1e-6)
recipes["calibrated: D/2 · log error + 1.0 · summed KL"] = 1.0
Markdown("| recipe, at 256 px | β at a squared error of 0.005 (pixels in [−1, 1]; 29 dB) |\n|---|---|\n" + "\n".join(f"| {n} | {b:.4g} |" for n, b in recipes.items()))


# %% [markdown]
# The first pays thousands of nats of error to save one nat of code: it blurs. The second would do so too, by an amount that changes with the batch size, if its KL were one (section 12). Stable Diffusion pays next to nothing for the code: a *compressor*, whose posterior is nearly a point. (Notebook 2's «millionth» is the weight as written; in nats it depends on σ.) The last is the one of notebook 2, where σ fits itself and β = 1 is the honest bound.
#
# What does β do to a dog? `make bench` trained the same network for the same minutes with four of them:

# %%
weighed = load_result("dog_kl")["values"]
Markdown(
    f"{weighed['minutes']:g} minutes each on {weighed['on']}, {weighed['resolution']} px, f{weighed['factor']}, three seeds\n\n"
    "| β | PSNR | KL, nats per image | nats per pixel | σ / spread of the means |\n|---|---|---|---|---|\n"
    + "\n".join(
        f"| {beta} | {row['psnr']['mean']:.2f} ± {row['psnr']['sd']:.2f} dB | {row['kl']['mean']:,.0f} | "
        f"{row['kl']['mean'] / weighed['resolution'] ** 2:.2f} | {row['noise']['mean']:.3f} |"
        for beta, row in weighed["rows"].items()
    )
)

# %% [markdown]
# «σ / spread» is the posterior's σ beside how much its mean changes over all places and pictures: near 0, the posterior is a point; near 1 and above, the code says little. Each power of ten in β costs decibels and saves nats.
#
# We train with the calibrated Gaussian and β = 0.1: better pictures at the price of samples, because this latent is to be a compression first, as in Stable Diffusion. It is still enough to keep σ from shrinking to nothing (section 15 measures it).

# %%
def to_signed(pixels):
    return 2 * pixels - 1


def to_unit(images):
    return (images + 1) / 2


def image_loss(model, batch, generator, nll=calibrated_gaussian_nll, beta=1.0):
    output = model(to_signed(batch.images), generator)
    return negative_elbo(output._replace(decoded=to_unit(output.decoded)), batch.images, nll, beta)


# %% [markdown]
# ## 11 · Training, watched
#
# `fit` is the loop of notebook 2 with more options: minutes instead of epochs, mixed precision where the machine has it, averaged weights, a run that survives a disconnect. (`ema`: after every step a running mean of the weights is updated; it is steadier than the last step's weights, and is what `fit` leaves in the model.) The loss will be negative: these pixels are continuous, and a density, unlike a probability, may exceed 1. Only differences count.
#
# The twelve held-out dogs look on: after each epoch they are reconstructed and saved, as a **filmstrip**.
#
# PSNR is the usual measure: −10·log₁₀ of the mean squared error of pixels in [0, 1], in decibels. 20 dB: a tenth off; 26 dB: a twentieth.

# %%
seed_everything(0)
model = ConvVAE(VAEConfig.course(FACTOR))
film = Filmstrip("dogs", small_dogs)
history = fit(
    model, partial(image_loss, beta=0.1), train, minutes=budget(quick=0.1, cpu=6, gpu=6), batch_size=8, lr=3e-3,
    validation=validation, augment=random_flip, ema=0.99, watch=film, run="dogs",
)  # fmt: skip
print(history.table())
assert history["loss"][-1] < history["loss"][0] or len(history.rows) == 1, "the loss should fall"

# %%
frames = film.frames()
chosen = sorted({list(frames)[round(i * (len(frames) - 1) / 4)] for i in range(5)})
rows = {f"after epoch {epoch}": frames[epoch] for epoch in chosen} | {"photographs": small_dogs.pixels()}
plots.show(
    plots.image_rows(rows, size=0.7),
    "A filmstrip: twelve dogs after more and more epochs, from coloured fog over blurred shapes to recognisable dogs.",
)

# %% [markdown]
# The order is always the same: mean colour, large shapes, edges, then fur. *Trained too briefly* therefore looks **blurred**, not noisy: whoever sees noise has another problem. When to stop? A validation loss that still falls says: not yet. A flat one does **not** say «finished»: the learning rate goes to nothing (right), and that flattens every curve. So compare runs of different *length* on the validation dogs; section 12 puts a longer run beside this one.

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3))
minutes = [seconds / 60 for seconds in history["seconds"]]
left.plot(minutes, history["val_loss"], "o-")
left.set(xlabel="minutes", title="validation loss, nats per image")
right.plot(minutes, history["rate"], "o-")
right.set(xlabel="minutes", title="learning rate")
plots.show(fig, "Left, the loss of the validation dogs over the minutes of training; right, the learning rate, which ends at nothing.")

# %% [markdown]
# ## 12 · Is that good? Ask a linear code
#
# An honest baseline: cut the picture into blocks, one for each place of the latent (4×4 pixels, 48 numbers, in the outputs below), and keep the 4 best linear numbers of each (**block PCA**). Equally many numbers, and no training to speak of. A network should beat it before anybody praises its pictures. **SSIM** compares brightness, contrast and pattern in small windows; 1 means equal.

# %%
pca = BlockPCA(train, FACTOR, numbers=4)
held_out = load_dogs(RESOLUTION, "test")[:400]
truth = held_out.pixels()
scores = {"block PCA": pca.reconstruct(truth), "this notebook's model": reconstruct(model, held_out)}
if RESOLUTION == 64:
    scores["the shipped model"] = reconstruct(shipped, held_out)
rows = {"photographs": small_dogs.pixels()}
for name, images in scores.items():
    quality = psnr(images, truth).mean(), ssim(images, truth).mean()
    print(f"{name:22} PSNR {quality[0]:.2f} dB   SSIM {quality[1]:.3f}   on {len(held_out)} held-out pictures")
    rows[name] = images[:12]
plots.show(
    plots.image_rows(rows, size=0.7),
    "Twelve dogs, and their reconstructions by block PCA and by the networks.",
)

# %% [markdown]
# The shipped model (in the table where this notebook works at 64 pixels) trained longer than this notebook does. And the published recipes? `make bench` gave each the same minutes on the same machine. (Eight-fold reduction, because the published ones have it.)

# %%
record = load_result("dog_recipes")
published_results = record["values"]
Markdown(
    f"{published_results['minutes']:g} minutes each, {published_results['resolution']} px, f{published_results['factor']}, {len(record['seeds'])} seeds, {record['device']}\n\n"
    "| recipe | PSNR | KL, nats per image | σ / spread of the means | images seen |\n|---|---|---|---|---|\n"
    + "\n".join(
        f"| {name} | {row['psnr']['mean']:.2f} ± {row['psnr']['sd']:.2f} dB | {row['kl']['mean']:,.0f} | "
        f"{row['noise']['mean']:.3g} | {row['images']['mean']:,.0f} |"
        for name, row in published_results["rows"].items()
    )
)

# %% [markdown]
# *Chapter* is a tutorial's VAE for dogs of 256 pixels: about three million parameters, the mean error plus the mean KL. *Original* is the course that this one follows: Stable Diffusion's full size, so read its last column. Its encoder returned only the scaled sample, and its «KL» took two channels of that sample for means and the other two for log-variances. So no term kept σ from shrinking: noise only disturbs the reconstruction.
#
# ## 13 · What does each channel hold?
#
# Four numbers per place. Add one, two, three standard deviations to one channel everywhere, and decode.
#
# **Predict:** is there a channel for brightness? One for «dog»?

# %%
widgets.channel_editor(shipped, dogs[1:2].pixels())

# %% [markdown]
# Channels hold the *light and colour of small places*: lighter and darker, warmer and colder, some of them edges too. None holds the dog. This latent is a small picture with strange colours:

# %%
with torch.no_grad():
    z = shipped.encode(conv_vae.to_signed(dogs[:6].pixels(device()))).mode().cpu()  # (6, 4, 16, 16)
low, high = z.amin((0, 2, 3)), z.amax((0, 2, 3))  # the same grey for the same value in all six
rows = {"photographs": dogs[:6].pixels()}
for channel in range(z.shape[1]):
    grey = (z[:, channel] - low[channel]) / (high[channel] - low[channel])
    rows[f"channel {channel} of their latents"] = F.interpolate(grey[:, None], size=64).expand(-1, 3, -1, -1)
plots.show(plots.image_rows(rows, size=1.0), "Six dogs, and the four channels of their latents as grey pictures, in which the dogs are recognised.")

# %% [markdown]
# ## 14 · What does compression cost?
#
# Four-fold or eight-fold, 4, 8 or 16 channels: `make bench` trained each, and block PCA beside it. The KL in nats, divided by log 2, is the number of bits (÷ 8: bytes) that the code says about a picture, at most: what makes the codes as a whole differ from N(0, I) is counted too. Its rival at equal bits is the best *linear* VAE on the same blocks: all 48 or 192 axes of block PCA, each with so much noise that the code says no more nats than ours.

# %%
rates = load_result("dog_rates")["values"]
fig, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.6), sharey=True)
for factor, color in ((4, plots.LINES[0]), (8, plots.LINES[1])):
    rows = [row for row in rates["rows"] if row["factor"] == factor]
    numbers = [row["numbers"] for row in rows]
    left.plot(numbers, [row["psnr"] for row in rows], "o-", color=color, label=f"VAE, f{factor}")
    left.plot(numbers, [row["block_pca_psnr"] for row in rows], "s--", color=color, label=f"block PCA, f{factor}")
    right.plot([row["kl"] / math.log(2) / 8 for row in rows], [row["psnr"] for row in rows], "o-", color=color, label=f"f{factor}")
    right.plot([row["kl"] / math.log(2) / 8 for row in rows], [row["linear_psnr"] for row in rows], "s--", color=color)
    for row in rows:
        right.annotate(f"{row['channels']} ch", (row["kl"] / math.log(2) / 8, row["psnr"]), xytext=(4, -12), textcoords="offset points", fontsize=9)
left.set(xscale="log", xlabel="latent numbers", ylabel="PSNR, dB")
left.set_xticks([256, 512, 1024, 2048, 4096], ["256", "512", "1,024", "2,048", "4,096"], minor=False)
left.minorticks_off()
right.set(xlabel="bytes that the code says (KL)")
left.legend(fontsize=9)
plots.show(fig, "PSNR against the number of latent numbers, for the VAE and for block PCA, and against the bytes of the KL.")
print(f"{rates['minutes']:g} minutes each on {rates['on']}, {rates['resolution']} px, one seed")

# %% [markdown]
# Do not believe the plot: measure one of its points again. With `rates["minutes"]` in place of the few below it is the same experiment.

# %%
minutes = budget(quick=0.02, cpu=0.5, gpu=0.5)
seed_everything(0)
again = ConvVAE(VAEConfig.course(FACTOR, latent_channels=8))
found = fit(again, partial(image_loss, beta=0.1), train, minutes=minutes, batch_size=8, lr=3e-3, augment=random_flip)
quality = psnr(reconstruct(again, held_out), truth).mean().item()
print(f"8 channels, f{FACTOR}, {RESOLUTION} px, {found.seconds:.0f} s of training: {quality:.2f} dB")
assert quality > 10, "after so short a training the colours at least should be right"

# %% [markdown]
# ## 15 · Between dogs, and beyond
#
# Is the latent space smooth? Walk in a straight line from one dog to another, and beside it simply fade the pixels.

# %%
with torch.no_grad():
    pair = conv_vae.to_signed(dogs[torch.tensor([0, 5])].pixels(device()))
    a, b = shipped.encode(pair).mode()
    share = torch.linspace(0, 1, 7, device=device())[:, None, None, None]
    walk = conv_vae.to_unit(shipped.decode((1 - share) * a + share * b)).cpu()
fade = conv_vae.to_unit((1 - share) * pair[0] + share * pair[1]).cpu()
plots.show(
    plots.image_rows({"a straight line between two latents": walk, "the two photographs faded": fade}, size=1.05),
    "Two rows of seven pictures from one dog to another: the latent walk looks almost like the plain fade.",
)
print(f"mean difference of the two middle pictures: {(walk[3] - fade[3]).abs().mean():.3f} (black to white is 1)")
print(f"of the two first ones, where only the reconstruction differs: {(walk[0] - fade[0]).abs().mean():.3f}")

# %% [markdown]
# The average of two latents is nearly the average of two photographs: two ghosts, not a dog in between. The code is local, so averaging it averages places. (In notebook 2, the average of two digits *was* a shape in between: there the code described the whole picture.)
#
# Now draw from N(0, I), as one does with a VAE.
#
# **Predict:** dogs?

# %%
stats = latent_statistics(shipped, load_dogs(64, "validation"))
shape = (6, *posterior.mean.shape[1:])
with torch.no_grad():
    z = torch.randn(shape, generator=generator_for("prior")).to(device())
    spread = stats.std.view(1, -1, 1, 1).to(device())
    rows = {
        "decoded from N(0, I)": conv_vae.to_unit(shipped.decode(z)).cpu(),
        "each channel at its own mean and spread": conv_vae.to_unit(
            shipped.decode(z * spread + stats.mean.view(1, -1, 1, 1).to(device()))
        ).cpu(),
        "real latents, places shuffled": conv_vae.to_unit(
            shipped.decode(posterior.mean[:6].flatten(2)[:, :, torch.randperm(shape[2] * shape[3])].view(shape))
        ).cpu(),
    }
plots.show(plots.image_rows(rows, size=1.0), "Three rows of coloured noise: no draw from a simple distribution is a dog.")

# %% [markdown]
# Noise, and it has nothing to do with training too little: the third row shuffles *real* latents, and they are noise too. What makes a dog is how neighbouring latents belong together, and N(0, I) says that they do not. A VAE with so light a KL is **half** of a generative model: the compression. The other half must learn which small pictures are dogs; in Stable Diffusion that is the diffusion model.
#
# How far from N(0, I) is the posterior? Measure it, channel by channel, and take the number that a diffusion model needs: the **scaling factor**, 1 / (standard deviation of the latents).

# %%
lines = [
    f"| {i} | {stats.mean[i]:+.2f} | {stats.std[i]:.2f} | {stats.kl[i]:,.0f} | {stats.noise[i]:.3f} |" for i in range(len(stats.mean))
]
Markdown(
    "| channel | mean | standard deviation | KL, nats per image | σ / spread of the means |\n|---|---|---|---|---|\n"
    + "\n".join(lines)
    + f"\n\n{stats.active} of {stats.numbers} numbers are active; {stats.kl.sum() / stats.numbers:.2f} nats per number. "
    f"Scaling factor of these pictures: **{stats.scaling_factor:.4f}** (stored in the checkpoint: {shipped.settings.scaling_factor:.4f}). "
    f"The model that you trained: **{latent_statistics(model, validation).scaling_factor:.4f}**."
)


# %% [markdown]
# So where does 0.18215 come from? From this measurement on Stable Diffusion's own autoencoder, there over its first training batch. It belongs to that one network; the original course wrote it into another, untrained one. Whoever multiplies *our* latents by it gives a diffusion model an input of the wrong size.
#
# ## 16 · The recipe behind Stable Diffusion
#
# Squared error asks for the *mean* of all plausible furs, absolute error for their *median*, and both are blurred. Stable Diffusion adds two judges:
#
# - a **perceptual distance**: compare not pixels but what VGG16, a network trained to tell a thousand kinds of things apart, sees in both pictures;
# - a **discriminator**: a second network that learns to tell photographs from reconstructions, patch by patch, while the VAE learns to fool it.

# %%
class PatchDiscriminator(nn.Module):
    def __init__(self, width=64, layers=3, groups=8):
        super().__init__()
        widths = [width * 2**i for i in range(layers)]
        parts = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for level, (a, b) in enumerate(zip(widths, [*widths[1:], widths[-1] * 2], strict=True), start=1):
            stride = 1 if level == layers else 2
            parts += [nn.Conv2d(a, b, 4, stride=stride, padding=1), nn.GroupNorm(groups, b), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*parts, nn.Conv2d(2 * widths[-1], 1, 4, padding=1))

    def forward(self, x):
        return self.layers(x)


def hinge_loss(real, fake):
    return 0.5 * (F.relu(1 - real).flatten(1).mean(1) + F.relu(1 + fake).flatten(1).mean(1))


# %% [markdown]
# Two losses of different size now pull at the same decoder. The discriminator gives every patch a score. Its **hinge loss** asks for a score above 1 for photographs and below −1 for reconstructions, and for nothing beyond that. The VAE's extra term («fooling») is minus the score of its reconstruction. The **adaptive weight** makes the two pull equally: it is the ratio of the *lengths* of their gradients at the decoder's last layer. (Stable Diffusion then counts half of it.)

# %% tags=["nbval-check-output"]
def adaptive_weight(nll, fooling, last):
    if not torch.is_grad_enabled():
        return torch.zeros(())  # an evaluation has no gradients to compare
    pulls = [torch.autograd.grad(term, last, retain_graph=True)[0].float().norm() for term in (nll, fooling)]
    return (pulls[0] / (pulls[1] + 1e-4)).clamp(0, 1e4).detach()


last = torch.tensor([3.0, 4.0], requires_grad=True)
strong, weak = (last * torch.tensor([6.0, 8.0])).sum(), (last * torch.tensor([0.0, 0.5])).sum()
print("a pull of 10 against one of 0.5: the second counts", round(float(adaptive_weight(strong, weak, last))), "times")
judge = PatchDiscriminator(width=16, layers=2)
print("a photograph of 64×96 is judged in", tuple(judge(torch.rand(1, 3, 64, 96)).shape[2:]), "overlapping patches")

# %% [markdown]
# `helpers.adversarial.Contest` puts VAE and discriminator into one module, so that `fit` trains both in one go: the discriminator sees a *detached* reconstruction, and the VAE is judged by a *detached* discriminator. `make bench` continued the same model for the same minutes with each loss. *Sharpness* is the mean squared difference of neighbouring pixels, as a share of the photographs'; noise raises it too. (Where VGG16's weights could not be downloaded, its row is missing, and the note above the table says so.)

# %%
losses_found = load_result("dog_losses")["values"]
rows = losses_found["rows"]
note = f"{losses_found['minutes']:g} minutes each on {losses_found['on']}, {losses_found['resolution']} px. {losses_found['note']}"
Markdown(
    note + "\n\n| loss | PSNR | SSIM | sharpness (photographs = 1) | KL, nats per image |\n|---|---|---|---|---|\n"
    + "\n".join(f"| {n} | {r['psnr']:.2f} dB | {r['ssim']:.3f} | {r['sharpness']:.2f} | {r['kl']:,.0f} |" for n, r in rows.items())
)

# %%
judged = load_shipped(conv_vae.ConvVAE, "dogs_vae_judged").to(device())
rows = {"photographs": dogs.pixels(), "calibrated squared error": reconstruct(shipped, dogs)}
rows["and then with a discriminator"] = reconstruct(judged, dogs)
for name, images in list(rows.items())[1:]:
    share = sharpness(images).mean() / sharpness(dogs.pixels()).mean()
    print(f"{name:26} sharpness {share:.2f} (photographs: 1)   PSNR {psnr(images, dogs.pixels()).mean():.1f} dB")
plots.show(
    plots.image_rows({name: images[:6] for name, images in rows.items()}, size=1.3),
    "Six dogs: photographs, reconstructions by squared error, which are soft, and with a discriminator, whose fur has grain.",
)

# %% [markdown]
# The discriminator puts fur back: *a* plausible fur, not *the* fur. So sharpness rises and PSNR falls. Neither number alone is «quality»: many viewers would choose the last row; a doctor with an X-ray image should not.
#
# ## 17 · Larger pictures, longer runs
#
# What grows with the picture? Measured by `make bench`, training steps of the course's model (f4 up to 64 pixels, f8 above):

# %%
costs = load_result("dog_costs")["values"]
widest = [max((r for r in costs["rows"] if r["resolution"] == size), key=lambda r: r["batch"]) for size in (256, 512)]
Markdown(
    f"{costs['device']}\n\n| pixels | batch | images/s | peak MB |\n|---|---|---|---|\n"
    + "\n".join(f"| {r['resolution']} | {r['batch']} | {r['images per second']:.3g} | {r['megabytes']:,.0f} |" for r in costs["rows"])
    + "\n\nLarger batches than these were left out: "
    + ", ".join(f"{r['resolution']} px with {4 * r['batch']} would need about {4 * r['megabytes'] / 1000:.0f} GB" for r in widest)
)


# %% [markdown]
# Time and memory grow with the number of pixels. Three switches make room: half precision, `accumulate=4` (a batch in four parts, same numbers), and `recompute()` (forget the inside of each block, compute it again on the way back). See what the last one saves:

# %% tags=["nbval-check-output"]
def megabytes_kept(network, x):
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.update({t.data_ptr(): t.nbytes}) or t, lambda t: t):
        network(x, generator_for(0))
    return sum(kept.values()) / 1e6


network, x = ConvVAE(VAEConfig.course(4)), torch.rand(1, 3, 64, 96)
plain, saving = megabytes_kept(network, x), megabytes_kept(network.recompute(), x)
print("recompute() keeps less than half:", saving < 0.5 * plain)


# %% [markdown]
# For hours of training, a terminal is better than a notebook. In the course's folder, this command trains, measures and exports the same network, resumes after a kill, and runs on several GPUs:
#
# ```
# python -m helpers.train_dogs --resolution 128 --minutes 60 --export my_dogs
# accelerate launch -m helpers.train_dogs --resolution 256 --folder ~/photos --batch 32 --accumulate 4 --recompute
# python -m helpers.train_dogs --help
# ```

# %% [markdown]
# ### Exercise 7 · A branch that learns how loud it is (8 minutes)
#
# The original course multiplied each residual branch by a number that is learned. Derive a block from `ResBlock`: shortcut(x) + scale · branch, where `scale` is trained with everything else and begins at `start`. (Section 7's table says what it bought.)

# %% tags=["exercise"]
class ScaledResBlock(ResBlock):
    """A ResBlock whose branch has a learned factor: (B, inputs, H, W) → (B, outputs, H, W)."""

    def __init__(self, inputs, outputs, groups=32, start=1.0):
        super().__init__(inputs, outputs, groups)
        raise NotImplementedError

    def forward(self, x):
        raise NotImplementedError

check.ScaledResBlock(ScaledResBlock)


# %% [markdown]
# <details><summary>Hint</summary>
#
# `nn.Parameter(torch.tensor(start))` is a number that `parameters()` lists and the optimiser changes. `ResBlock.forward`, in section 4, has the branch in two lines.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# class ScaledResBlock(ResBlock):
#     def __init__(self, inputs, outputs, groups=32, start=1.0):
#         super().__init__(inputs, outputs, groups)
#         self.scale = nn.Parameter(torch.tensor(start))
#
#     def forward(self, x):
#         h = self.conv1(F.silu(self.norm1(x)))  # (B, outputs, H, W)
#         h = self.conv2(F.silu(self.norm2(h)))
#         return self.shortcut(x) + self.scale * h
# ```
#
# </details>
#
#

# %% [markdown]
# ### Exercise 8 · Your own (10 minutes, or a weekend)
#
# Return a trained VAE whose latent has at most a twelfth as many numbers as the picture. (The check works at 64 pixels, 32 in profile quick.) The check reconstructs the validation dogs and asks for a better PSNR than a thumbnail's: the picture shrunk to as many numbers, and enlarged again. It also asks that the latent is not all noise. Then try to beat this notebook's model in the same minutes: other widths, no attention, another β, another factor? Say which change bought how many decibels.

# %% tags=["exercise"]
def my_dog_vae(train):
    """A trained VAE with `encode` → DiagonalGaussian and `decode`, for pictures in [−1, 1]."""
    raise NotImplementedError

check.my_dog_vae(my_dog_vae)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `ConvVAE(VAEConfig.course(4))`, `partial(image_loss, beta=0.1)` and `fit`, as in section 11. Where does the time go? Into the layers that work at full resolution.
#
# </details>
# <details><summary>Solution</summary>
#
# No layer at full resolution: `pixel_unshuffle` makes 48 channels of each 4×4 block and loses nothing, so that everything works at a quarter of the height and width. A step is cheaper, so the same minutes buy more of them.
#
# ```python
# class PatchVAE(ConvVAE):
#     def __init__(self, width=32, patch=4):
#         super().__init__(VAEConfig(channels=(width,), blocks=1, groups=8, mid_attention=False))
#         self.patch = patch
#         self.encoder.conv_in = nn.Conv2d(3 * patch**2, width, 3, padding=1)
#         self.decoder.conv_out = nn.Conv2d(width, 3 * patch**2, 3, padding=1)
#
#     def encode(self, x):
#         return super().encode(F.pixel_unshuffle(x, self.patch))  # (B, 3, H, W) → (B, 48, H/4, W/4)
#
#     def decode(self, z):
#         return F.pixel_shuffle(super().decode(z), self.patch)  # (B, 48, H/4, W/4) → (B, 3, H, W)
#
#
# def my_dog_vae(train):
#     model = PatchVAE()
#     steps = budget(quick=300, cpu=3000, gpu=6000)
#     fit(model, partial(image_loss, beta=0.1), train, steps=steps, batch_size=8, lr=1e-2)
#     return model
# ```
#
# </details>

# %% [markdown]
# ## Questions people ask
#
# **How does the reconstruction loss change the result?** Section 16 continues one model with each loss: compare the columns PSNR and sharpness of its table.
#
# **Why are VAE samples blurry?** Two answers. *Reconstructions* are soft because squared error asks for the mean of all furs that fit (section 16, the column «sharpness»). *Samples* from N(0, I) are not blurry here but noise: nothing taught the prior what a dog is (section 15).
#
# **What does training too briefly look like, and when do I stop?** Blurred, never noisy: the filmstrip in section 11. A flat curve is no proof, because the rate ends at nothing (the plot below the filmstrip): compare runs of different length on the validation set.
#
# **What does self-attention add to a convolutional VAE, and what does it cost?** A view of the whole picture in one step. The table at the end of section 7 gives its worth in dB at equal minutes, the one in section 6 its cost, which grows with the square of the number of positions.
#
# **What do residual connections and group normalisation do?** They keep the gradient alive through depth (the plot in section 4), and the scale fixed without looking at other images (the first cell of section 3). Section 7's table takes them out.
#
# **How does the encoder shrink and the decoder grow a picture?** With a strided convolution, and with repeated pixels and a convolution. Often said: «with transposed convolutions». Section 2 shows what those do to a constant grey.
#
# **What is hard about training a VAE from scratch on photographs?** The weight of the KL (section 10: the published ones lie many powers of ten apart), a linear baseline that is hard to beat (section 12), blur (section 16), and a prior that does not fit (section 15).
#
# **Where does 0.18215 come from, and what is mine?** 1 / standard deviation of Stable Diffusion's own latents; yours is in the last table of section 15.
#
# ## Recap
#
# - Convolutions because near belongs together, normalisation and shortcuts because depth must be trainable, attention because ears come in pairs (sections 1 to 7).
# - Put together, they *are* Stable Diffusion's autoencoder: 83,653,863 parameters, one configuration of a class that you wrote (section 8).
# - A light KL makes a good compressor and no generator; the latent is a small picture, and its scale must be measured (sections 10, 13, 15).
# - Compare with block PCA at equally many numbers, and with other recipes at equal minutes, or you do not know whether it is good (sections 12, 14).
#
# **To read next:** Rombach et al. 2022 (*High-Resolution Image Synthesis with Latent Diffusion Models*), appendix G; Esser et al. 2021 (*Taming Transformers*) for the discriminator; Rybkin et al. 2021 (*Simple and Effective VAE Training with Calibrated Decoders*).
#
# **Next:** take the open-ended exercise, then compare with the table of results in the [README](../README.md).
