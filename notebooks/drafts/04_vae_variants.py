# %% [markdown]
# # 4 · The family of VAEs
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/04_vae_variants.ipynb)
#
# | | |
# |---|---|
# | **You will build** | six relatives of the VAE of notebook 2, each by changing a line or two; measured alike, with a table «which one when» |
# | **Minutes** | quick ½ · cpu 12 · gpu not timed yet |
# | **Hardware** | two CPU cores are enough |
# | **Download** | MNIST, 11 MB |
# | **You need to know** | [notebook 2](02_mlp_vae_mnist.ipynb): the VAE, its loss, its latent |
# | **You will see** | for each variant one figure, and in the end one table |

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
from functools import partial

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from IPython.display import Markdown
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import nn
from torch.func import functional_call

from helpers import checks_variants as check
from helpers import plots
from helpers.budget import budget, device, generator_for, randn_like, seed_everything
from helpers.checkpoints import load_shipped
from helpers.data import ImageSet, load_mnist
from helpers.distributions import DiagonalGaussian
from helpers.drawn_dogs import load_drawn_dogs
from helpers.losses import bernoulli_nll, negative_elbo
from helpers.metrics import DigitJudge, encode_all, importance_nll, judge_images, mutual_information, mutual_information_gap
from helpers.mlp import Autoencoder, MLPVAE, VAEOutput, mlp
from helpers.results import load_result
from helpers.training import evaluate, fit
from helpers.variants import DrawingVAE, HierarchicalVAE, RecurrentVAE, hierarchical_loss, hierarchical_nll
from helpers.vector_quantised import CodePrior, VQVAE, code_loss, vq_loss

# %% [markdown]
# ## The member you know
#
# All that follows changes something in this: `MLPVAE`, 20 latent numbers. Train it once, and let the judge of notebook 1 look at what it draws.

# %%
train, test = load_mnist("train"), load_mnist("test")
judge = load_shipped(DigitJudge, "digit_judge").to(device())
print(train.source)
SIZE = budget(quick=64, cpu=256, gpu=256)  # of a batch


def vae_loss(model, batch, generator):
    return negative_elbo(model(batch.images, generator), batch.images)


def trained(model, loss, epochs=budget(quick=10, cpu=6, gpu=10), lr=budget(quick=5e-3, cpu=1e-2, gpu=1e-2)):
    """The model, trained, and the seconds it took."""
    started = time.perf_counter()
    fit(model, loss, train, epochs=epochs, batch_size=SIZE, lr=lr)
    return model.eval(), time.perf_counter() - started


family = {}  # what the closing table says of each: seconds, and whatever was measured


def member(name, model, seconds, **measured):
    """A row of the closing table."""
    family[name] = {"parameters": f"{sum(p.numel() for p in model.parameters()):,}", "seconds": f"{seconds:.0f}"} | measured


@torch.no_grad()
def recognised(images):
    """The share of pictures (N, 1, 28, 28) in which the judge is sure of a digit."""
    return (judge_images(judge, images)[0].max(1).values > 0.9).float().mean().item()


# %% tags=["teaser"]
seed_everything(0)
vae, seconds = trained(MLPVAE(20, (400,)), vae_loss)
noise = torch.randn(budget(quick=200, cpu=2000, gpu=2000), 20, generator=generator_for("noise")).to(device())
with torch.no_grad():
    drawn = vae.decode(noise).sigmoid()
scores = evaluate(vae, vae_loss, test)
member("VAE", vae, seconds, nats=f"{scores['loss']:.1f} (bound)", rebuilt=f"{scores['reconstruction']:.1f}", recognised=f"{recognised(drawn):.0%}")
plots.show(plots.image_rows({f"drawn by the VAE; {recognised(drawn):.0%} recognised": drawn[:12].cpu()}, size=0.8), "Twelve digits drawn by a VAE.")

# %% [markdown]
# ## 1 · Ask for a digit: the conditional VAE
#
# The VAE draws *some* digit. To ask for one, tell encoder and decoder the label (Sohn, Lee & Yan 2015). Against `MLPVAE`:
#
# ```diff
# - self.encoder = mlp(784, *hidden, 2 * latent)
# + self.encoder = mlp(784 + classes, *hidden, 2 * latent)
# - self.decoder = mlp(latent, *reversed(hidden), 784)
# + self.decoder = mlp(latent + classes, *reversed(hidden), 784)
# ```
#
# What the label says need not be in z any more. **Predict:** what is left in z?

# %% tags=["nbval-check-output"]
class ConditionalVAE(nn.Module):
    def __init__(self, latent=20, hidden=(400,), classes=10):
        super().__init__()
        self.config = {"latent": latent, "hidden": list(hidden), "classes": classes}
        self.classes = classes
        self.encoder = mlp(784 + classes, *hidden, 2 * latent)
        self.decoder = mlp(latent + classes, *reversed(hidden), 784)

    def _with(self, x, labels):
        return torch.cat([x, F.one_hot(labels, self.classes).to(x.dtype)], dim=1)  # (B, D) → (B, D + classes)

    def encode(self, x, labels):
        return DiagonalGaussian(*self.encoder(self._with(x.flatten(1), labels)).chunk(2, dim=1))

    def decode(self, z, labels):
        return self.decoder(self._with(z, labels)).unflatten(1, (1, 28, 28))

    def forward(self, x, labels, generator=None):
        posterior = self.encode(x, labels)
        z = posterior.sample(generator)
        return VAEOutput(self.decode(z, labels), posterior, z)


def conditional_loss(model, batch, generator):
    return negative_elbo(model(batch.images, batch.labels, generator), batch.images)


counts = [sum(p.numel() for p in model.parameters()) for model in (MLPVAE(20, (400,)), ConditionalVAE())]
print(f"parameters: without the label {counts[0]:,}, with it {counts[1]:,}: {counts[1] - counts[0]:,} more")

# %%
seed_everything(0)
conditional, seconds = trained(ConditionalVAE(), conditional_loss)
labels = torch.arange(10, device=device()).repeat(len(noise) // 10)
with torch.no_grad():
    drawn = conditional.decode(noise, labels).sigmoid()
    said = judge_images(judge, drawn)[0].argmax(1)
got = (said == labels.cpu()).float().mean()
print(f"asked for a digit, got it: {got:.1%}")
scores = evaluate(conditional, conditional_loss, test)
member("conditional", conditional, seconds, nats=f"{scores['loss']:.1f} (bound, given the label)",
       rebuilt=f"{scores['reconstruction']:.1f}", recognised=f"{recognised(drawn):.0%}; as asked {got:.0%}")  # fmt: skip
plots.show(plots.image_rows({"asked for 0 … 9, twice, each row with its own z": torch.cat([conditional.decode(noise[i].expand(10, -1), torch.arange(10, device=device())).sigmoid() for i in range(4)]).detach().cpu()}, columns=10, size=0.8),
           "Four rows of ten digits: in each row the same style.")  # fmt: skip

# %% [markdown]
# Each row has one z and ten labels: slant, width and thickness are the row's. So z is left with the **style**, and a style can be moved from one digit to another: encode a seven with its label, decode with another one.

# %%
with torch.no_grad():
    some = test[:6].pixels(device())
    z = conditional.encode(some, test.labels[:6].to(device())).mode()
    rows = {"written": some.cpu()}
    for digit in (2, 4, 8):
        rows[f"the same hand writes {digit}"] = conditional.decode(z, torch.full((6,), digit, device=device())).sigmoid().cpu()
plots.show(plots.image_rows(rows, size=0.9), "Six digits, and the digits 2, 4 and 8 in the same six hands.")

# %% [markdown]
# ## 2 · A discriminator instead of the KL: the adversarial autoencoder
#
# The KL pulls every single posterior towards N(0, I). What sampling needs is less: that all codes *together* look like N(0, I). So leave the KL out, make the encoder deterministic, and let a discriminator tell codes from draws (Makhzani et al. 2015). It learns to tell, the encoder learns to fool it.
#
# ```diff
# - z = self.encode(x).sample(generator)
# + z = self.encode(x)
# - loss = reconstruction + kl
# + loss = reconstruction + weight * fooling
# ```
#
# ### Exercise 1 · Two players (5 minutes)
#
# The discriminator gives a logit: large for «this is a draw from N(0, I)». Its loss, **telling**, is the cross-entropy of draws labelled 1 and codes labelled 0. The encoder's loss, **fooling**, is the cross-entropy of codes labelled 1. (`F.softplus(−l)` is the cross-entropy of label 1, `F.softplus(l)` that of label 0.)

# %% tags=["exercise"]
def players(logits_drawn, logits_codes):
    """(B,) each → (telling, fooling), each (B,)."""
    raise NotImplementedError

check.players(players)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Telling has two terms, fooling one.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def players(logits_drawn, logits_codes):
#     telling = F.softplus(-logits_drawn) + F.softplus(logits_codes)
#     return telling, F.softplus(-logits_codes)
# ```
#
# </details>
#
# What are the two losses where the discriminator has no idea, and where it is sure and right?

# %% tags=["nbval-check-output"]
def telling_and_fooling(logits_drawn, logits_codes):
    """Exercise 1."""
    return F.softplus(-logits_drawn) + F.softplus(logits_codes), F.softplus(-logits_codes)


for name, logit in {"no idea": 0.0, "sure": 4.0}.items():
    telling, fooling = telling_and_fooling(torch.tensor([logit]), torch.tensor([-logit]))
    print(f"{name:8} telling {telling.item():.3f}, fooling {fooling.item():.3f}")

# %% [markdown]
# So 1.386, twice log 2, is where the game should end: codes that nobody can tell from draws.
#
# One optimizer can train both, if neither moves the other: what tells is given codes without a gradient, and what fools a discriminator whose weights are fixed.

# %%
class AdversarialAutoencoder(Autoencoder):
    def __init__(self, latent=20, hidden=(400,)):
        super().__init__(latent, hidden)
        self.discriminator = mlp(latent, 128, 128, 1)


def adversarial_autoencoder_loss(model, batch, generator, weight=10.0):
    z = model.encode(batch.images)
    reconstruction = bernoulli_nll(model.decode(z), batch.images)
    frozen = {name: weight.detach() for name, weight in model.discriminator.named_parameters()}
    fooling = F.softplus(-functional_call(model.discriminator, frozen, (z,)).float()).squeeze(1)
    drawn = randn_like(z, generator)
    telling = F.softplus(-model.discriminator(drawn).float()) + F.softplus(model.discriminator(z.detach()).float())
    loss = reconstruction + weight * fooling + telling.squeeze(1)
    return {"loss": loss, "reconstruction": reconstruction, "fooling": fooling, "telling": telling.squeeze(1)}


seed_everything(0)
adversarial, seconds = trained(AdversarialAutoencoder(), adversarial_autoencoder_loss, lr=2e-3)
codes = {"VAE": encode_all(vae, test), "adversarial autoencoder": encode_all(adversarial, test)}
with torch.no_grad():
    z = vae.encode(test.pixels(device())).sample(generator_for("aggregate", device=device())).cpu()
    drawn = {"VAE": vae.decode(noise).sigmoid(), "adversarial autoencoder": adversarial.decode(noise).sigmoid()}
codes["VAE"] = z  # what its decoder is trained on are draws, not means
for name, code in codes.items():
    off = torch.cov(code.T) - torch.eye(20)
    print(f"{name:24} largest mean {code.mean(0).abs().max():.2f}, spreads {code.std(0).min():.2f} to {code.std(0).max():.2f}, "
          f"largest covariance {(off - off.diag().diag()).abs().max():.2f}; of its own drawings {recognised(drawn[name]):.0%} recognised")  # fmt: skip
scores = evaluate(adversarial, adversarial_autoencoder_loss, test)
member("adversarial", adversarial, seconds, nats="none", rebuilt=f"{scores['reconstruction']:.1f}",
       recognised=f"{recognised(drawn['adversarial autoencoder']):.0%}")  # fmt: skip
plots.show(plots.image_rows({name: images[:12].cpu() for name, images in drawn.items()}, size=0.8), "Twelve digits drawn by each.")

# %% [markdown]
# N(0, I) has mean 0, spreads of 1 and no covariance: the lines say how near the codes of all test digits come to that. But equal moments are not equal shapes. A fresh classifier, trained on half of the codes and as many draws, is a stricter examiner. If the two cannot be told apart it is right in 50 % of the other half.

# %%
for name, code in codes.items():
    both = torch.cat([code, torch.randn(code.shape, generator=generator_for("examiner"))])
    label = torch.arange(2).repeat_interleave(len(code))
    first = torch.arange(len(both)) % 2 == 0
    examiner = HistGradientBoostingClassifier(random_state=0).fit(both[first], label[first])
    print(f"{name:24} {examiner.score(both[~first], label[~first]):.1%} told apart")

# %% [markdown]
# ## 3 · Two levels: the hierarchical VAE
#
# One Gaussian is a poor prior for everything that a digit is. Let a second, higher latent say what the prior of the first should be: z2 ~ N(0, I), z1 ~ p(z1|z2), x ~ p(x|z1). The posterior of z1 then merges two opinions, what the image says and what z2 says, each weighted with its precision (Ladder VAE, Sønderby et al. 2016).
#
# ```diff
# - z = q(z|x).sample(generator)
# + z2 = q(z2|x).sample(generator)
# + z1 = merge(what the image says of z1, p(z1|z2)).sample(generator)
# - loss = reconstruction + KL(q(z|x) ‖ N(0, I))
# + loss = reconstruction + KL(q(z2|x) ‖ N(0, I)) + KL(q(z1|x, z2) ‖ p(z1|z2))
# ```
#
# ### Exercise 2 · Merge two Gaussians (5 minutes)
#
# Multiply N(mean_a, var_a) and N(mean_b, var_b), and normalise. Precisions, 1 / variance, add up.

# %% tags=["exercise"]
def merge(mean_a, logvar_a, mean_b, logvar_b):
    """Four tensors of equal shape → (mean, logvar) of the product of the two densities."""
    raise NotImplementedError

check.merge(merge)

# %% [markdown]
# <details><summary>Hint</summary>
#
# The mean is that of the two means, each with its precision as weight.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def merge(mean_a, logvar_a, mean_b, logvar_b):
#     pa, pb = torch.exp(-logvar_a), torch.exp(-logvar_b)
#     return (mean_a * pa + mean_b * pb) / (pa + pb), -torch.log(pa + pb)
# ```
#
# </details>
#
# Against brute force, two densities multiplied on a fine grid; and the rival, which has to be fair: a flat VAE with at least as many parameters.

# %% tags=["nbval-check-output"]
def merged(mean_a, logvar_a, mean_b, logvar_b):
    """Exercise 2."""
    pa, pb = torch.exp(-logvar_a), torch.exp(-logvar_b)
    return (mean_a * pa + mean_b * pb) / (pa + pb), -torch.log(pa + pb)


grid = torch.linspace(-8, 8, 16001, dtype=torch.float64)
product = torch.exp(-0.5 * (grid - 1) ** 2 / 0.25 - 0.5 * (grid + 2) ** 2 / 1.0)  # N(1, ¼) · N(-2, 1)
weights = product / product.sum()
mean, logvar = merged(torch.tensor(1.0), torch.tensor(0.25).log(), torch.tensor(-2.0), torch.tensor(0.0))
by_hand = (weights * grid).sum()
print(f"on the grid: mean {by_hand:.3f}, variance {(weights * (grid - by_hand) ** 2).sum():.3f}; merged: {mean:.3f}, {logvar.exp():.3f}")
for name, model in {"two levels": HierarchicalVAE((20, 10), (400, 100)), "flat": MLPVAE(30, (480,))}.items():
    print(f"{name:10} {sum(p.numel() for p in model.parameters()):,} parameters")

# %% [markdown]
# **Predict:** how many nats does the second level gain?

# %%
seed_everything(0)
ladder, seconds = trained(HierarchicalVAE((20, 10), (400, 100)), hierarchical_loss, lr=3e-3)
flat, _ = trained(MLPVAE(30, (480,)), vae_loss, lr=3e-3)
x = test[: budget(quick=100, cpu=1000, gpu=2000)].pixels(device())
k, generator = budget(quick=20, cpu=100, gpu=200), generator_for("importance", device=device())
nats = {"two levels": hierarchical_nll(ladder, x, k, generator).mean(), "flat": importance_nll(flat, x, k, generator).mean()}
scores = evaluate(ladder, hierarchical_loss, test)
with torch.no_grad():
    upper = ladder.prior(torch.randn(len(noise), 10, generator=generator_for("two levels")).to(device()))
    drawn = ladder.decode(upper.sample(generator_for("lower level", device=device()))).sigmoid()
member("hierarchical", ladder, seconds, nats=f"{scores['loss']:.1f} (bound)", rebuilt=f"{scores['reconstruction']:.1f}",
       recognised=f"{recognised(drawn):.0%}")  # fmt: skip
print(f"importance-weighted nats, k = {k}:", {name: round(value.item(), 2) for name, value in nats.items()})

# %% [markdown]
# What does each level decide? Hold the upper one, draw the lower one anew, and ask the judge how often two such draws are the same digit.

# %%
print(f"nats that an image puts into the upper level {scores['upper']:.1f}, into the lower one {scores['lower']:.1f}")
with torch.no_grad():
    twice = [judge_images(judge, ladder.decode(upper.sample(generator_for("again", i, device=device()))).sigmoid())[0].argmax(1) for i in range(2)]
    print(f"same upper level: {(twice[0] == twice[1]).float().mean():.0%} are the same digit; another one: {(twice[0] == twice[1].roll(1)).float().mean():.0%}")
    z2 = torch.randn(3, 10, generator=generator_for("upper")).to(device())
    prior = ladder.prior(z2)
    rows = {
        f"z2 number {i}: six draws of z1": ladder.decode(
            prior.mean[i] + prior.std[i] * torch.randn(6, 20, generator=generator_for("lower", i)).to(device())
        ).sigmoid().cpu()
        for i in range(3)
    }  # fmt: skip
plots.show(plots.image_rows(rows, size=0.9), "Three rows of six digits: in each row the upper level is the same, and only the lower one is drawn anew.")

# %% [markdown]
# In a row the upper level stays, and the lower one is drawn anew. What is alike in a row is what the upper level decides.
#
# ## 4 · A code of symbols: VQ-VAE
#
# What if the latent were not numbers but *words* out of a dictionary? The encoder gives 7×7 vectors; each is replaced by the nearest of 64 entries. There is no KL, and no blur from noise (van den Oord et al. 2017).
#
# ```diff
# - z = posterior.sample(generator)
# + z = self.codebook.look_up(self.codebook.nearest(self.encoder(x)))
# - loss = reconstruction + kl
# + loss = reconstruction + commitment * distance of encoder and entry
# ```
#
# Three things are needed: «nearest» has no gradient, so it is passed **straight through**; entries follow the **mean** of what chose them; and an entry that nobody chooses **begins anew**.
#
# ### Exercise 3 · Straight through (3 minutes)
#
# The decoder is to be given `quantised`, and the gradient is to reach `z` unchanged.

# %% tags=["exercise"]
def straight_through(z, quantised):
    """Two tensors of equal shape → the values of `quantised`, with the gradient of `z`."""
    raise NotImplementedError

check.straight_through(straight_through)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `z + (something).detach()`.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def straight_through(z, quantised):
#     return z + (quantised - z).detach()
# ```
#
# </details>
#
# The gradient of (3·output)²/2 passes a rounding as if it were not there:

# %% tags=["nbval-check-output"]
def passed_through(z, quantised):
    """Exercise 3."""
    return z + (quantised - z).detach()


z = torch.tensor([0.2, 1.4, 2.9], requires_grad=True)
for name, output in {"rounded": z.round(), "passed straight through": passed_through(z, z.round())}.items():
    (gradient,) = torch.autograd.grad((0.5 * (3 * output) ** 2).sum(), z)
    print(f"{name:24} {output.tolist()}, gradient {gradient.tolist()}")

# %% [markdown]
# Entries follow the mean of what chose them, slowly, a hundredth of the way at a time. Here the places to describe lie on a ring, and 64 entries begin near its middle. **Predict:** how many of them will ever be chosen?

# %%
def follow(restart, steps=400, generator=None):
    """64 entries after `steps` batches of places, and how many of them the last batch chose."""
    vectors = torch.randn(64, 2, generator=generator)
    sums, counts = vectors.clone(), torch.ones(64)
    for _ in range(steps):
        angles = 2 * torch.pi * torch.rand(500, generator=generator)
        places = 5 * torch.stack([angles.cos(), angles.sin()], 1)
        chosen = torch.cdist(places, vectors).argmin(1)
        counts = 0.99 * counts + 0.01 * chosen.bincount(minlength=64)
        sums = 0.99 * sums + 0.01 * torch.zeros(64, 2).index_add(0, chosen, places)
        dead = counts < 0.01 * 500 / 64  # chosen a hundred times less often than the mean
        if restart and dead.any():
            sums[dead], counts[dead] = places[: dead.sum()], 1.0
        vectors = sums / counts[:, None]
    return vectors, len(chosen.unique())


fig, axes = plt.subplots(1, 2, figsize=(6.4, 3.2))
for ax, restart in zip(axes, (False, True), strict=True):
    vectors, used = follow(restart, generator=generator_for("ring"))
    ax.add_patch(plt.Circle((0, 0), 5, fill=False, color="0.7"))
    ax.scatter(*vectors.T, s=12)
    ax.set(title=f"{'with' if restart else 'no'} new beginnings: {used} of 64 used", aspect="equal", xlim=(-6, 6), ylim=(-6, 6))
plots.show(fig, "64 entries and the ring that they describe: left most stay in the middle, right all lie on the ring.")

# %% [markdown]
# ### Exercise 4 · How many words does it use? (5 minutes)
#
# Count how often each of `size` entries occurs in `codes`, and take the exponential of the entropy of those shares: the **perplexity**, the number of entries that would be as varied if all were used equally often.

# %% tags=["exercise"]
def perplexity(codes, size):
    """Numbers of entries (B, h, w), and how many entries there are → one number from 1 to size."""
    raise NotImplementedError

check.perplexity(perplexity)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `torch.bincount(codes.flatten(), minlength=size)`; and `torch.xlogy(p, p)` is p · log p, and 0 for p = 0.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def perplexity(codes, size):
#     p = torch.bincount(codes.flatten(), minlength=size) / codes.numel()
#     return torch.exp(-torch.xlogy(p, p).sum())
# ```
#
# </details>

# %% tags=["nbval-check-output"]
def varied(codes, size):
    """Exercise 4."""
    share = torch.bincount(codes.flatten(), minlength=size) / codes.numel()
    return torch.exp(-torch.xlogy(share, share).sum())


texts = {"all eight equally": torch.arange(8).repeat(10), "two of eight": torch.arange(2).repeat(40), "mostly one": torch.cat([torch.zeros(73), torch.arange(1, 8)]).long()}
for name, codes in texts.items():
    print(f"{name:18} {len(codes.unique())} entries used, as many as {varied(codes, 8):.2f} used equally often")

# %%
seed_everything(0)
symbols, seconds = trained(VQVAE(), vq_loss, epochs=budget(quick=10, cpu=4, gpu=10), lr=3e-3)
with torch.no_grad():
    used = symbols.encode(x)
    rows = {"digits": x[:12].cpu(), "through 7×7 symbols of 64": symbols.decode(used[:12]).sigmoid().cpu()}
    rows["symbols drawn at random"] = symbols.decode(torch.randint(64, (12, 7, 7), generator=generator_for("symbols")).to(device())).sigmoid().cpu()
print(f"{len(used.unique())} of 64 entries are used, as many as {varied(used, 64):.0f} used equally often")
plots.show(plots.image_rows(rows, size=0.8), "Twelve digits; the same through a VQ-VAE; and what its decoder makes of random symbols: no digits.")

# %% [markdown]
# Rebuilt well, and symbols at random are nothing: there is no prior yet. A second network learns to *write*: it predicts each symbol from those before it, as a language model does with words.

# %%
with torch.no_grad():
    written = torch.cat([symbols.encode(train[i : i + 2000].pixels(device())) for i in range(0, len(train), 2000)]).flatten(1)
numbered = ImageSet(torch.zeros(len(written), 1, 1, 1, dtype=torch.uint8), torch.arange(len(written)), train.source)
seed_everything(0)
prior = CodePrior()
history = fit(prior, partial(code_loss, codes=written), numbered, epochs=budget(quick=3, cpu=3, gpu=10), batch_size=SIZE // 2, lr=3e-3)
drawn = prior.eval().sample(len(noise), 49, generator_for("prior", device=device())).view(-1, 7, 7)
with torch.no_grad():
    drawn = symbols.decode(drawn).sigmoid()
print(f"{history['loss'][-1]:.0f} nats for 49 symbols; guessing would take {49 * torch.tensor(64.0).log():.0f}; {recognised(drawn):.0%} recognised")
member("VQ-VAE and prior", symbols, seconds, nats="none", rebuilt=f"{evaluate(symbols, vq_loss, test)['reconstruction']:.1f}",
       recognised=f"{recognised(drawn):.0%}")  # fmt: skip
plots.show(plots.image_rows({"drawn through the prior": drawn[:12].cpu()}, size=0.8), "Twelve digits drawn by the prior, symbol by symbol.")

# %% [markdown]
# ## 5 · Sequences: the recurrent VAE
#
# Not everything is a picture. Read a digit as a sequence, 28 rows of 28 numbers, one after another: a GRU reads and gives z, another one writes, row by row, given z and the row before (Fabius & van Amersfoort 2015).
#
# ```diff
# - self.encoder, self.decoder = mlp(784, *hidden, 2 * latent), mlp(latent, *reversed(hidden), 784)
# + self.reader, self.to_moments = nn.GRU(28, hidden), nn.Linear(hidden, 2 * latent)
# + self.writer, self.to_row = nn.GRU(28 + latent, hidden), nn.Linear(hidden, 28)
# ```
#
# There is a trap: who always sees the row before can do without z. So in training half of those rows are hidden (Bowman et al. 2016).

# %%
seed_everything(0)
recurrent, seconds = trained(RecurrentVAE(), vae_loss, epochs=budget(quick=6, cpu=4, gpu=8), lr=3e-3)
with torch.no_grad():
    some = test[:8].pixels(device())
    half = some[:, :, :14]
    z = recurrent.encode(half).mode()
    ends = recurrent.encode(test[[0, 1]].pixels(device())).mode()
    share = torch.linspace(0, 1, 8, device=device())[:, None]
    rows = {
        "digits": some.cpu(),
        "begun with the upper half, and written on": recurrent.decode(z, start=half).sigmoid().cpu(),
        "from one sequence to another": recurrent.decode((1 - share) * ends[0] + share * ends[1]).sigmoid().cpu(),
    }
plots.show(plots.image_rows(rows, size=0.9), "Eight digits; the same completed from their upper halves, row by row; and a walk between two sequences.")

# %%
with torch.no_grad():
    drawn = recurrent.decode(noise).sigmoid()
scores = evaluate(recurrent, vae_loss, test)
member("recurrent", recurrent, seconds, nats=f"{scores['loss']:.1f} (bound; it is told the row before)",
       rebuilt=f"{scores['reconstruction']:.1f}", recognised=f"{recognised(drawn):.0%}")  # fmt: skip
plots.show(plots.image_rows({f"written from noise, row by row; {recognised(drawn):.0%} recognised": drawn[:12].cpu()}, size=0.8),
           "Twelve digits written by the recurrent VAE.")  # fmt: skip

# %% [markdown]
# ## 6 · One number, one meaning? β-VAE
#
# Only the loss changes:
#
# ```diff
# - loss = reconstruction + kl
# + loss = reconstruction + beta * kl
# ```
#
# With β > 1 every nat in the latent is dear, and the hope is that the VAE then gives each *cause* of the pictures a number of its own (Higgins et al. 2017). To check a hope about causes they have to be known. Of handwritten digits nobody knows them; of **drawn dogs** we do: coat, ears, ground, pose, and the side it looks to.
#
# How much does number j tell about factor v? Their **mutual information** says it in nats. If one number tells all about a factor, and the next best nothing, the *gap* between the two, divided by the factor's entropy, is 1; if two tell equally much, it is 0. The mean over the factors is the mutual information gap (Chen et al. 2018).
#
# ### Exercise 5 · Mutual information (7 minutes)
#
# `joint` (a, b) is a table of probabilities that add up to 1. How many nats does knowing the row tell about the column? Σ p(i, j) · log( p(i, j) / (p(i) · p(j)) ); a cell with probability 0 adds nothing.

# %% tags=["exercise"]
def information(joint):
    """(a, b) → the mutual information of row and column in nats, one number."""
    raise NotImplementedError

check.information(information)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)` is what the table would be if the two were independent. `torch.xlogy(0, anything)` is 0.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def information(joint):
#     independent = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
#     return torch.xlogy(joint, joint / independent.clamp_min(1e-12)).sum()
# ```
#
# </details>
#
# The helper that measures gaps sorts each latent number into twenty bins first. It should say 1 where every factor has a number of its own, and 0 where two numbers say the same or every number is a mixture:

# %% tags=["nbval-check-output"]
coats, grounds = torch.arange(240) % 6, torch.arange(240) // 6 % 4
made = {
    "a number for each": torch.stack([coats, grounds], 1).float(),
    "each told twice": torch.stack([coats, coats, grounds, grounds], 1).float(),
    "a sum and a difference": torch.stack([coats + grounds, coats - grounds], 1).float(),
}
for name, codes in made.items():
    gaps = mutual_information_gap(codes, {"coat": coats, "ground": grounds})
    print(f"{name:24}", ", ".join(f"{factor} {gap:.2f}" for factor, gap in gaps.items()))

# %% [markdown]
# **Predict:** at β = 1, does any single number tell the coat?

# %%
FACTORS = ("coat", "ears", "ground", "pose", "mirrored")
dogs, held_out = load_drawn_dogs(budget(quick=96, cpu=4800, gpu=9600), 32), load_drawn_dogs(budget(quick=96, cpu=960, gpu=960), 32, "test")
known = {name: held_out.factors[name] for name in FACTORS}


def beta_loss(model, batch, generator, beta):
    return negative_elbo(model(batch.images, generator), batch.images, beta=beta)


betas, drawers, told = {}, {}, {}
for beta in (1.0, 8.0):
    seed_everything(0)
    drawers[beta] = DrawingVAE()
    fit(drawers[beta], partial(beta_loss, beta=beta), dogs, epochs=budget(quick=2, cpu=12, gpu=30), batch_size=64, lr=1e-3)
    codes = encode_all(drawers[beta].eval(), held_out)
    told[beta] = torch.stack([mutual_information(codes, values) for values in known.values()])  # (factors, latent)
    gaps = mutual_information_gap(codes, known)
    print(f"β = {beta:g}: mean gap {sum(gaps.values()) / len(gaps):.3f};", ", ".join(f"{name} {gap:.2f}" for name, gap in gaps.items()))
fig, axes = plt.subplots(1, 2, figsize=(9, 2.8))
for ax, (beta, table) in zip(axes, told.items(), strict=True):
    ax.imshow(table, cmap="viridis", vmin=0, vmax=1.8)
    ax.set(title=f"β = {beta:g}: nats told", xlabel="latent number", xticks=range(10), yticks=range(len(FACTORS)), yticklabels=FACTORS)
plots.show(fig, "Two tables: how many nats each of ten latent numbers tells about each of five factors, at two values of β.")

# %%
for beta, drawer in drawers.items():
    strongest = told[beta].amax(0).topk(4).indices
    with torch.no_grad():
        z = drawer.encode(held_out[:1].pixels(device())).mode().expand(7, -1)
        rows = {}
        for j in strongest.tolist():
            moved = z.clone()
            moved[:, j] = torch.linspace(-2.5, 2.5, 7)
            rows[f"β = {beta:g}, number {j}"] = drawer.decode(moved).sigmoid().cpu()
    plots.show(plots.image_rows(rows, size=0.8), f"A dog with four of its latent numbers moved, one in each row, at β = {beta:g}.")

# %% [markdown]
# Two trainings of one seed prove nothing. `make bench` trained six values of β with three seeds each:

# %%
measured = load_result("disentangling")["values"]
names = ["mean gap", *FACTORS, "reconstruction", "kl"]
lines = [
    f"| {beta} | " + " | ".join(f"{row[n]['mean']:.{1 if n in ('reconstruction', 'kl') else 3}f}" for n in names) + " |"
    for beta, row in measured["rows"].items()
]
Markdown("| β | " + " | ".join(names) + " |\n" + "|---" * (len(names) + 1) + "|\n" + "\n".join(lines))

# %% [markdown]
# At the best β the mean gap is more than twice that of β = 1: the ground, and less so the coat, have found a number of their own. Ears never do, at no β, and the side that the dog looks to, which some number told at β = 1, is told by none. For a β that is large every nat must pay in pixels, and ears and side are few pixels: they are not separated but **left out**. With the largest β the coat goes the same way. The price stands in the last two columns, and in the one before the best, seeds differ more than anything else (the file has each). So the hope comes true for what is large in the picture.
#
# On digits nobody knows the causes, but what β costs can be seen there too:

# %%
seed_everything(0)
strict, seconds = trained(MLPVAE(20, (400,)), partial(beta_loss, beta=4.0))
scores = evaluate(strict, vae_loss, test)  # at β = 1, as all others
with torch.no_grad():
    drawn = strict.decode(noise).sigmoid()
member("β-VAE, β = 4", strict, seconds, nats=f"{scores['loss']:.1f} (bound)", rebuilt=f"{scores['reconstruction']:.1f}", recognised=f"{recognised(drawn):.0%}")
plots.show(plots.image_rows({f"drawn at β = 4; {recognised(drawn):.0%} recognised": drawn[:12].cpu()}, size=0.8), "Twelve digits drawn by a VAE with β = 4.")

# %% [markdown]
# ## Which one, when?
#
# All on the same digits, with the same optimizer and batches. «Rebuilt» is the cross-entropy of held-out digits in nats; «nats» the bound on −log p, where there is one.

# %%
columns = ("parameters", "seconds", "nats", "rebuilt", "recognised")
lines = [f"| {name} | " + " | ".join(row[c] for c in columns) + " |" for name, row in family.items()]
Markdown("| | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 1) + "|\n" + "\n".join(lines))

# %%
measured = load_result("family")["values"]
lines = [
    f"| {variant} | {figure} | {row['mean']:.3f} ± {row['sd']:.3f} |"
    for variant, rows in measured.items() if isinstance(rows, dict)
    for figure, row in rows.items() if not figure.endswith("parameters")
]  # fmt: skip
Markdown("| three seeds | | mean ± sd |\n|---|---|---|\n" + "\n".join(lines))

# %% [markdown]
# Begin with the question, and not with the model:
#
# - **Do you have labels, and want to ask for a class?** Conditional VAE (section 1).
# - **Is the prior your trouble: codes are fine, draws are not?** Adversarial autoencoder (section 2), or fit a density to the codes afterwards, as notebook 1 did.
# - **Is it the likelihood that counts?** Hierarchical VAE (section 3), if the table says that it gains enough for its second level.
# - **Does a strong second model follow that writes the latent?** VQ-VAE, if it writes symbols (section 4); a VAE with a small KL, if it is diffusion ([notebook 7](07_tiny_stable_diffusion.ipynb)).
# - **Are your data sequences?** Recurrent VAE (section 5).
# - **Do you want to read the latent?** β-VAE (section 6); look at the gap in the table, and at its price.
# - **None of these?** The VAE of notebook 2.
#
# ## Questions people ask
#
# **Which variant when: β, conditional, adversarial, hierarchical, vector-quantised, recurrent?** The two tables above have what each gains and costs, measured alike.
#
# **Is a VAE only for images?** Section 5 reads and writes sequences of rows, and any sequence of vectors would do as well.
#
# **VAE, GAN or diffusion: what is each good at?** The adversarial autoencoder has a GAN's discriminator, but in the latent, where the game is easy. In pixels it sharpens and is hard to keep stable: [notebook 5](05_conv_attention_vae_dogs.ipynb) measures it. Diffusion draws best and slowest: [notebook 7](07_tiny_stable_diffusion.ipynb) counts its seconds.
#
# **Where are VAEs used in practice?** Images: Stable Diffusion's first half (Rombach et al. 2022). Audio: a codec with a vector-quantised latent (SoundStream, Zeghidour et al. 2021). Molecules: a search in a smooth latent (Gómez-Bombarelli et al. 2018). Medicine: single-cell gene expression (scVI, Lopez et al. 2018). Recommendation: Liang et al. 2018.
#
# ## Recap
#
# - Every variant changes a line or two: what encoder and decoder are told, what pulls on the latent, what the latent is made of.
# - One measure for all shows what each change buys.
# - A hope such as «one number, one meaning» can be checked only where the causes are known.
#
# **To read next:** Sohn, Lee & Yan 2015; Makhzani et al. 2015; Sønderby et al. 2016; van den Oord, Vinyals & Kavukcuoglu 2017; Fabius & van Amersfoort 2015; Higgins et al. 2017; Chen et al. 2018.
#
# **Next:** [notebook 5](05_conv_attention_vae_dogs.ipynb): convolutions, attention, and photographs of dogs.
