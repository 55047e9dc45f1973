# %% [markdown]
# # 3 · Using the latent space
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/03_using_the_latent_space.ipynb)
#
# | | |
# |---|---|
# | **You will build** | six uses of a VAE, each against an honest rival: finding strangers, filling gaps, learning from few labels, more training images, walks and directions, compression |
# | **Minutes** | quick ½ · cpu 8 · gpu not timed yet |
# | **Hardware** | two CPU cores are enough |
# | **Download** | MNIST, 11 MB |
# | **You need to know** | [notebook 2](02_mlp_vae_mnist.ipynb): the VAE, its loss, its latent |
# | **You will see** | the pictures under the third code cell, and for every use a number and a verdict, also «not worth it» |

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
import io

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import adjusted_rand_score, roc_auc_score
from torch.distributions import Normal, kl_divergence

from helpers import checks_latent_uses as check
from helpers import plots
from helpers.budget import budget, device, generator_for, seed_everything
from helpers.checkpoints import load_shipped
from helpers.data import load_mnist
from helpers.latent_uses import complete_by_iteration, complete_by_neighbour, complete_by_search, few_labels, probe
from helpers.losses import bernoulli_nll, negative_elbo
from helpers.metrics import DigitJudge, encode_all, judge_images
from helpers.mlp import MLPVAE
from helpers.results import load_result
from helpers.training import fit

# %% [markdown]
# ## Before anything else: half a digit
#
# The VAE of notebook 2, with 20 latent numbers, sees the upper half of digits that it was not trained on, and fills in the lower one. **Predict:** which digits will it get wrong?

# %% tags=["teaser"]
train, test = load_mnist("train"), load_mnist("test")
print(train.source)


def vae_loss(model, batch, generator):
    return negative_elbo(model(batch.images, generator), batch.images)


def train_vae(images, seed=0):
    """The VAE of notebook 2."""
    seed_everything(seed)
    model = MLPVAE(20, (400,))
    length = {"epochs": budget(quick=20, cpu=6, gpu=10), "batch_size": budget(quick=64, cpu=256, gpu=256)}
    fit(model, vae_loss, images, lr=budget(quick=5e-3, cpu=1.5e-2, gpu=1.5e-2), seed=seed, **length)
    return model.eval()


vae = train_vae(train)
x = test[:12].pixels(device())
known = torch.ones_like(x, dtype=torch.bool)
known[:, :, 14:] = False  # the lower half is hidden
mean_image = train.pixels(device()).mean(0, keepdim=True).expand_as(x)
filled = complete_by_search(vae, x, known, mean_image)
plots.show(plots.image_rows({"digits": x.cpu(), "what is shown": (x * known).cpu(), "filled in": filled.cpu()}, size=0.8),
           "Twelve digits; their upper halves; and the digits with lower halves that the VAE filled in.")

# %% [markdown]
# ## 1 · Finding strangers
#
# A VAE of nine digits should be bad at the tenth. So train one without eights, and call strange what it rebuilds badly. Three scores are in use: the squared **reconstruction error**; the **negative ELBO**, which adds what the code costs; and the **latent distance**, how far the code lies from the middle of the prior.
#
# Two rivals, from scikit-learn and older than VAEs: the reconstruction error of **PCA** with as many numbers, and an **isolation forest**.
#
# A score is good if strangers get larger ones. How often does a stranger drawn at random get a larger score than an acquaintance drawn at random? That share is the **AUROC**: 0.5 is guessing.
#
# ### Exercise 1 · AUROC from its definition (5 minutes)

# %% tags=["exercise"]
def auroc(strangers, acquaintances):
    """Scores (N,) and (M,) → the share of pairs in which the stranger's is larger; equal ones count half."""
    raise NotImplementedError

check.auroc(auroc)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `strangers[:, None] - acquaintances[None, :]` has all N·M differences.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def auroc(strangers, acquaintances):
#     apart = strangers[:, None] - acquaintances[None, :]
#     return ((apart > 0).float() + 0.5 * (apart == 0)).mean().item()
# ```
#
# </details>
#
# The whole loop over pairs, beside the library's way, which sorts instead:

# %% tags=["nbval-check-output"]
def share_of_pairs(strangers, acquaintances):
    """Exercise 1."""
    apart = strangers[:, None] - acquaintances[None, :]
    return ((apart > 0).float() + 0.5 * (apart == 0)).mean().item()


odd, usual = torch.tensor([9.0, 7.0, 4.0]), torch.tensor([8.0, 4.0, 3.0, 1.0])
by_library = roc_auc_score([1] * len(odd) + [0] * len(usual), torch.cat([odd, usual]))
print(f"pair by pair {share_of_pairs(odd, usual):.4f}, the library's {by_library:.4f}")

# %% [markdown]
# **Predict:** which digit is the hardest to find, if it was left out? Think of its shape.

# %%
LEFT_OUT = 8
nine = train[train.labels != LEFT_OUT]
without = train_vae(nine)
strange = (test.labels == LEFT_OUT).numpy()


@torch.no_grad()
def strangeness(model, x, seed=0):
    posterior = model.encode(x)
    mean = posterior.mode()
    z = posterior.sample(generator_for("strangeness", seed, device=x.device))
    return {
        "reconstruction error": (model.decode(mean).sigmoid() - x).square().flatten(1).sum(1),
        "negative ELBO": bernoulli_nll(model.decode(z), x) + posterior.kl(),
        "latent distance": mean.square().sum(1),
    }


scores = strangeness(without, test.pixels(device()))
pca = PCA(20, random_state=0).fit(nine.pixels().flatten(1).numpy())
flat = test.pixels().flatten(1)
rebuilt = torch.from_numpy(pca.inverse_transform(pca.transform(flat.numpy()))).float()
scores["PCA reconstruction error"] = (flat - rebuilt).square().sum(1)
for name, score in scores.items():
    print(f"{name:26} AUROC {roc_auc_score(strange, score.cpu().numpy()):.3f}")

# %% [markdown]
# One digit and one seed say little. `make bench` left out each digit in turn, three times:

# %%
measured = load_result("anomaly")["values"]
names = list(measured["mean"])
lines = [f"| **mean** | " + " | ".join(f"**{measured['mean'][n]['mean']:.3f} ± {measured['mean'][n]['sd']:.3f}**" for n in names) + " |"]
lines += [f"| {d} | " + " | ".join(f"{measured['digits'][n][str(d)]['mean']:.3f}" for n in names) + " |" for d in range(10)]
Markdown("| left out | " + " | ".join(names) + " |\n" + "|---" * (len(names) + 1) + "|\n" + "\n".join(lines))

# %% [markdown]
# Of the VAE's three scores the plain reconstruction error is the best, and it is well ahead of PCA and of the forest. The negative ELBO, which is recommended more often, is behind it for every digit.
#
# Look at the row of **ones**: less than a half, with PCA as well. Ones that were never seen are rebuilt *better* than digits that were. A score that ranks strangers as the most ordinary of all is worse than none. What is so special about a one? It is **simple**: little ink, and strokes of which other digits have some like it. Is simplicity enough? **Predict** the rank of an empty picture, of a single stroke and of noise among the test digits, from 0 (the most ordinary) to 1.

# %%
blank, stroke = torch.zeros(1, 1, 28, 28), torch.zeros(1, 1, 28, 28)
stroke[..., 6:22, 13:15] = 1.0
noise = torch.rand(1, 1, 28, 28, generator=generator_for("a stranger"))
ordinary = strangeness(vae, test.pixels(device()))
odd = strangeness(vae, torch.cat([blank, stroke, noise]).to(device()))
for name in ordinary:
    ranks = [(ordinary[name] < value).float().mean().item() for value in odd[name]]
    print(f"{name:22} nothing {ranks[0]:.3f}   a stroke {ranks[1]:.3f}   noise {ranks[2]:.3f}")

# %% [markdown]
# ## 2 · Filling gaps
#
# The VAE was never told that pixels can be missing. Two ways to use it all the same. **Iterate**: guess the gap, encode, decode, keep the known pixels, again. **Search**: ask for the most probable code given the known pixels alone, by gradient descent on z, and decode it.
#
# ### Exercise 2 · Iterate (5 minutes)

# %% tags=["exercise"]
def fill(model, x, known, start, rounds):
    """x, known (bool), start: (B, 1, 28, 28) → x where known, else what encoding and decoding `rounds` times puts there."""
    raise NotImplementedError

check.fill(fill)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `torch.where(known, x, start)` to begin with; `model.decode` gives logits.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def fill(model, x, known, start, rounds):
#     filled = torch.where(known, x, start)
#     with torch.no_grad():
#         for _ in range(rounds):
#             filled = torch.where(known, x, model.decode(model.encode(filled).mode()).sigmoid())
#     return filled
# ```
#
# </details>
#
# Rivals: the **mean image**, and the **nearest neighbour**, the training image that fits the known pixels best. **Predict:** who wins where half the pixels are missing at random, and who where the lower half is?

# %% tags=["nbval-check-output"]
def masks(count):
    """{name: bool (count, 1, 28, 28)}: what is known."""
    lower = torch.ones(count, 1, 28, 28, dtype=torch.bool)
    lower[:, :, 14:] = False
    square = torch.ones_like(lower)
    square[:, :, 9:19, 9:19] = False
    scattered = torch.rand(count, 1, 28, 28, generator=generator_for("scattered")) < 0.5
    return {"the lower half": lower, "a square": square, "half of the pixels": scattered}


for hidden, known in masks(1000).items():
    print(f"without {hidden:18} {1 - known.float().mean():.0%} of the picture is hidden")

# %%
count = budget(quick=20, cpu=200, gpu=500)
x, mean_image = test[:count].pixels(device()), train.pixels(device()).mean(0, keepdim=True).expand(count, -1, -1, -1)
ways = {
    "mean image": lambda known: torch.where(known, x, mean_image),
    "nearest neighbour": lambda known: complete_by_neighbour(train[:20_000].pixels(device()), x, known),
    "iterated": lambda known: complete_by_iteration(vae, x, known, mean_image),
    "searched": lambda known: complete_by_search(vae, x, known, mean_image),
}
lines, rows = [], {"digits": x[:10].cpu()}
for hidden, known in masks(count).items():
    known, errors = known.to(device()), []
    rows[f"without {hidden}"] = (x * known)[:10].cpu()
    for name, way in ways.items():
        done = way(known)
        errors.append((done - x)[~known].square().mean().item())
        if hidden == "the lower half" and name != "mean image":
            rows[f"{hidden}: {name}"] = done[:10].cpu()
    lines.append(f"| {hidden} | " + " | ".join(f"{e:.4f}" for e in errors) + " |")
plots.show(plots.image_rows(rows, size=0.7), "Ten digits, three ways of hiding parts of them, and how the lower halves were filled in.")
Markdown("| hidden: squared error of its pixels | " + " | ".join(ways) + " |\n|---|---|---|---|---|\n" + "\n".join(lines))

# %% [markdown]
# ## 3 · Learning from few labels
#
# The codes were made without labels. Do they know the digits all the same? A **linear probe** is a linear classifier on top of codes that stay as they are; with few labels it can use only what lies ready. Rivals: the same on 20 principal components, and on the pixels.
#
# The labelled images are drawn at random, equally many of each digit:

# %% tags=["nbval-check-output"]
for labels in (10, 100, 1000):
    print(labels, "labels: of each digit", train.labels[few_labels(train.labels, labels)].bincount().tolist())

# %% [markdown]
# **Predict** the share right with 10, 100 and 1,000 labels.

# %%
codes, test_codes = encode_all(vae, train), encode_all(vae, test)
flat, test_flat = train.pixels().flatten(1), test.pixels().flatten(1)


def components(count):
    """(train, test) on their first `count` principal components."""
    pca = PCA(count, random_state=0).fit(flat.numpy())
    return tuple(torch.from_numpy(pca.transform(part.numpy())).float() for part in (flat, test_flat))


def table_of_probes(views):
    lines = []
    for name, (known, new) in views.items():
        chosen = [few_labels(train.labels, labels) for labels in (10, 100, 1000)]
        found = [probe(known[index], train.labels[index], new, test.labels) for index in chosen]
        lines.append(f"| {name} | " + " | ".join(f"{share:.1%}" for share in found) + " |")
    return Markdown("| one seed | 10 labels | 100 labels | 1,000 labels |\n|---|---|---|---|\n" + "\n".join(lines))


table_of_probes({"codes of the VAE": (codes, test_codes), "20 principal components": components(20), "pixels": (flat, test_flat)})

# %% [markdown]
# That is no great gain. This VAE has one hidden layer and twenty numbers, and it was made to rebuild. What would help a line more: a second hidden layer, so that the encoder can bend more; or *fewer* numbers, so that it has to choose? **Predict**, and train one with both.

# %%
seed_everything(0)
small = MLPVAE(5, (512, 256))
fit(small, vae_loss, train, epochs=10, batch_size=budget(quick=64, cpu=256, gpu=256), lr=3e-3)
views = {"codes of 5 numbers": (encode_all(small.eval(), train), encode_all(small, test)), "5 principal components": components(5)}
table_of_probes(views)

# %% [markdown]
# One seed and one draw of labels are not much. `make bench` measured each with three seeds and five draws:

# %%
measured = load_result("few_labels")["values"]
share = {name: f"{100 * row['mean']:.1f} ± {100 * row['sd']:.1f} %" for name, row in measured["probe"].items()}
kinds = list(dict.fromkeys(name.rsplit(", ", 1)[0] for name in share))
lines = [f"| {view} | " + " | ".join(share[f"{view}, {n} labels"] for n in (10, 100, 1000)) + " |" for view in kinds]
Markdown("| three seeds | 10 labels | 100 labels | 1,000 labels |\n|---|---|---|---|\n" + "\n".join(lines))

# %% [markdown]
# The second hidden layer is what helps: with 10 and 100 labels its codes are ahead of PCA and of the pixels. How many numbers they have matters with ten labels only, where fewer are better. With 1,000 labels the pixels have caught up. And the VAE of notebook 2 is no better than PCA: nothing in its loss asks for codes that a line can read.
#
# And with no label at all? **k-means** looks for ten clumps. The adjusted Rand index says how well they are the ten digits: 1 is perfect, 0 is chance. Two kinds of maps show what it has to work with: the two directions of largest variance (PCA), and **t-SNE**, which keeps neighbours together and cares little for anything else.

# %%
some = torch.arange(min(len(test), budget(quick=400, cpu=2000, gpu=3000)))
fig, axes = plt.subplots(2, 2, figsize=(9, 8.4))
for row, (name, view) in zip(axes, {"codes": test_codes, "pixels": test_flat}.items(), strict=True):
    points = view[some].numpy()
    clumps = KMeans(10, n_init=4, random_state=0).fit_predict(points)
    score = adjusted_rand_score(test.labels[some].numpy(), clumps)
    maps = {"PCA": PCA(2, random_state=0).fit_transform(points), "t-SNE": TSNE(random_state=0).fit_transform(points)}
    for ax, (kind, flat_map) in zip(row, maps.items(), strict=True):
        plots.draw_latent_map(ax, torch.from_numpy(flat_map), test.labels[some], f"{name}, {kind}; k-means: Rand index {score:.2f}")
        ax.set(xlabel="", ylabel="", xticks=[], yticks=[])
plots.show(fig, "Four maps of test digits, coloured by digit: codes and pixels, by PCA and by t-SNE.")

# %% [markdown]
# ## 4 · More training images?
#
# Twenty labelled images of each digit are not many. Decode further ones from draws of their posteriors, each with its image's label. Does a classifier get better by them? Three seeds, a small convolutional network, the same number of steps (`make bench`). **Predict** the order.

# %%
rows = measured["augmentation"]
lines = [f"| {name} | {100 * row['mean']:.1f} ± {100 * row['sd']:.1f} % |" for name, row in rows.items()]
Markdown(f"| {10 * measured['labels a class']} labelled images | right on the test set |\n|---|---|\n" + "\n".join(lines))

# %% [markdown]
# Not worth it. Draws of a VAE that saw all images gain less than the spread of the seeds, and draws of one that saw nothing but these two hundred do **harm**. A draw of a posterior is a slightly blurred copy of an image that you have. To move the images by up to two pixels costs one line, and gains more than all draws; draws on top of it add nothing.
#
# ## 5 · Walks and directions
#
# Between two codes there is a straight line. Do the pictures on it stay digits? The judge of notebook 1 says how sure it is. The rival is to cross-fade the two *pictures*.

# %%
judge = load_shipped(DigitJudge, "digit_judge").to(device())
pairs = torch.randperm(len(test), generator=generator_for("pairs"))[: 2 * budget(quick=20, cpu=200, gpu=200)].view(2, -1)
share = torch.linspace(0, 1, 9, device=device())
ends = [test[index].pixels(device()) for index in pairs]
with torch.no_grad():
    z = [vae.encode(end).mode() for end in ends]
    rebuilt = [vae.decode(code).sigmoid() for code in z]
    walks = {"walk in the codes": [vae.decode((1 - s) * z[0] + s * z[1]).sigmoid() for s in share],
             "cross-fade of the pictures": [(1 - s) * rebuilt[0] + s * rebuilt[1] for s in share]}  # fmt: skip
fig, ax = plt.subplots(figsize=(5, 2.8))
for name, steps in walks.items():
    sure = [(judge_images(judge, images)[0].max(1).values > 0.9).float().mean().item() for images in steps]
    ax.plot(share.cpu(), sure, "o-", label=name)
ax.set(xlabel="share of the second digit", ylabel="recognised", ylim=(0, 1.05))
ax.legend()
plots.show(fig, "Share of pictures in which the judge is sure, on the way from one digit to another, by codes and by cross-fading.")
rows = {name: torch.stack([images[0] for images in steps]).cpu() for name, steps in walks.items()}
plots.show(plots.image_rows(rows, size=0.8), "One digit turns into another: by codes, and by cross-fading.")

# %% [markdown]
# A **direction** has a meaning if moving along it changes one thing. Slant can be measured in the pixels: how far the ink moves sideways from row to row. Fit it linearly from the codes; the coefficients are a direction.
#
# ### Exercise 3 · Slant (7 minutes)
#
# For one picture: the mean position of the ink is (row, column); slant = Σ ink·(row − mean row)·(column − mean column) / Σ ink·(row − mean row)².

# %% tags=["exercise"]
def slant(images):
    """(B, 1, 28, 28) in [0, 1] → (B,): columns per row; 0 for an upright stroke."""
    raise NotImplementedError

check.slant(slant)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")` gives rows and columns. Divide the ink by its sum first, then all means are sums.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def slant(images):
#     row, column = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
#     ink = images[:, 0] / images[:, 0].sum((1, 2), keepdim=True)
#     rows = row - (ink * row).sum((1, 2), keepdim=True)
#     columns = column - (ink * column).sum((1, 2), keepdim=True)
#     return (ink * rows * columns).sum((1, 2)) / (ink * rows**2).sum((1, 2))
# ```
#
# </details>

# %% tags=["nbval-check-output"]
def measured_slant(images):
    """Exercise 3."""
    row, column = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    ink = images[:, 0] / images[:, 0].sum((1, 2), keepdim=True)
    rows = row - (ink * row).sum((1, 2), keepdim=True)
    columns = column - (ink * column).sum((1, 2), keepdim=True)
    return (ink * rows * columns).sum((1, 2)) / (ink * rows**2).sum((1, 2))


strokes = torch.zeros(3, 1, 28, 28)
for row in range(4, 24):
    for stroke, lean in enumerate((0, 1, -1)):
        strokes[stroke, 0, row, 14 + lean * (row - 14) // 2] = 1.0
print("an upright stroke, one that leans to the left at the top, one to the right:", [f"{v:+.2f}" for v in measured_slant(strokes)])

# %% [markdown]
# The other one, **thickness**, is the amount of ink: the sum of the pixels.
#
# **Predict:** how much of each is a straight line in the codes?

# %%
def direction_of(values):
    """(the unit vector along which `values` (N,) grow in the codes, how much of their variance a line explains)."""
    slope = torch.linalg.lstsq(torch.cat([codes, torch.ones(len(codes), 1)], 1), values[:, None]).solution[:-1, 0]
    return slope / slope.norm(), 1 - (values - codes @ slope).var() / values.var()


amounts, rows = torch.linspace(-2.5, 2.5, 9), {}
for name, measure in {"slant": measured_slant, "ink": lambda images: images.sum((1, 2, 3))}.items():
    direction, explained = direction_of(measure(train.pixels()))
    with torch.no_grad():
        moved = [vae.decode((test_codes[i] + amounts[:, None] * direction).to(device())).sigmoid().cpu() for i in (1, 4)]
    rows |= {f"digit {i}, moved along «{name}»": images for i, images in enumerate(moved)}
    print(f"a line explains {explained:.0%} of the {name}; of the first row:", [f"{v:.3g}" for v in measure(moved[0]).tolist()])
plots.show(plots.image_rows(rows, size=0.8), "Two digits, each moved along two directions: they lean from one side to the other, and grow thicker.")

# %% [markdown]
# And **arithmetic**: the mean code of all nines less that of all fours should turn a four into a nine. The rival adds the difference of the mean *pictures*. The judge says what has become of the fours.

# %%
with torch.no_grad():
    fours, x = test_codes[test.labels == 4], test[test.labels == 4].pixels()
    step = codes[train.labels == 9].mean(0) - codes[train.labels == 4].mean(0)
    flat_step = train.pixels()[train.labels == 9].mean(0) - train.pixels()[train.labels == 4].mean(0)
    turned = {"the fours, through the VAE": vae.decode(fours.to(device())).sigmoid().cpu(),
              "plus nine minus four, in the codes": vae.decode((fours + step).to(device())).sigmoid().cpu(),
              "plus nine minus four, in the pixels": (x + flat_step).clamp(0, 1)}  # fmt: skip
for name, images in turned.items():
    said = judge_images(judge, images)[0].argmax(1)
    print(f"{name:36} read as a four {(said == 4).float().mean():.0%}, as a nine {(said == 9).float().mean():.0%}")
plots.show(plots.image_rows({name: images[:10] for name, images in turned.items()}, size=0.8),
           "Ten fours; the same plus nine minus four, in the codes and in the pixels.")

# %% [markdown]
# ## 6 · Compression
#
# A code of 20 numbers is shorter than 784 pixels. How many *bits* is it? A number that is known only up to the noise σ of its posterior is worth as many bits as the KL says, and no more: the KL in nats, divided by log 2. (A real coder, *bits back*, comes near to that: Townsend, Bird & Barber 2019.) The rival is JPEG at its smallest, with the 300 bytes of tables that every file repeats taken off.

# %%
def jpeg(images, quality):
    """(bytes per image without the header's tables, squared error per pixel) of grey images (N, 1, 28, 28)."""
    sizes, decoded = [], []
    for image in images:
        file = io.BytesIO()
        Image.fromarray((255 * image[0]).round().byte().numpy()).save(file, "JPEG", quality=quality)
        data = file.getvalue()
        sizes.append(len(data) - data.index(b"\xff\xda"))  # what follows the last header: the picture itself
        decoded.append(torch.frombuffer(bytearray(Image.open(file).tobytes()), dtype=torch.uint8).view(1, 28, 28) / 255)
    return sum(sizes) / len(sizes), (torch.stack(decoded) - images).square().mean().item()


some = test[: budget(quick=50, cpu=500, gpu=500)].pixels()
lines = [f"| JPEG, quality {q} | {8 * size:.0f} | {error:.4f} |" for q in (1, 5, 10, 20, 40) for size, error in [jpeg(some, q)]]
with torch.no_grad():
    posterior = vae.encode(some.to(device()))
    drawn = vae.decode(posterior.sample(generator_for("bits", device=device()))).sigmoid().cpu()
bits = (posterior.kl().mean() / torch.tensor(2.0).log()).item()
lines.append(f"| VAE, a draw | {bits:.0f} | {(drawn - some).square().mean():.4f} |")
Markdown("| | bits per image | squared error per pixel |\n|---|---|---|\n" + "\n".join(lines))

# %% [markdown]
# The VAE knows digits and nothing else, and the bytes of its weights are not in that count. JPEG knows nothing about digits, and takes any picture.
#
# ### Exercise 4 · The bits of a code (3 minutes)

# %% tags=["exercise"]
def bits(mean, logvar):
    """(N, d) each → the mean number of bits that a code is worth: its KL to N(0, I), in bits."""
    raise NotImplementedError

check.bits(bits)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Notebook 2 has the KL in nats; a bit is log 2 nats.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def bits(mean, logvar):
#     nats = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum(1)
#     return (nats.mean() / torch.tensor(2.0).log()).item()
# ```
#
# </details>
#
# With the library's distributions:

# %% tags=["nbval-check-output"]
def worth_in_bits(mean, logvar):
    """Exercise 4."""
    return (0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum(1).mean() / torch.tensor(2.0).log()).item()


mean, logvar = torch.full((1, 3), 1.5), torch.full((1, 3), -2.0)
nats = kl_divergence(Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0)).sum().item()
print(f"three numbers at 1.5, known to {(0.5 * logvar).exp()[0, 0].item():.2f}: {worth_in_bits(mean, logvar):.2f} bits; the library's KL: {nats:.2f} nats")

# %% [markdown]
# ### Exercise 5 · A hundred labels (10 minutes, or longer)
#
# You have 100 labelled images and thousands without a label. Return a function that tells test images apart, and be right in at least 85 of a hundred, which no line in section 3 is. What could the codes of the others be good for?

# %% tags=["exercise"]
def semi_supervised(vae, images, labels, others):
    """A trained VAE; 100 labelled images (100, 1, 28, 28) and their labels; others (M, 1, 28, 28) → a function: images (N, 1, 28, 28) → labels (N,)."""
    raise NotImplementedError

check.semi_supervised(semi_supervised)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Images whose codes are neighbours mostly show the same digit. So let every label pass to its neighbours, and on to theirs: `sklearn.semi_supervised.LabelSpreading`, in which −1 means «no label».
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def semi_supervised(vae, images, labels, others):
#     from sklearn.semi_supervised import LabelSpreading
#
#     def codes(x):
#         with torch.no_grad():
#             return vae.encode(x.to(device())).mode().cpu()
#
#     unknown = torch.full((len(others),), -1)
#     spreading = LabelSpreading(kernel="knn", n_neighbors=10, alpha=0.9, max_iter=100)
#     spreading.fit(codes(torch.cat([images, others])), torch.cat([labels, unknown]))
#     return lambda new: torch.from_numpy(spreading.predict(codes(new)))
# ```
#
# </details>
#
# ## All uses at a glance
#
# What has one number each, over three seeds, and beside it the rival. A difference counts if it is larger than twice the larger standard deviation.

# %%
uses, found = load_result("latent_uses")["values"], load_result("anomaly")["values"]["mean"]
gaps, probes, more = uses["gaps"], measured["probe"], list(measured["augmentation"].values())
rows = {"find strangers: AUROC": (found["reconstruction error"], found["PCA reconstruction error"], 1)}
for hidden in ("the lower half", "a square", "half of the pixels"):
    rows[f"fill in {hidden}: squared error"] = (gaps[f"{hidden}, searched"], gaps[f"{hidden}, nearest neighbour"], -1)
rows |= {
    "100 labels, 5 numbers: share right": (probes["two hidden layers, 5 numbers, 100 labels"], probes["pixels, 100 labels"], 1),
    "find ten classes without labels: Rand index": (uses["clumps"]["codes"], uses["clumps"]["pixels"], 1),
    "200 labels and draws of the VAE, or none: share right": (more[1], more[0], 1),
    "half-way between two digits: recognised": (uses["walks"]["codes"], uses["walks"]["cross-fade"], 1),
    "fours plus nine minus four: read as nines": (uses["arithmetic"]["codes"], uses["arithmetic"]["pixels"], 1),
}
lines = []
for use, (ours, rival, sign) in rows.items():
    ahead = sign * (ours["mean"] - rival["mean"]) / max(ours["sd"], rival["sd"], 1e-12)
    verdict = "the VAE" if ahead > 2 else "the rival" if ahead < -2 else "no difference"
    lines.append(f"| {use} | " + " | ".join(f"{row['mean']:.3f} ± {row['sd']:.3f}" for row in (ours, rival)) + f" | {verdict} |")
Markdown("| use | VAE | rival | ahead |\n|---|---|---|---|\n" + "\n".join(lines))

# %% [markdown]
# ## Questions people ask
#
# **How do I detect anomalies, fill in missing data, augment data with a VAE, and does it pay?** Sections 1, 2 and 4 do each, beside a rival that needs no VAE; look at their tables before you build one.
#
# **Is a VAE only for images?** Nothing above used that the 784 numbers are pixels, but for the pictures of them; [notebook 4](04_vae_variants.ipynb) has one for sequences.
#
# ## Recap
#
# - A use of a VAE is worth what it gains over a rival that needs no VAE; without the rival, no number says anything.
# - VERDICTS
#
# **To read next:** An & Cho 2015 (anomalies); Nalisnick et al. 2019 (why simple images score as normal); Kingma et al. 2014 (few labels); Townsend, Bird & Barber 2019 (bits back).
#
# **Next:** [notebook 4](04_vae_variants.ipynb): what else the VAE can become, by changing a line or two.
