"""The README: picture first, the two commands, a badge for every notebook, tables are current."""

import re
import shutil

import pytest

from tests.conftest import ROOT
from tests.project import toys
from tests.tools import common, publish, readme, results_table


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_tables_are_current(capsys):
    assert readme.main(["--check"]) == 0, capsys.readouterr().out


def test_both_tables_are_marked(page):
    assert {name for _, name, _, _ in readme.MARKED.findall(page)} >= {"map", "results"}


def test_a_stale_table_is_seen_and_mended(tmp_path, capsys):
    toys.write(tmp_path / "notebooks" / "01_toy.ipynb", ["# A toy"])
    shutil.copytree(ROOT / "data" / "results", tmp_path / "data" / "results")
    path = tmp_path / "README.md"
    marked = "<!-- map:begin -->\nold\n<!-- map:end -->\n"
    marked += "<!-- results:begin -->\n<!-- results:end -->\n"
    path.write_text(f"# X\n{marked}kept\n", encoding="utf-8")
    assert readme.main(["--check"], tmp_path) == 1
    assert "-old" in capsys.readouterr().out
    assert path.read_text(encoding="utf-8").count("old") == 1
    assert readme.main([], tmp_path) == 0
    assert readme.main(["--check"], tmp_path) == 0
    new = path.read_text(encoding="utf-8")
    assert "old" not in new and new.endswith("kept\n")
    assert "[A toy](notebooks/01_toy.ipynb)" in new and "(data/results/dogs.json)" in new


def one(mean: float) -> dict:
    return {"mean": mean, "sd": 0.001, "each": [mean]}


def lines(section, found: dict) -> list[str]:
    """The rows of a section as text, when these results were measured."""
    assert section(lambda name: {}) == []
    return ["|".join(row) for row in section(lambda name: found.get(name, {}))]


def test_the_rows_of_mnist_say_what_was_measured():
    def entry(rival):
        seconds = {rival: {"median": 38.0}, "ours": {"median": 5.6, "first/this": 6.8}}
        return {"test nats": {rival: one(105.5), "ours": one(104.4)}, "seconds": seconds}

    found = {
        "mlp_vs_tutorial": entry("tutorial"),
        "mlp_2d_vs_blog": entry("blog"),
        "autoencoder_vs_pca": {"mse per pixel": {"2": {"pca": 0.0555, "autoencoder": one(0.036)}}},
    }
    rows = lines(results_table.mnist_rows, found)
    assert len(rows) == 5
    assert "**104.40 ± 0.00**|105.50 ± 0.00 (tutorial's recipe)" in rows[0]
    assert "**5.6 s**|38.0 s: 6.8 times as long" in rows[1]
    assert "VAE with 2 latent dimensions" in rows[2] and "(blog's recipe)" in rows[2]
    assert "2 latent dimensions" in rows[4] and "**0.0360 ± 0.0010**|0.0555 (PCA)" in rows[4]


def test_samples_of_all_models_stand_in_one_table():
    known = {"recognised": one(0.375), "frechet": one(100.2)}
    fitted = {"recognised": one(0.418), "frechet": one(75.6)}
    found = {"count": 10_000, "rows": {"VAE": {"20": {"N(0, I)": known, "fitted": fitted}}}}
    assert results_table.samples_table(lambda name: {}) == ""
    header, _, row = results_table.samples_table(lambda name: found).splitlines()
    assert header.startswith("| 10,000 samples each")
    assert row == (
        "| VAE, 20 latent dimensions | 37.5 ± 0.1 % | 100.2 ± 0.0 | 41.8 ± 0.1 % | 75.6 ± 0.0 |"
    )


def test_the_rows_of_the_latent_space_say_what_was_measured():
    scores = {"reconstruction error": one(0.8), "PCA reconstruction error": one(0.7)}
    scores["isolation forest"] = one(0.5)
    probes = {
        "two hidden layers, 5 dimensions": 0.8,
        "two hidden layers, 20 dimensions": 0.7,
        "pixels": 0.65,
        "PCA, 5 dimensions": 0.4,
        "PCA, 20 dimensions": 0.6,
    }
    inpainting = {
        "the lower half, mean image": one(0.067),
        "the lower half, iterated": one(0.075),
        "the lower half, searched": one(0.042),
        "a square, searched": one(0.1),
    }
    found = {
        "anomaly": {"mean": scores},
        "latent_uses": {"inpainting": inpainting},
        "few_labels": {
            "probe": {f"{view}, 100 labels": one(mean) for view, mean in probes.items()},
            "augmentation": {
                "alone": one(0.9),
                "with draws": one(0.91),
                "moved by up to two pixels": one(0.93),
            },
            "labels a class": 20,
        },
    }
    rows = lines(results_table.latent_rows, found)
    assert "**0.800 ± 0.001 (reconstruction error)**|0.700 ± 0.001 (PCA recon" in rows[0]
    assert "**0.0420 ± 0.0010**|0.0670 ± 0.0010 (mean image), 0.0750 ± 0.0010 (iter" in rows[1]
    pca = "40.0 ± 0.1 % (PCA, 5 dimensions), 65.0 ± 0.1 % (pixels)"
    assert f"5 latent dimensions: accuracy|**80.0 ± 0.1 %**|{pca}" in rows[2]
    assert "**70.0 ± 0.1 %**|60.0 ± 0.1 % (PCA, 20 dimensions)" in rows[3]
    beside = "90.0 ± 0.1 % (without draws), 93.0 ± 0.1 % (moved)"
    assert "200 labelled digits" in rows[4] and f"**91.0 ± 0.1 %**|{beside}" in rows[4]


def test_the_rows_of_the_variants_say_what_was_measured():
    gaps = {"1": 0.1, "4": 0.3, "8": 0.2}
    asked = {"3 dimensions: as asked": one(0.98), "20 dimensions: as asked": one(0.9)}
    apart = {"adversarial: told apart": one(0.7), "VAE: told apart": one(0.75)}
    nats = {"two levels: nats": 99.0, "flat: nats": 100.0, "flat and deeper: nats": 101.0}
    found = {
        "disentangling": {"rows": {beta: {"mean gap": one(gap)} for beta, gap in gaps.items()}},
        "family": {
            "conditional": asked,
            "adversarial": apart,
            "vector quantised": {"codebook used": one(0.95), "recognised": one(0.85)},
            "hierarchical": {name: one(mean) for name, mean in nats.items()},
        },
    }
    rows = lines(results_table.variant_rows, found)
    assert "β = 4" in rows[0] and "**0.300 ± 0.001**|0.100 ± 0.001 (β = 1)" in rows[0]
    assert "**98.0 ± 0.1 %**|90.0 ± 0.1 % (20 dimensions)" in rows[1]
    assert "**70.0 ± 0.1 %**|75.0 ± 0.1 % (VAE)" in rows[2]
    assert "**95.0 ± 0.1 %; 85.0 ± 0.1 %**" in rows[3]
    beside = "100.00 ± 0.00 (flat, as many parameters), 101.00 ± 0.00 (and deeper)"
    assert f"**99.00 ± 0.00 nats**|{beside}" in rows[4]


def test_the_dogs_stand_beside_their_baselines():
    psnr = {"ours": 22.5, "chapter": 17.0}
    cost = {
        "plain": (10.0, 900.0),
        "ours": (25.0, 500.0),
        "ours, gradient checkpointing": (20.0, 300.0),
    }
    step = {
        "images per second": {kind: {"median": speed} for kind, (speed, _) in cost.items()},
        "megabytes": {kind: {"median": memory} for kind, (_, memory) in cost.items()},
    }
    found = {
        "dogs": {
            "minutes": 20,
            "on": "1 core",
            "rows": {"64 px, f4": {"psnr": one(28.0), "block_pca_psnr": {"mean": 26.7}}},
        },
        "dog_recipes": {
            "minutes": 5,
            "on": "a",
            "resolution": 64,
            "factor": 8,
            "block_pca_psnr": 21.8,
            "rows": {name: {"psnr": one(mean)} for name, mean in psnr.items()},
        },
        "dog_steps": {"64 px, batch 16": step},
    }
    rows = lines(results_table.dog_rows, found)
    assert len(rows) == 3
    assert (
        "20 minutes on 1 core" in rows[0] and "**28.00 ± 0.00 dB**|26.70 dB (block PCA" in rows[0]
    )
    beside = "17.00 ± 0.00 dB (chapter), 21.80 dB (block PCA)"
    assert f"**22.50 ± 0.00 dB**|{beside}" in rows[1]
    ours = "25.0 images/s, 500 MB; with gradient checkpointing 20.0 images/s, 300 MB"
    assert f"**{ours}**|10.0 images/s, 900 MB (plain loop)|[dog_steps](data/" in rows[2]


def test_the_rows_of_the_tiny_pipeline_say_what_was_measured():
    def shares(*means):
        return dict(zip(("coat", "ears", "ground", "all three"), map(one, means), strict=True))

    def cure(share):
        return {"shares": {"all three": share}}

    found = {
        "tiny_sd": {
            "minutes": 20,
            "on": "two cores",
            "sampling": {"pictures": 16, "median": 3.21, "on": "two cores"},
            "shares": {
                "seen": shares(1.0, 0.987, 0.99, 0.97),
                "never seen": shares(0.9, 0.8, 0.7, 0.6),
            },
        },
        "cures": {
            "rows": {
                "its own VAE": cure(0.99),
                "another VAE, naively": cure(0.02),
                "cure one": cure(0.96),
            }
        },
    }
    rows = lines(results_table.tiny_sd_rows, found)
    assert "20 minutes on two cores: prompt accuracy" in rows[0]
    assert "coat 100.0 ± 0.1 %, ears 98.7 ± 0.1 %" in rows[0]
    assert "ears 80.0 ± 0.1 %, ground 70.0 ± 0.1 % (combinations never seen)" in rows[0]
    assert "16 pictures" in rows[1] and "3.2 s" in rows[1]
    assert "96.0 % (cure one)" in rows[2]
    assert "2.0 % (not cured), 99.0 % (its own VAE)" in rows[2]


def test_a_bar_in_a_cell_is_no_column():
    assert results_table.table(["a|b"], [["c"]]) == "| a\\|b |\n| --- |\n| c |"


def test_an_unknown_table_is_one_sentence(tmp_path, capsys):
    (tmp_path / "README.md").write_text("<!-- maps:begin -->\n<!-- maps:end -->\n")
    with pytest.raises(SystemExit):
        readme.main([], tmp_path)
    assert "no generator of that name" in capsys.readouterr().err


def test_the_picture_comes_first(page):
    before = re.split(r"!\[|<img", page)[0]
    words = re.sub(r"^#.*$|<[^>]*>", "", before, flags=re.MULTILINE).split()
    assert before != page
    assert len(words) <= 40, "more than a sentence or two stands before the first picture"


def test_pictures_exist_and_have_alt_text(page):
    for alt, target in re.findall(r"!\[([^]]*)\]\(([^)\s]+)\)", page):
        assert alt.strip(), f"no alt text: {target}"
        assert "://" in target or (ROOT / target).exists(), target
    for tag in re.findall(r"<img[^>]*>", page):
        assert re.search(r'alt="[^"]+"', tag), tag


@pytest.mark.parametrize("command", ["make run", "make test"])
def test_the_commands_are_named(page, command):
    assert command in page


def test_a_badge_for_every_notebook_and_no_other(page):
    files = {f"notebooks/{path.name}" for path in common.select([])}
    assert {file for _, file in publish.BADGE.findall(page)} == files


def test_links_name_files_that_exist(page):
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", page)]
    local = [target for target in targets if target and "://" not in target]
    assert [target for target in local if not (ROOT / target).exists()] == []
