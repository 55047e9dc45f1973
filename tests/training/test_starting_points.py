"""What `helpers.train_vae` begins with (runs, diffusers), and what becomes of its weights."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from helpers import train_vae
from helpers.diffusers_bridge import from_diffusers, to_diffusers
from helpers.env import ROOT
from helpers.models.conv_vae import ConvVAE, VAEConfig
from helpers.training import progress
from helpers.training.checkpoints import load_weights, read_tensors
from helpers.training.filmstrip import Filmstrip
from helpers.training.pictures import load_pictures
from helpers.training.run_state import finished_weights
from helpers.training.starting_point import load_vae
from tests.data.small_data import noise, write_photos
from tests.training.small_command import BASE, SMALL, USUAL, refusal, use, without_training
from tests.training.small_training import equal

pytestmark = pytest.mark.slow

SHOWN = ["--resolution", "16", "--channels", "8", "16", "16", "--plain"]  # SMALL, on a card
SHORT = ["--steps", "2", "--batch", "4", "--precision", "no"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    use(tmp_path, monkeypatch)
    return tmp_path


def runs(place: Path, run: str = "train_vae") -> list[Path]:
    """The folders of the runs of that name."""
    return sorted(path.parent for path in (place / "build" / "runs" / run).glob("*/history.csv"))


def exported(place: Path, name: str) -> tuple[ConvVAE, dict, str]:
    """The VAE of an export, its header, and its card."""
    file = place / "build" / "checkpoints" / f"{name}.safetensors"
    return *load_vae(file), file.with_suffix(".md").read_text(encoding="utf-8")


# --- runs ---


@pytest.fixture
def stopped(place, monkeypatch):
    """The folder of a run that was stopped after two of three epochs."""

    def stop(strip, images, epoch, save=Filmstrip.save):
        save(strip, images, epoch)
        if epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Filmstrip, "save", stop)
        refusal(*SMALL, "--epochs", "3")
    (folder,) = runs(place)
    return folder


def test_a_stopped_run_can_be_measured_and_exported(stopped, place):
    words = ["--evaluate", "--init-from", str(stopped / "best.safetensors"), "--export", "half"]
    figures = train_vae.main(words)
    vae, header, card = exported(place, "half")
    assert header["resolution"] == 16 and figures["psnr"] > 5
    best = load_vae(stopped / "best.safetensors")[0]
    assert equal(best.half().float(), vae)
    assert f"`python -m helpers.train_vae {' '.join(SHOWN)} --epochs 3`" in card
    assert "training: up to epoch 1 of a run" in card and str(place) not in card


@pytest.mark.parametrize("name", ["best", "last"])
def test_a_run_can_be_begun_with_another_ones_weights(name, stopped, monkeypatch):
    called = without_training(monkeypatch)
    train_vae.main(["--init-from", str(stopped / f"{name}.safetensors"), *SHORT])
    tensors, header = read_tensors(stopped / f"{name}.safetensors")
    group = "ema.module." if name == "last" else ""  # the averaged ones, as `fit` leaves them
    weights = called["model"].state_dict()
    assert all(torch.equal(tensors[group + key], value) for key, value in weights.items())
    assert header["class"] == "ConvVAE" and header["config"]["channels"] == [8, 16, 16]
    assert called["validation"].images.shape[2:] == (16, 16)


def test_the_vae_of_an_adversarial_run_leaves_its_discriminator_behind(place):
    words = ["--adversarial", "--no-perceptual", "--run", "sharp", "--ema", "0"]
    train_vae.main([*SMALL, *SHORT, *words])
    (folder,) = runs(place, "sharp")
    one, other = (load_vae(folder / f"{name}.safetensors")[0] for name in ("best", "last"))
    assert equal(one, other)


def test_a_finished_run_is_continued_and_that_can_be_stopped_too(place, monkeypatch, capsys):
    assert "there is no finished run train_vae" in refusal("--continue", *SHORT)
    train_vae.main([*SMALL, *SHORT])
    (first,) = runs(place)

    def stop(strip, images, epoch):
        os.kill(os.getpid(), signal.SIGINT)

    words = ["--continue", "--steps", "7", "--batch", "4", "--lr", "1e-8", "--precision", "no"]
    with monkeypatch.context() as patch:
        patch.setattr(Filmstrip, "save", stop)
        refusal(*words)  # after its first epoch, of six steps
    assert finished_weights("train_vae") == first / "last.safetensors"
    capsys.readouterr()
    train_vae.main(words)
    (second,) = set(runs(place)) - {first}
    printed = capsys.readouterr().out
    assert f"continuing        {first / 'last.safetensors'}\n" in printed
    assert f"{second.name} found: going on at epoch 2, step 1" in printed
    assert finished_weights("train_vae") == second / "last.safetensors"
    one, other = (load_vae(run / "last.safetensors")[0] for run in (first, second))
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=1e-5)
    assert not equal(one, other)


# --- diffusers ---


@pytest.fixture(scope="module")
def autoencoder() -> AutoencoderKL:
    """A small one, with a scaling factor of its own."""
    torch.manual_seed(1)
    vae = ConvVAE(VAEConfig((8, 8, 8), blocks=1, groups=2, scaling_factor=0.18215))
    return to_diffusers(vae, sample_size=16)


@pytest.fixture
def library(autoencoder, place) -> Path:
    """It as a folder of diffusers."""
    autoencoder.save_pretrained(place / "library")
    return place / "library"


def test_a_folder_of_diffusers_is_a_beginning(library, autoencoder, monkeypatch):
    called = without_training(monkeypatch)
    figures = train_vae.main(["--init-from", str(library), *SHORT])
    assert equal(called["model"], from_diffusers(autoencoder))
    assert figures["dimensions"] == 4 * 4 * 4  # at the resolution that it says
    (library.parent / "pipeline").mkdir()
    shutil.move(library, library.parent / "pipeline" / "vae")
    words = ["--init-from", str(library.parent / "pipeline"), "--evaluate"]
    again = train_vae.main(words)
    assert again["psnr"] == pytest.approx(figures["psnr"], abs=1e-4)
    assert again["scaling_factor"] == 0.18215 != figures["scaling_factor"], "that was trained"


def test_the_shipped_pipelines_vae_is_a_beginning():
    words = ["--evaluate", "--init-from", str(ROOT / "data" / "checkpoints" / "tiny-sd")]
    assert train_vae.main([*words, "--resolution", "16"])["dimensions"] == 8 * 2 * 2


def test_a_name_on_hugging_face_is_asked_there(library, monkeypatch):
    asked = []
    load, read = AutoencoderKL.from_pretrained, AutoencoderKL.load_config

    def load_config(name, subfolder=None, **options):
        return read(library, **options)

    monkeypatch.setattr("huggingface_hub.file_exists", lambda name, file: name == "ada/pipeline")

    def from_pretrained(name, **options):
        asked.append((name, options.pop("subfolder", None), options["use_safetensors"]))
        return load(library, **options)

    monkeypatch.setattr(AutoencoderKL, "from_pretrained", from_pretrained)
    monkeypatch.setattr(AutoencoderKL, "load_config", load_config)
    for name in ("ada/vae", "ada/pipeline"):
        train_vae.main(["--evaluate", "--init-from", name])
    assert asked == [("ada/vae", None, True), ("ada/pipeline", "vae", True)]


def cut_off(folder: Path) -> None:
    file = folder / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def leave_out_a_weight(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["decoder.conv_in.weight"]
    save_file(tensors, file)


def another_class(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["_class_name"] = "AutoencoderTiny"
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (cut_off, "no AutoencoderKL of diffusers could be had from"),
        (leave_out_a_weight, "lacks decoder.conv_in.weight"),
        (another_class, "holds a AutoencoderTiny and no AutoencoderKL"),
        (lambda folder: (folder / "config.json").unlink(), "could be had from"),
    ],
)
def test_what_is_no_autoencoder_of_diffusers_is_one_sentence(library, change, words):
    change(library)
    assert words in refusal("--evaluate", "--init-from", str(library))


def test_without_a_network_a_name_is_one_sentence(monkeypatch):
    def file_exists(name, file):
        raise OSError("no network\nhere")

    monkeypatch.setattr("huggingface_hub.file_exists", file_exists)
    text = refusal("--evaluate", "--init-from", "ada/vae")
    assert "could be had from ada/vae (no network here)" in text


# --- the decoder alone ---


def test_with_a_frozen_encoder_the_decoder_learns_and_diffusers_loads_the_result(
    library, autoencoder, place
):
    words = ["--init-from", str(library), "--freeze", "encoder", *SHORT, "--export", "decoder"]
    figures = train_vae.main(words)
    assert figures["scaling_factor"] == 0.18215
    vae, header, card = exported(place, "decoder")
    assert vae.config.scaling_factor == 0.18215 and "weights: float32; the encoder" in card

    again = AutoencoderKL.from_pretrained(place / "build" / "checkpoints" / "decoder")
    assert again.config.scaling_factor == 0.18215
    assert again.config.latents_mean is None, "pipelines would move the latents by it"
    before, after = autoencoder.state_dict(), again.state_dict()
    kept = [name for name in before if name.startswith(("encoder.", "quant_conv."))]
    assert all(torch.equal(before[name], after[name]) for name in kept)
    learned = [name for name in before if name not in kept]
    assert not any(torch.equal(before[name], after[name]) for name in learned)
    pixels = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        z = again.encode(2 * pixels - 1).latent_dist.mode()
        torch.testing.assert_close(vae.encode(pixels).mode(), z, rtol=0, atol=1e-5)
        decoded = (again.decode(z).sample + 1) / 2
        torch.testing.assert_close(vae.decode(z), decoded, rtol=0, atol=1e-5)


def test_a_frozen_encoder_keeps_its_half_of_the_linear_shortcut(place):
    train_vae.main([*USUAL, "--export", "usual"])
    before = exported(place, "usual")[0].state_dict()
    words = ["--init-from", str(place / "build" / "checkpoints" / "usual.safetensors")]
    train_vae.main([*words, "--freeze", "encoder", *SHORT, "--export", "decoder"])
    after = exported(place, "decoder")[0].state_dict()
    kept = {name for name in before if name.startswith(("encoder.", "linear.encode."))}
    assert {name for name in before if torch.equal(before[name], after[name])} == kept


def test_a_stopped_run_with_a_frozen_encoder_is_exported_as_it_is(library, place):
    train_vae.main(["--init-from", str(library), "--freeze", "encoder", *SHORT])
    (folder,) = runs(place)
    words = ["--evaluate", "--init-from", str(folder / "best.safetensors"), "--export", "half"]
    assert train_vae.main(words)["scaling_factor"] == 0.18215
    assert equal(exported(place, "half")[0], load_vae(folder / "best.safetensors")[0])


def test_an_export_is_also_a_folder_for_diffusers_in_fp16(place):
    train_vae.main([*BASE, "--export", "tiny"])
    folder = place / "build" / "checkpoints" / "tiny"
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        (place / "build" / "checkpoints" / "tiny.md").stat().st_mode & 0o777
    }
    again = from_diffusers(AutoencoderKL.from_pretrained(folder))
    stored = ConvVAE(again.config)
    load_weights(stored, folder.with_suffix(".safetensors"))
    assert equal(again, stored)
    words = ["--evaluate", "--init-from", f"{folder}.safetensors", "--export", "tiny"]
    train_vae.main(words)  # over the old one
    assert not list(folder.parent.glob("*.part"))


# --- pictures and curves ---


def test_photographs_are_reconstructed_side_by_side(library, place, capsys):
    write_photos(place / "photos", 3, size=(20, 24))
    noise(40, 30, seed=9).save(place / "one.jpg")
    words = ["--init-from", str(library), "--reconstruct", str(place / "one.jpg")]
    assert train_vae.main([*words, str(place / "photos")]) is None
    folder = place / "build" / "reconstructions" / "library"
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    photos = ["photos/000.png.png", "photos/002.png.png", "photos/more-001.png.png"]
    assert names == sorted([f"{place.name}/one.jpg.png", *photos])
    picture = np.array(Image.open(folder / "photos" / "000.png.png"))
    original = load_pictures(place / "photos", 16).images[0].movedim(0, 2).numpy()
    assert picture.shape == (16, 32, 3) and np.array_equal(picture[:, :16], original)
    printed = capsys.readouterr().out
    assert re.findall(r"^(\S+) +(\d) × \d+\.\d\d dB, in /", printed, re.M) == [
        ("one.jpg", "1"),
        ("photos", "3"),
    ]
    assert not (place / "build" / "runs").exists()


def test_a_photograph_that_cannot_be_read_is_one_sentence(library, place):
    (place / "no.jpg").write_text("no")
    words = ["--init-from", str(library), "--reconstruct"]
    assert "no.jpg cannot be read (no known image format)" in refusal(*words, str(place / "no.jpg"))
    assert "cannot be read (No such file" in refusal(*words, str(place / "gone.jpg"))


class Tracker:
    """In place of Accelerate's Accelerator; notes what it is told."""

    told: list = []

    def __init__(self, **options):
        self.told.append(options)

    def init_trackers(self, name, init_kwargs):
        self.told.append(init_kwargs)

    def log(self, row, step):
        self.told.append((step, set(row)))


def test_curves_for_tensorboard(monkeypatch, place):
    monkeypatch.setattr("helpers.training.options.is_tensorboard_available", lambda: True)
    monkeypatch.setattr(progress, "Accelerator", Tracker)
    monkeypatch.setattr(Tracker, "told", [])
    train_vae.main([*SMALL, "--epochs", "2", "--log-with", "tensorboard", "--precision", "no"])
    options, settings, *rows = Tracker.told
    folder = place / "build" / "runs" / "train_vae" / "tensorboard"
    assert options == {"log_with": "tensorboard", "project_dir": folder}
    assert settings == {"tensorboard": {"purge_step": 1}}
    assert [step for step, _ in rows] == [1, 2]
    assert all({"loss", "val_loss", "kl", "psnr", "lr"} <= names for _, names in rows)
