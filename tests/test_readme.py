"""The README: picture first, the two commands, a badge for every notebook, tables that are current."""

import re
import shutil

import pytest

from tests.conftest import ROOT
from tests.tools import common, publish, readme


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_tables_are_current(capsys):
    assert readme.main(["--check"]) == 0, capsys.readouterr().out


def test_both_tables_are_marked(page):
    assert {name for _, name, _, _ in readme.MARKED.findall(page)} >= {"map", "results"}


def test_a_stale_table_is_seen_and_mended(tmp_path, capsys):
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    if (ROOT / "data" / "results").exists():
        shutil.copytree(ROOT / "data" / "results", tmp_path / "data" / "results")
    path = tmp_path / "README.md"
    path.write_text("# X\n<!-- map:begin -->\nold\n<!-- map:end -->\nkept\n", encoding="utf-8")
    assert readme.main(["--check"], tmp_path) == 1
    assert "-old" in capsys.readouterr().out
    assert path.read_text(encoding="utf-8").count("old") == 1
    assert readme.main([], tmp_path) == 0
    assert readme.main(["--check"], tmp_path) == 0
    new = path.read_text(encoding="utf-8")
    assert "old" not in new and new.endswith("kept\n") and "01_autoencoder.ipynb" in new


def test_the_rows_of_the_tiny_pipeline_say_what_was_measured():
    def shares(*means):
        return dict(zip(("coat", "ears", "ground", "all three"), ({"mean": m, "sd": 0.001} for m in means), strict=True))

    def cure(share):
        return {"shares": {"all three": share}}

    sampling = {"pictures": 16, "median": 3.21, "on": "two cores"}
    found = {
        "tiny_sd": {"minutes": 20, "on": "two cores", "sampling": sampling}
        | {"shares": {"seen": shares(1.0, 0.987, 0.99, 0.97), "never seen": shares(0.9, 0.8, 0.7, 0.6)}},
        "cures": {"rows": {"its own VAE": cure(0.99), "another VAE, naively": cure(0.02), "cure one": cure(0.96)}},
    }
    assert readme.tiny_sd_rows({}.get) == []
    rows = ["|".join(row) for row in readme.tiny_sd_rows(found.get)]
    assert "20 minutes on two cores" in rows[0] and "coat 100.0 ± 0.1 %, ears 98.7 ± 0.1 %" in rows[0]
    assert "ears 80.0 ± 0.1 %, ground 70.0 ± 0.1 % (combinations never seen)" in rows[0]
    assert "16 pictures" in rows[1] and "3.2 s" in rows[1]
    assert "96.0 % (cure one)" in rows[2] and "2.0 % (not cured), 99.0 % (its own VAE)" in rows[2]


def test_the_rows_of_the_latent_say_what_was_measured():
    def one(mean):
        return {"mean": mean, "sd": 0.001}

    scores = {"reconstruction error": one(0.8), "PCA reconstruction error": one(0.7), "isolation forest": one(0.5)}
    views = {"two hidden layers, 5 numbers": 0.8, "two hidden layers, 20 numbers": 0.7, "pixels": 0.65}
    views |= {"PCA, 5 numbers": 0.4, "PCA, 20 numbers": 0.6}
    probes = {f"{view}, 100 labels": one(mean) for view, mean in views.items()}
    more = {"alone": one(0.9), "with draws": one(0.91), "moved by up to two pixels": one(0.93)}
    family = {
        "conditional": {"3 numbers: as asked": one(0.98), "20 numbers: as asked": one(0.9)},
        "adversarial": {"adversarial: told apart": one(0.7), "VAE: told apart": one(0.75)},
        "vector quantised": {"codebook used": one(0.95), "recognised": one(0.85)},
        "hierarchical": {"two levels: nats": one(99.0), "flat: nats": one(100.0), "flat and deeper: nats": one(101.0)},
    }
    found = {
        "anomaly": {"mean": scores},
        "latent_uses": {
            "gaps": {"the lower half, mean image": one(0.067), "the lower half, iterated": one(0.075)}
            | {"the lower half, searched": one(0.042), "a square, searched": one(0.1)}
        },
        "few_labels": {"probe": probes, "augmentation": more, "labels a class": 20},
        "disentangling": {"rows": {"1": {"mean gap": one(0.1)}, "4": {"mean gap": one(0.3)}, "8": {"mean gap": one(0.2)}}},
        "family": family,
    }
    assert readme.latent_rows({}.get) == []
    rows = ["|".join(row) for row in readme.latent_rows(found.get)]
    assert "0.800 ± 0.001 (reconstruction error)" in rows[0] and "0.700 ± 0.001 (PCA reconstruction error)" in rows[0]
    assert "0.0420 ± 0.0010**" in rows[1] and "0.0670 ± 0.0010 (mean image), 0.0750 ± 0.0010 (iterated)" in rows[1]
    assert "5 numbers" in rows[2] and "80.0 ± 0.1 %**" in rows[2] and "40.0 ± 0.1 % (PCA, 5 numbers), 65.0" in rows[2]
    assert "20 numbers" in rows[3] and "70.0 ± 0.1 %**" in rows[3] and "60.0 ± 0.1 % (PCA, 20 numbers)" in rows[3]
    assert "200 labelled digits" in rows[4] and "91.0 ± 0.1 %**" in rows[4] and "90.0 ± 0.1 % (without draws)" in rows[4]
    assert "β = 4" in rows[5] and "0.300 ± 0.001**" in rows[5] and "0.100 ± 0.001 (β = 1)" in rows[5]
    assert "98.0 ± 0.1 %**" in rows[6] and "90.0 ± 0.1 % (20 numbers)" in rows[6]
    assert "70.0 ± 0.1 %**" in rows[7] and "75.0 ± 0.1 % (VAE)" in rows[7] and "95.0 ± 0.1 %; 85.0 ± 0.1 %" in rows[8]
    assert "99.00 ± 0.00 nats**" in rows[9] and "100.00 ± 0.00 (flat" in rows[9] and "101.00 ± 0.00 (and deeper)" in rows[9]


def test_an_unknown_table_is_one_sentence(tmp_path, capsys):
    (tmp_path / "README.md").write_text("<!-- maps:begin -->\n<!-- maps:end -->\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        readme.main([], tmp_path)
    assert "no generator of that name" in capsys.readouterr().err


def test_the_picture_comes_first(page):
    before = page.split("![", 1)[0] if "![" in page else page
    picture = page.find("<img")
    before = before if picture < 0 else page[: min(picture, len(before))]
    words = re.sub(r"^#.*$|<[^>]*>", "", before, flags=re.MULTILINE).split()
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
    assert {file for _, file in publish.BADGE.findall(page)} == {
        f"notebooks/{p.name}" for p in common.select([])
    }


def test_links_name_files_that_exist(page):
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", page)]
    bad = [target for target in targets if target and "://" not in target and not (ROOT / target).exists()]
    assert not bad


def test_the_dogs_stand_beside_their_baselines():
    entry = {"mean": 28.0, "sd": 0.1, "each": [28.0]}
    recipes = {name: {"psnr": entry | {"mean": mean}} for name, mean in (("ours", 22.5), ("chapter", 17.0))}
    kinds = {"plain": (10.0, 900.0), "ours": (25.0, 500.0), "ours, recompute": (20.0, 300.0)}
    step = {what: {kind: {"median": pair[i]} for kind, pair in kinds.items()}
            for i, what in enumerate(("images per second", "megabytes"))}  # fmt: skip
    stored = {
        "dogs": {"minutes": 20, "on": "1 core", "rows": {"64 px, f4": {"psnr": entry, "block_pca_psnr": {"mean": 26.7}}}},
        "dog_recipes": {"minutes": 5, "on": "a", "resolution": 64, "factor": 8, "block_pca_psnr": 21.8, "rows": recipes},
        "dog_steps": {"64 px, batch 16": step},
    }
    rows = readme.dog_rows(lambda name: stored.get(name, {}))
    step = "**25.0 images/s, 500 MB; recomputing 20.0 images/s, 300 MB**"
    assert [row[1] for row in rows] == ["**28.00 ± 0.10 dB**", "**22.50 ± 0.10 dB**", step]
    assert "26.70 dB (block PCA" in rows[0][2] and "17.00 ± 0.10 dB (chapter), 21.80 dB (block PCA)" in rows[1][2]
    assert rows[2][2] == "10.0 images/s, 900 MB (plain loop)" and "data/results/dog_steps.json" in rows[2][3]
    assert readme.dog_rows(lambda name: {}) == []
