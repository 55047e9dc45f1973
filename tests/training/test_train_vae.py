"""The command `helpers.train_vae`: trains, goes on, measures, exports; and what it refuses.

Two processes of it are tested in test_processes.py, its options in test_options.py, what it begins
with and what is done with its weights in test_starting_points.py.
"""

import contextlib
import csv
import io
import math
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from helpers import CourseError, train_vae
from helpers.data.datasets import load_dogs
from helpers.data.splits import split_of
from helpers.env import ROOT
from helpers.metrics.images import measure_reconstructions
from helpers.metrics.latents import latent_statistics
from helpers.models.conv_vae import ConvVAE, photo_config
from helpers.models.discriminator import VAEGAN
from helpers.models.losses import gaussian_nll
from helpers.models.mlp_vae import MLPVAE
from helpers.training.checkpoints import load_shipped, load_weights, read_tensors, write_tensors
from helpers.training.filmstrip import Filmstrip
from helpers.training.options import parse
from helpers.training.starting_point import load_vae
from tests.data.small_data import noise, write_photos
from tests.training.small_command import (
    BASE,
    FEW,
    SMALL,
    USUAL,
    photos,
    refusal,
    use,
    without_training,
)
from tests.training.small_training import equal

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    use(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture(scope="module", params=[BASE, USUAL], ids=["plain", "usual network"])
def exported(tmp_path_factory, request):
    """What a run with --export leaves: folder, file, model card, figures, and what it printed."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        use(folder, patch)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            figures = train_vae.main([*request.param, "--export", "tiny"])
    file = folder / "build" / "checkpoints" / "tiny.safetensors"
    card = file.with_suffix(".md").read_text(encoding="utf-8")
    return SimpleNamespace(
        words=request.param,
        folder=folder,
        file=file,
        card=card,
        figures=figures,
        printed=printed.getvalue(),
    )


def same(one: dict, other: dict, rel: float) -> bool:
    return one["source"] == other["source"] and all(
        one[name] == pytest.approx(other[name], rel) for name in {*one, *other} - {"source"}
    )


def without_vgg(monkeypatch) -> list:
    """LPIPS cannot be had; each attempt is noted."""
    tried = []

    def fail(*args, **kwargs):
        tried.append(kwargs)
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    return tried


# --- a run ---


def test_a_run_reports_and_exports(exported):
    figures = exported.figures
    assert all(math.isfinite(value) for name, value in figures.items() if name != "source")
    assert figures["dimensions"] == 4 * 4 * 4
    assert figures["source"] == "5 images; drawn dogs, embedded"
    lines = dict(re.findall(r"^(\w[\w ]*?)  +(.*)$", exported.printed, re.M))
    linear = f"(block PCA, as many dimensions: {figures['block_pca_psnr']:.2f} dB)"
    assert lines["PSNR"] == f"{figures['psnr']:.2f} dB {linear}"
    assert lines["scaling factor"] == f"{figures['scaling_factor']:.4f}"
    assert lines["written"].startswith(str(exported.file))
    names = sorted(path.name for path in exported.file.parent.iterdir())
    assert names == ["tiny", "tiny.md", "tiny.safetensors"]
    assert lines["for diffusers"] == str(exported.file.parent / "tiny")
    assert lines["pictures"].startswith(str(exported.folder / "build" / "runs" / "train_vae"))
    assert not (exported.folder / "data").exists()


def test_the_file_holds_fp16_weights_and_the_figures_are_those_of_the_file(exported):
    tensors, header = read_tensors(exported.file)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert header["config"]["scaling_factor"] == exported.figures["scaling_factor"]
    assert header["figures"] == exported.figures and header["resolution"] == 16
    model = ConvVAE(**header["config"])
    load_weights(model, exported.file)
    again = measure_reconstructions(model, load_dogs(16, "train"), load_dogs(16, "test"))
    assert same(again | {"source": exported.figures["source"]}, exported.figures, rel=1e-6)


def test_the_model_cards_code_runs_where_it_says(exported, monkeypatch):
    """The course's in a process of its own, that of diffusers here, where it is imported."""
    assert "in the folder of this file, with the course's folder in `PYTHONPATH`" in exported.card
    ours, library = re.findall(r"```python\n(.*?)```", exported.card, re.S)
    ours += "\nimport torch; torch.manual_seed(0)"
    ours += "\nprint(model.training, model.decode(torch.randn(1, 4, 4, 4)).sum().item())"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    there = {"cwd": exported.file.parent, "env": environment}
    run = subprocess.run([sys.executable, "-c", ours], **there, capture_output=True, text=True)
    assert not run.returncode, run.stderr

    monkeypatch.chdir(exported.file.parent)
    space = {}
    exec(library, space)
    torch.manual_seed(0)
    with torch.no_grad():
        decoded = space["vae"].decode(torch.randn(1, 4, 4, 4)).sample
    told, total = run.stdout.split()
    pixels = (decoded + 1) / 2
    assert told == "False" and float(total) == pytest.approx(pixels.sum().item(), rel=1e-4)


def test_the_model_card_says_how_the_vae_was_made_and_what_its_latents_are(exported):
    header = read_tensors(exported.file)[1]
    assert f"configuration: `{ConvVAE(**header['config']).config}`" in exported.card
    assert "weights: float16" in exported.card
    latents = latent_statistics(load_vae(exported.file)[0], load_dogs(16, "test"))
    assert header["latents_mean"] == pytest.approx(latents.mean.tolist(), rel=1e-4, abs=1e-5)
    assert header["latents_std"] == pytest.approx(latents.std.tolist(), rel=1e-4)
    for i, (mean, std) in enumerate(zip(header["latents_mean"], header["latents_std"])):
        assert f"| {i} | {mean:.4f} | {std:.4f} |" in exported.card
    (command,) = re.findall(r"`python -m helpers.train_vae (.*?)`", exported.card)
    assert parse(shlex.split(command)) == parse([*exported.words, "--export", "tiny"])
    assert train_vae.report(exported.figures) in exported.card
    assert str(exported.folder) not in exported.card


@pytest.mark.parametrize("name", ["dogs_vae", "dogs_vae_adversarial"])
def test_the_shipped_cards_say_how_to_use_and_to_make_them(name, monkeypatch):
    monkeypatch.chdir(ROOT / "data" / "checkpoints")
    card = Path(f"{name}.md").read_text(encoding="utf-8")
    assert "in the folder of this file, with the course's folder in `PYTHONPATH`" in card
    space = {}
    exec(re.search(r"```python\n(.*?)```", card, re.S)[1], space)
    assert equal(space["model"], load_shipped(ConvVAE, name))
    (command,) = re.findall(r"`python -m helpers.train_vae (.*?)`", card)
    assert parse(shlex.split(command)).export == name and "--ema 0" in command


def test_the_history_has_the_psnr_of_the_filmstrip(exported):
    (file,) = (exported.folder / "build" / "runs" / "train_vae").glob("*/history.csv")
    (row,) = csv.DictReader(file.open())
    assert float(row["psnr"]) > 5 and float(row["val_loss"]) != 0
    assert len(list(file.parent.parent.glob("filmstrip/*/0001.png"))) == 1


def test_the_same_command_again_finds_the_run_finished(exported, monkeypatch, capsys):
    use(exported.folder, monkeypatch)
    assert same(train_vae.main(exported.words), exported.figures, rel=0.02)  # in float32
    assert "it is finished and loaded" in capsys.readouterr().out


def test_a_stopped_run_goes_on_and_ends_as_an_undisturbed_one(monkeypatch, capsys, place):
    words = [*SMALL, "--epochs", "3", "--batch", "8", "--ema", "0.9"]
    undisturbed = train_vae.main([*words, "--run", "undisturbed"])

    def stop(strip, images, epoch, save=Filmstrip.save):
        save(strip, images, epoch)
        if epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Filmstrip, "save", stop)
        text = refusal(*words, "--run", "stopped")
    assert "stopped after 2 epochs and 0 steps" in text and text.endswith("same command goes on")
    (best,) = (place / "build" / "runs" / "stopped").glob("*/best.safetensors")
    assert f"(--init-from {best})" in text
    capsys.readouterr()
    assert train_vae.main([*words, "--run", "stopped"]) == undisturbed
    assert re.search(r"stopped/\w+ found: going on at epoch 3, step 1", capsys.readouterr().out)


def test_evaluate_gives_the_same_figures_and_writes_nothing(exported, monkeypatch, place):
    monkeypatch.chdir(exported.file.parent)  # a path is relative to the current folder
    called = without_training(monkeypatch)
    figures = train_vae.main(["--evaluate", "--init-from", "tiny.safetensors"])
    assert same(figures, exported.figures, rel=1e-6)
    assert not called and not (place / "build").exists()


def test_init_from_goes_on_with_the_weights_of_a_file(exported):
    words = ["--steps", "1", "--lr", "1e-8", "--precision", "no"]
    figures = train_vae.main(["--init-from", str(exported.file), *words])
    assert figures["psnr"] == pytest.approx(exported.figures["psnr"], abs=1e-3)
    assert figures["dimensions"] == 64


def test_resolution_overrides_that_of_init_from(exported):
    words = ["--init-from", str(exported.file), "--evaluate", "--resolution", "24"]
    assert train_vae.main(words)["dimensions"] == 4 * 6 * 6


def test_own_photographs_are_split_by_their_names(place, monkeypatch, capsys):
    folder = photos(place / "mine", train=12, validation=2, test=3)
    called = without_training(monkeypatch)
    words = ["--folder", str(folder), "--crop-from", "1.5", "--export", "mine"]
    figures = train_vae.main([*BASE, *words])
    assert {split_of(name) for name in called["train"].names} == {"train"}
    assert {split_of(name) for name in called["validation"].names} == {"validation"}
    assert figures["source"] == "3 images; folder mine"
    card = (place / "build" / "checkpoints" / "mine.md").read_text(encoding="utf-8")
    assert "--folder mine" in card and str(place) not in card
    skipped = capsys.readouterr().out.count("skipped")
    assert skipped == 1, "the training images are read twice, and a broken one is named once"


@pytest.mark.parametrize("count", [4, 20])
def test_a_handful_of_photographs_trains(place, count):
    write_photos(place / "few", count, size=(20, 24))
    figures = train_vae.main([*SMALL, "--steps", "2", "--folder", str(place / "few")])
    assert figures["source"] == "2 images; folder few" and math.isfinite(figures["psnr"])


def test_a_photo_that_is_added_starts_the_run_afresh_and_that_is_said(place, capsys):
    write_photos(place / "few", 15, size=(20, 24))
    words = [*SMALL, "--steps", "1", "--folder", str(place / "few")]
    train_vae.main(words)
    assert "afresh" not in capsys.readouterr().out
    noise(20, 24, seed=100).save(place / "few" / "a.png")
    assert split_of("a.png") == "train"
    train_vae.main(words)
    told = "Run train_vae: the data changed; starting afresh beside the old run.\n"
    assert told in capsys.readouterr().out
    assert len(list((place / "build" / "runs" / "train_vae").glob("*/last.safetensors"))) == 2


def test_without_a_terminal_every_epoch_is_a_line_with_the_time_that_is_left(monkeypatch, capsys):
    monkeypatch.delenv("TQDM_DISABLE")
    train_vae.main([*SMALL, "--epochs", "2"])
    printed = capsys.readouterr()
    number = r"-?[\d.e+]+"
    losses = rf"loss {number}, held out {number}, {number} dB"
    line = rf"^epoch (\d): {losses}; 0.\d minutes, about 0.\d left$"
    assert re.findall(line, printed.out, re.M) == ["1", "2"]
    assert printed.err == "", "a bar of text would fill a file"


# --- options ---


def test_options_reach_the_training(monkeypatch):
    called = without_training(monkeypatch)
    words = "--epochs 7 --batch 6 --accumulate 3 --lr 0.01 --ema 0.9 --seed 5 --precision no"
    words += " --run mine --gradient-checkpointing --loss mse --beta 0.25 --latent-channels 2"
    figures = train_vae.main([*SMALL, *words.split()])
    wanted = {
        "minutes": None,
        "steps": None,
        "epochs": 7,
        "batch_size": 6,
        "accumulate": 3,
        "lr": 0.01,
        "ema": 0.9,
        "seed": 5,
        "precision": "no",
        "run": "mine",
    }
    assert {name: called[name] for name in wanted} == wanted and "betas" not in called
    loss = called["loss"].keywords
    assert loss["beta"] == 0.25 and loss["nll"].func is gaussian_nll
    assert all(stage.checkpointing for stage in called["model"].encoder.stages)
    assert figures["dimensions"] == 2 * 4 * 4
    assert len(called["validation"]) == FEW["validation"]


def test_the_defaults(monkeypatch):
    called = without_training(monkeypatch)
    train_vae.main(["--resolution", "16"])
    assert (called["minutes"], called["steps"], called["epochs"]) == (20.0, None, None)
    assert called["model"].config == photo_config(8) and called["ema"] == 0.999
    assert called["loss"].keywords["beta"] == 0.1 and len(called["train"]) == FEW["train"]
    stages = called["model"].encoder.stages
    assert not any(stage.checkpointing for stage in stages)


def test_the_usual_network_begins_as_block_pca(monkeypatch):
    called = without_training(monkeypatch)
    figures = train_vae.main(USUAL)
    assert figures["psnr"] == pytest.approx(figures["block_pca_psnr"], abs=1), "untrained"
    code = called["model"].linear.encode(2 * load_dogs(16, "train").pixels() - 1)
    torch.testing.assert_close(code.std((0, 2, 3)), torch.ones(4), rtol=0.01, atol=0)


def test_the_averaged_weights_can_be_left_out(monkeypatch):
    called = without_training(monkeypatch)
    train_vae.main([*BASE, "--ema", "0"])
    assert called["ema"] is None


def test_the_seed_decides_on_the_first_weights():
    def first(seed: str) -> torch.Tensor:
        options = parse([*SMALL, "--seed", seed])
        train_vae.seed_everything(options.seed)
        return train_vae.build_model(options)[0].encoder.conv_in.weight

    called = {"0": first("0"), "again": first("0"), "1": first("1")}
    assert torch.equal(called["0"], called["again"])
    assert not torch.equal(called["0"], called["1"])


def test_crop_from_trains_on_squares_of_larger_images(monkeypatch):
    called = without_training(monkeypatch)
    train_vae.main([*SMALL, "--crop-from", "1.5"])
    assert called["train"].images.shape[2:] == (24, 24)
    assert called["validation"].images.shape[2:] == (16, 16)
    generator = torch.Generator().manual_seed(0)
    assert called["augment"](called["train"].pixels(), generator).shape[2:] == (16, 16)


def test_adversarial_goes_on_without_vgg16(monkeypatch, capsys, place):
    tried = without_vgg(monkeypatch)
    words = ["--adversarial", "--steps", "2", "--batch", "4", "--export", "sharp"]
    figures = train_vae.main([*SMALL, *words])
    printed = capsys.readouterr().out.splitlines()
    assert tried and math.isfinite(figures["psnr"])
    (sentence,) = (line for line in printed if "VGG16" in line)
    assert "no route to host" in sentence and sentence.endswith("This run goes on without it.")
    (file,) = (place / "build" / "runs" / "train_vae").glob("*/history.csv")
    (row,) = csv.DictReader(file.open())
    assert {"discriminator", "generator", "val_loss", "psnr"} <= set(row)
    stored, header = read_tensors(place / "build" / "checkpoints" / "sharp.safetensors")
    assert header["class"] == "ConvVAE"
    assert not any("discriminator" in name for name in stored)
    card = (place / "build" / "checkpoints" / "sharp.md").read_text(encoding="utf-8")
    assert "VGG16 could not be had" in card


def test_the_adversarial_recipe_is_the_published_one_and_can_do_without_vgg16(monkeypatch):
    called, tried = without_training(monkeypatch), without_vgg(monkeypatch)
    train_vae.main([*SMALL, "--adversarial", "--no-perceptual"])
    assert isinstance(called["model"], VAEGAN)
    assert called["model"].distance is None and not tried
    assert (called["betas"], called["clip"]) == ((0.5, 0.9), None)
    assert called["loss"].keywords == {"beta": 1e-6}


# --- what is wrong ---


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("--resolution 30", "30×30 does not divide by 8: a height of 24 or 32"),
        ("--resolution 30 --factor 4", "30×30 does not divide by 4: a height of 28 or 32"),
        ("--resolution 20 --plain --channels 8 8 8 8", "20×20 does not divide by 8"),
        ("--resolution 8", "8 pixels are too small to be measured: take 11 or more"),
        ("--latent-channels 49 --factor 4", "49 latent channels compress nothing"),
        ("--init-from nowhere.safetensors", "there is no file nowhere.safetensors"),
        ("--init-from model.pt", "never loaded"),
        ("--init-from cut.safetensors", "cut.safetensors is cut off"),
        ("--init-from mlp.safetensors", "mlp.safetensors holds no ConvVAE"),
        ("--init-from foreign.safetensors --evaluate", "foreign.safetensors holds no ConvVAE"),
        ("--init-from other.safetensors", "other.safetensors lacks encoder.conv_in.weight"),
        ("--init-from newer.safetensors", "newer.safetensors is of another version"),
        ("--init-from bare.safetensors", "bare.safetensors is of another version"),
    ],
)
def test_what_cannot_work_is_one_sentence_before_any_image_is_read(
    command, words, monkeypatch, place
):
    monkeypatch.chdir(place)
    weight = {"weight": torch.zeros(2)}
    headers = {
        "mlp": {"class": "MLPVAE", "config": MLPVAE(2, (4,)).config},
        "foreign": {},
        "other": {"class": "ConvVAE", "config": {"channels": [8, 16]}},
        "newer": {"class": "ConvVAE", "config": {"channels": [8, 16], "dropout": 0.1}},
        "bare": {"class": "ConvVAE"},
    }
    for name, header in headers.items():
        write_tensors(Path(f"{name}.safetensors"), weight, header)
    Path("model.pt").write_bytes(b"pickle")
    Path("cut.safetensors").write_bytes(b"\x10")
    monkeypatch.setattr(train_vae, "load_split", lambda *args: pytest.fail("images were read"))
    assert words in refusal(*command.split())


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("--folder nowhere", "nowhere is not a folder"),
        ("--batch 25", "A batch of 25 cannot be drawn from 24"),
        ("--precision fp16", "fp16"),
    ],
)
def test_what_the_data_or_the_machine_refuses_is_one_sentence(command, words, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert words in refusal(*SMALL, *command.split())


def test_three_photographs_are_too_few_and_that_shows_before_training(place, monkeypatch):
    called = without_training(monkeypatch)
    folder = photos(place / "few", train=3)
    assert "and 4 are needed: one to train on" in refusal(*BASE, "--folder", str(folder))
    assert not called


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (CourseError("The dog is gone."), "train_vae: The dog is gone."),
        (KeyboardInterrupt(), "train_vae: stopped; the same command goes on"),
        (torch.OutOfMemoryError("Tried to allocate 2 GiB"), "is full: try a smaller --batch"),
    ],
)
def test_what_stops_a_run_is_one_sentence(fault, words, monkeypatch):
    def fail(*args, **options):
        raise fault

    monkeypatch.setattr(train_vae, "fit", fail)
    assert words in refusal(*BASE)


def test_the_module_is_the_command(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_vae", "--resolution", "30"])
    monkeypatch.delitem(sys.modules, "helpers.train_vae")
    with pytest.raises(SystemExit, match="train_vae: An image of 30×30 does not divide by 8"):
        runpy.run_module("helpers.train_vae", run_name="__main__")
