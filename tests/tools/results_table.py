"""The README's results, each from the file in data/results that its benchmark wrote."""

import json
from collections.abc import Callable
from pathlib import Path

Values = Callable[[str], dict]  # the values of a result by its name, {} where it was not measured


def table(header: list[str], rows: list[list[str]]) -> str:
    """A markdown table."""
    lines = []
    for cells in (header, ["---"] * len(header), *rows):
        escaped = [str(cell).replace("|", "\\|") for cell in cells]
        lines.append("| " + " | ".join(escaped) + " |")
    return "\n".join(lines)


def spread(entry: dict, form: str = "{:.2f}") -> str:
    """mean ± sd of a benchmark's entry."""
    return " ± ".join(form.format(entry[key]) for key in ("mean", "sd") if key in entry)


def percent(entry: dict) -> str:
    """A share, mean ± sd, in percent."""
    return spread({key: 100 * entry[key] for key in ("mean", "sd")}, "{:.1f}") + " %"


class Rows(list):
    """Rows of the table of results."""

    def add(self, what: str, ours: str, beside: str, name: str) -> None:
        """name: of the file in data/results that the figures come from."""
        self.append([what, f"**{ours}**", beside, f"[{name}](data/results/{name}.json)"])


def mnist_rows(values: Values) -> Rows:
    """Notebooks 1 and 2: quality and time against published recipes, samples, and PCA."""
    rows = Rows()
    for name, rival, what in (
        ("mlp_vs_tutorial", "tutorial", "VAE 784-400-20"),
        ("mlp_2d_vs_blog", "blog", "VAE with 2 latent dimensions"),
    ):
        if found := values(name):
            nats = {key: spread(row) for key, row in found["test nats"].items()}
            rows.add(f"{what}: test nats", nats["ours"], f"{nats[rival]} ({rival}'s recipe)", name)
            took = {key: f"{row['median']:.1f} s" for key, row in found["seconds"].items()}
            ratio = found["seconds"]["ours"]["first/this"]
            beside = f"{took[rival]}: {ratio:.1f} times as long"
            rows.add(f"{what}: training time", took["ours"], beside, name)
    if found := values("autoencoder_vs_pca"):
        for size, row in found["mse per pixel"].items():
            what = f"autoencoder, {size} latent dimensions: held-out squared error per pixel"
            ours = spread(row["autoencoder"], "{:.4f}")
            rows.add(what, ours, f"{row['pca']:.4f} (PCA)", "autoencoder_vs_pca")
    return rows


def latent_rows(values: Values) -> Rows:
    """Notebook 4: uses of the latent space, each beside a rival."""
    rows = Rows()
    if found := values("anomaly"):
        score = {name: spread(row, "{:.3f}") for name, row in found["mean"].items()}
        rivals = ("PCA reconstruction error", "isolation forest")
        beside = ", ".join(f"{score.pop(name)} ({name})" for name in rivals)
        ours = ", ".join(f"{figure} ({name})" for name, figure in score.items())
        what = "anomaly detection, one digit left out of the training: AUROC, mean of ten digits"
        rows.add(what, ours, beside, "anomaly")
    if found := values("latent_uses"):
        hidden = "the lower half, "
        error = {
            name.removeprefix(hidden): spread(row, "{:.4f}")
            for name, row in found["inpainting"].items()
            if name.startswith(hidden)
        }
        ours = error.pop("searched")
        beside = ", ".join(f"{figure} ({name})" for name, figure in error.items())
        what = "inpainting the lower half of a digit by searching a code: squared error per pixel"
        rows.add(what, ours, beside, "latent_uses")
    if found := values("few_labels"):
        rows += few_label_rows(found)
    return rows


def few_label_rows(found: dict) -> Rows:
    """A linear classifier on codes, and a VAE's draws as training images."""
    rows = Rows()
    probe = {name: percent(row) for name, row in found["probe"].items()}
    for size in (5, 20):
        what = f"100 labels, linear classifier on {size} latent dimensions: accuracy"
        ours = probe[f"two hidden layers, {size} dimensions, 100 labels"]
        pca = f"{probe[f'PCA, {size} dimensions, 100 labels']} (PCA, {size} dimensions)"
        rows.add(what, ours, f"{pca}, {probe['pixels, 100 labels']} (pixels)", "few_labels")
    accuracy = {name: percent(row) for name, row in found["augmentation"].items()}
    alone, drawn, *_ = accuracy.values()
    what = f"{10 * found['labels a class']} labelled digits and draws of a VAE: accuracy"
    beside = f"{alone} (without draws), {accuracy['moved by up to two pixels']} (moved)"
    rows.add(what, drawn, beside, "few_labels")
    return rows


def variant_rows(values: Values) -> Rows:
    """Notebook 5: the variants of the VAE."""
    rows = Rows()
    if found := values("disentangling"):
        gap = {beta: row["mean gap"] for beta, row in found["rows"].items()}
        best = max(gap, key=lambda beta: gap[beta]["mean"])
        what = f"β-VAE on drawn dogs, β = {best}: mutual information gap"
        beside = f"{spread(gap['1'], '{:.3f}')} (β = 1)"
        rows.add(what, spread(gap[best], "{:.3f}"), beside, "disentangling")
    if found := values("family"):
        asked = {
            size: percent(found["conditional"][f"{size} dimensions: as asked"]) for size in (3, 20)
        }
        what = "conditional VAE with 3 latent dimensions: digits drawn as asked for"
        rows.add(what, asked[3], f"{asked[20]} (20 dimensions)", "family")
        what = "adversarial autoencoder: accuracy of telling codes from N(0, I), 50 % is chance"
        ours, vae = (
            percent(found["adversarial"][f"{name}: told apart"]) for name in ("adversarial", "VAE")
        )
        rows.add(what, ours, f"{vae} (VAE)", "family")
        quantised = found["vector quantised"]
        ours = f"{percent(quantised['codebook used'])}; {percent(quantised['recognised'])}"
        rows.add("VQ-VAE: codebook in use; draws of its prior recognised", ours, "", "family")
        nats = {name: spread(row) for name, row in found["hierarchical"].items()}
        beside = f"{nats['flat: nats']} (flat, as many parameters), "
        beside += f"{nats['flat and deeper: nats']} (and deeper)"
        what = "hierarchical VAE: importance-weighted test nats"
        rows.add(what, f"{nats['two levels: nats']} nats", beside, "family")
    return rows


def dog_rows(values: Values) -> Rows:
    """Notebook 8: quality against block PCA and published recipes, speed and memory."""
    rows = Rows()
    for file in ("dogs", "dogs_gpu"):
        if found := values(file):
            length = f"{found['minutes']:g} minutes on {found['on']}"
            for name, row in found["rows"].items():
                beside = f"{row['block_pca_psnr']['mean']:.2f} dB (block PCA, as many dimensions)"
                what = f"dogs, {name}, {length}: held-out PSNR"
                rows.add(what, f"{spread(row['psnr'])} dB", beside, file)
    if found := values("dog_recipes"):
        quality = {name: f"{spread(row['psnr'])} dB" for name, row in found["rows"].items()}
        ours = quality.pop("ours")
        beside = [f"{figure} ({name})" for name, figure in quality.items()]
        beside.append(f"{found['block_pca_psnr']:.2f} dB (block PCA)")
        what = f"dogs, {found['resolution']} px, f{found['factor']}, "
        what += f"{found['minutes']:g} minutes on {found['on']}: held-out PSNR"
        rows.add(what, ours, ", ".join(beside), "dog_recipes")
    for file in ("dog_steps", "dog_steps_gpu"):
        for name, row in values(file).items():
            speed, memory = row["images per second"], row["megabytes"]
            cost = {
                kind: f"{speed[kind]['median']:.1f} images/s, {memory[kind]['median']:,.0f} MB"
                for kind in speed
            }
            checkpointing = cost["ours, gradient checkpointing"]
            ours = f"{cost['ours']}; with gradient checkpointing {checkpointing}"
            rows.add(f"training step, {name}", ours, f"{cost['plain']} (plain loop)", file)
    return rows


def tiny_sd_rows(values: Values) -> Rows:
    """Notebooks 9 and 10: prompt accuracy."""
    rows = Rows()
    if found := values("tiny_sd"):
        accuracy = {}
        for kind, shares in found["shares"].items():
            words = [f"{name} {percent(shares[name])}" for name in ("coat", "ears", "ground")]
            accuracy[kind] = ", ".join(words)
        length = f"{found['minutes']:g} minutes on {found['on']}"
        what = f"tiny Stable Diffusion, {length}: prompt accuracy"
        beside = f"{accuracy['never seen']} (combinations never seen)"
        rows.add(what, accuracy["seen"], beside, "tiny_sd")
        took = found["sampling"]
        what = f"tiny Stable Diffusion: {took['pictures']} pictures in 20 steps on {took['on']}"
        rows.add(what, f"{took['median']:.1f} s", "", "tiny_sd")
    if found := values("cures"):
        accuracy = {
            name: f"{100 * row['shares']['all three']:.1f} %" for name, row in found["rows"].items()
        }
        naive = accuracy.pop("another VAE, naively")
        own = accuracy.pop("its own VAE")
        cured = ", ".join(f"{share} ({name})" for name, share in accuracy.items())
        what = "another VAE in its pipeline, cured: prompt accuracy, all three words"
        rows.add(what, cured, f"{naive} (not cured), {own} (its own VAE)", "cures")
    return rows


def samples_table(values: Values) -> str:
    """The one table of samples: two models, three sizes, two ways to draw codes."""
    found = values("samples")
    if not found:
        return ""
    lines = []
    for kind, sizes in found["rows"].items():
        for size, ways in sizes.items():
            cells = [f"{kind}, {size} latent dimensions"]
            for row in ways.values():
                cells += [percent(row["recognised"]), spread(row["frechet"], "{:.1f}")]
            lines.append(cells)
    what = f"{found['count']:,} samples each ([samples](data/results/samples.json))"
    header = [what, "codes from N(0, I): recognised", "Fréchet distance"]
    return table([*header, "from a fitted Gaussian: recognised", "Fréchet distance"], lines)


def importance_table(values: Values) -> str:
    """Two likelihoods with different floors stand in columns of their own."""
    found = values("importance")
    if not found:
        return ""
    lines = [["−ELBO", *(spread(row["negative elbo"]) for row in found.values())]]
    for k in next(iter(found.values()))["estimates"]:
        estimates = [spread(row["estimates"][k]) for row in found.values()]
        lines.append([f"k = {k}", *estimates])
    source = "[importance](data/results/importance.json)"
    what = f"VAE 784-400-20, importance-weighted nats per image ({source})"
    return table([what, *found], lines)


SECTIONS = (mnist_rows, latent_rows, variant_rows, dog_rows, tiny_sd_rows)


def results(root: Path) -> str:
    """The tables of the README."""

    def values(name: str) -> dict:
        path = root / "data" / "results" / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8"))["values"] if path.exists() else {}

    rows = [row for section in SECTIONS for row in section(values)]
    header = ["Measured (mean ± sd of three seeds)", "Result", "Beside it", "File"]
    tables = (table(header, rows), samples_table(values), importance_table(values))
    return "\n\n".join(filter(None, tables))
