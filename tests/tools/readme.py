"""Write what stands between <!-- NAME:begin --> and <!-- NAME:end --> in README.md.

    python -m tests.tools.readme [--check]

With --check nothing is written: a difference is printed and the exit status is 1.
"""

import difflib
import json
import re
import sys
from pathlib import Path

from tests.tools import common
from tests.tools.publish import BADGE, BADGE_IMAGE

MARKED = re.compile(r"(<!-- (\w+):begin -->\n)(.*?)(<!-- \2:end -->)", re.DOTALL)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def course_map(root: Path) -> str:
    """The notebooks with what they build, their minutes, their download, and a Colab badge."""
    rows = []
    for path in common.select([], root / "notebooks"):
        notebook = common.read(path)
        course = notebook["metadata"].get("course", {})
        minutes = course.get("minutes", {})
        found = BADGE.search("".join(map(common.text, notebook["cells"][:1])))
        title = course.get("title") or common.heading(notebook) or path.stem
        rows.append(
            [
                path.stem.split("_")[0],
                f"[{title}](notebooks/{path.name})",
                course.get("builds", ""),
                *(minutes.get(profile, "") for profile in ("quick", "cpu", "gpu")),
                course.get("download", ""),
                f"[![Open In Colab]({BADGE_IMAGE})]({found[0]})" if found else "",
            ]
        )
    header = ["", "Notebook", "You build", "Minutes: quick", "laptop", "GPU", "Download", "Colab"]
    return table(header, rows)


def spread(entry: dict, form: str = "{:.2f}") -> str:
    """mean ± sd of a benchmark's entry."""
    return " ± ".join(form.format(entry[key]) for key in ("mean", "sd") if key in entry)


class Rows(list):
    """Rows of the table of results."""

    def add(self, what: str, ours: str, against: str, name: str) -> None:
        """name: of the file in data/results that the figures come from."""
        self.append([what, f"**{ours}**", against, f"[{name}](data/results/{name}.json)"])


def percent(entry: dict) -> str:
    """A share, mean ± sd, in percent."""
    return spread({key: 100 * entry[key] for key in ("mean", "sd")}, "{:.1f}") + " %"


def latent_rows(values) -> list[list[str]]:
    """The rows of notebooks 03 and 04: uses of the latent against rivals, and the family of VAEs."""
    rows = Rows()
    if found := values("anomaly"):
        found = {name: spread(row, "{:.3f}") for name, row in found["mean"].items()}
        rivals = ", ".join(f"{found.pop(name)} ({name})" for name in ("PCA reconstruction error", "isolation forest"))
        ours = ", ".join(f"{figure} ({name})" for name, figure in found.items())
        rows.add("the digit left out of the training is found: AUROC, mean of ten digits", ours, rivals, "anomaly")
    if found := values("latent_uses"):
        error = {name: spread(row, "{:.4f}") for name, row in found["gaps"].items() if name.startswith("the lower half")}
        ours = error.pop("the lower half, searched")
        rivals = ", ".join(f"{figure} ({name.split(', ')[1]})" for name, figure in error.items())
        what = "hidden lower halves of digits filled in by searching a code: squared error per pixel"
        rows.add(what, ours, rivals, "latent_uses")
    if found := values("few_labels"):
        share = {name: percent(row) for name, row in (found["probe"] | found["augmentation"]).items()}
        for size in (5, 20):
            rivals = ", ".join(f"{share[f'{name}, 100 labels']} ({name})" for name in (f"PCA, {size} numbers", "pixels"))
            ours = share[f"two hidden layers, {size} numbers, 100 labels"]
            rows.add(f"100 labels, linear classifier on codes of {size} numbers: right", ours, rivals, "few_labels")
        alone, drawn, *_ = found["augmentation"]
        what = f"{10 * found['labels a class']} labelled digits and draws of a VAE: right"
        rivals = f"{share[alone]} (without draws), {share['moved by up to two pixels']} (moved)"
        rows.add(what, share[drawn], rivals, "few_labels")
    if found := values("disentangling"):
        found = found["rows"]
        best = max(found, key=lambda beta: found[beta]["mean gap"]["mean"])
        gap = {beta: spread(found[beta]["mean gap"], "{:.3f}") for beta in (best, "1")}
        what = f"β-VAE on drawn dogs, β = {best}: mutual information gap"
        rows.add(what, gap[best], f"{gap['1']} (β = 1)", "disentangling")
    if found := values("family"):
        ours, rival = (percent(found["conditional"][f"{size} numbers: as asked"]) for size in (3, 20))
        rows.add("conditional VAE with 3 numbers: digits drawn as asked for", ours, f"{rival} (20 numbers)", "family")
        ours, rival = (percent(found["adversarial"][f"{name}: told apart"]) for name in ("adversarial", "VAE"))
        what = "adversarial autoencoder: codes told from draws of N(0, I), 50 % is chance"
        rows.add(what, ours, f"{rival} (VAE)", "family")
        used, drawn = (percent(found["vector quantised"][key]) for key in ("codebook used", "recognised"))
        rows.add("VQ-VAE: codebook in use; draws through its prior recognised", f"{used}; {drawn}", "", "family")
        nats = {name: spread(row) for name, row in found["hierarchical"].items()}
        two, wide, deep = (nats[f"{name}: nats"] for name in ("two levels", "flat", "flat and deeper"))
        rivals = f"{wide} (flat, as many parameters), {deep} (and deeper)"
        rows.add("hierarchical VAE: importance-weighted test nats", f"{two} nats", rivals, "family")
    return rows


def dog_rows(values) -> list[list[str]]:
    """The rows of notebook 05: quality against block PCA and published recipes, speed and memory."""
    rows = Rows()
    for file in ("dogs", "dogs_gpu"):
        if not (found := values(file)):
            continue
        for name, row in found["rows"].items():
            pca = f"{spread({'mean': row['block_pca_psnr']['mean']})} dB (block PCA of equal rate)"
            what = f"dogs, {name}, {found['minutes']:g} minutes on {found['on']}: held-out PSNR"
            rows.add(what, f"{spread(row['psnr'])} dB", pca, file)
    if found := values("dog_recipes"):
        quality = {name: f"{spread(row['psnr'])} dB" for name, row in found["rows"].items()}
        others = ", ".join(f"{quality[name]} ({name})" for name in quality if name != "ours")
        others += f", {found['block_pca_psnr']:.2f} dB (block PCA)"
        what = f"dogs, {found['resolution']} px, f{found['factor']}, {found['minutes']:g} minutes on {found['on']}"
        rows.add(f"{what}: held-out PSNR", quality["ours"], others, "dog_recipes")
    steps = [(file, name, row) for file in ("dog_steps", "dog_steps_gpu") for name, row in values(file).items()]
    for file, name, row in steps:
        speed, memory = row["images per second"], row["megabytes"]
        pair = {kind: f"{speed[kind]['median']:.1f} images/s, {memory[kind]['median']:,.0f} MB" for kind in memory}
        ours = f"{pair['ours']}; recomputing {pair['ours, recompute']}"
        rows.add(f"training step, {name}", ours, f"{pair['plain']} (plain loop)", file)
    return rows


def percents(shares: dict) -> str:
    """Coat, ears and ground of a benchmark's shares, mean ± sd in percent."""
    return ", ".join(f"{name} {percent(shares[name])}" for name in ("coat", "ears", "ground"))


def tiny_sd_rows(values) -> list[list[str]]:
    """The rows of notebooks 06 and 07: pictures that show what their prompt asked for."""
    rows = Rows()
    if found := values("tiny_sd"):
        seen, new = (percents(found["shares"][kind]) for kind in ("seen", "never seen"))
        what = f"tiny Stable Diffusion, {found['minutes']:g} minutes on {found['on']}: pictures that show the prompt's word"
        rows.add(what, seen, f"{new} (combinations never seen)", "tiny_sd")
        took = found["sampling"]
        what = f"tiny Stable Diffusion: {took['pictures']} pictures in 20 steps on {took['on']}"
        rows.add(what, f"{took['median']:.1f} s", "", "tiny_sd")
    if found := values("cures"):
        right = {name: f"{100 * row['shares']['all three']:.1f} %" for name, row in found["rows"].items()}
        naive, own = (right.pop(name) for name in ("another VAE, naively", "its own VAE"))
        cured = ", ".join(f"{share} ({name})" for name, share in right.items())
        what = "another VAE in its pipeline, cured: pictures that show all of the prompt"
        rows.add(what, cured, f"{naive} (not cured), {own} (its own VAE)", "cures")
    return rows


def results(root: Path) -> str:
    """The headline results, each from the file in data/results that its benchmark wrote."""
    rows = Rows()

    def values(name: str) -> dict:
        path = root / "data" / "results" / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8"))["values"] if path.exists() else {}

    for name, rival, what in (
        ("mlp_vs_tutorial", "tutorial", "VAE 784-400-20"),
        ("mlp_2d_vs_blog", "blog", "VAE with 2 latents"),
    ):
        if found := values(name):
            nats, seconds = found["test nats"], found["seconds"]
            rows.add(f"{what}: test nats", spread(nats["ours"]), f"{spread(nats[rival])} ({rival}'s recipe)", name)
            took = {key: f"{seconds[key]['median']:.1f} s" for key in ("ours", rival)}
            times = f"{took[rival]}: {seconds['ours']['first/this']:.1f} times as long"
            rows.add(f"{what}: training time", took["ours"], times, name)
    if found := values("samples_20d"):
        for name, row in found["rows"].items():
            if "sd" in row["frechet"]:
                percent = {key: 100 * row["recognised"][key] for key in ("mean", "sd")}
                distance, recognised = spread(row["frechet"], "{:.1f}"), f"{spread(percent, '{:.1f}')} % recognised"
                rows.add(f"10,000 samples, {name}: Fréchet distance", distance, recognised, "samples_20d")
    if found := values("autoencoder_vs_pca"):
        for size, row in found["mse per pixel"].items():
            ours, pca = spread(row["autoencoder"], "{:.4f}"), f"{row['pca']:.4f} (PCA)"
            rows.add(f"autoencoder, {size} numbers: held-out squared error per pixel", ours, pca, "autoencoder_vs_pca")
    rows += latent_rows(values) + dog_rows(values) + tiny_sd_rows(values)
    tables = [table(["Measured (mean ± sd of three seeds)", "Result", "Beside it", "File"], rows)]
    if found := values("importance"):  # two likelihoods with different floors: never in one column
        lines = [["−ELBO"] + [spread(row["negative elbo"]) for row in found.values()]]
        for k in next(iter(found.values()))["estimates"]:
            lines.append([f"k = {k}"] + [spread(row["estimates"][k]) for row in found.values()])
        source = "[importance](data/results/importance.json)"
        tables.append(table([f"VAE 784-400-20, importance-weighted nats per image ({source})", *found], lines))
    return "\n\n".join(tables)


GENERATORS = {"map": course_map, "results": results}


def regenerate(text: str, root: Path) -> str:
    """`text` with every marked part made anew."""

    def fresh(found: re.Match) -> str:
        if found[2] not in GENERATORS:
            common.fail(f"README.md marks a part {found[2]!r}, and there is no generator of that name.")
        return f"{found[1]}{GENERATORS[found[2]](root)}\n{found[4]}"

    return MARKED.sub(fresh, text)


def main(arguments: list[str], root: Path = common.ROOT) -> int:
    """Rewrite README.md, or with --check compare it."""
    path = root / "README.md"
    if not path.exists():
        common.fail("There is no README.md to write to.")
    old = path.read_text(encoding="utf-8")
    new = regenerate(old, root)
    if "--check" not in arguments:
        if new != old:
            path.write_text(new, encoding="utf-8", newline="\n")
        return 0
    names = ("README.md as it is", "as `make notebooks` or `make bench` would write it")
    difference = list(difflib.unified_diff(old.splitlines(), new.splitlines(), *names, lineterm=""))
    print(*difference, sep="\n", end="\n" if difference else "")
    return 1 if difference else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
