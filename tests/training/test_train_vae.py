"""The command line: trains, goes on, measures, exports; and what it says to a wrong option.

`python -m tests.test_train_dogs OPTIONS` is the command with fewer drawn dogs, for the tests that need a process.
"""

import contextlib
import csv
import io
import itertools
import math
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from helpers import CourseError
from helpers import train_vae as train_dogs
from helpers.data.datasets import DRAWN_DOGS, load_dogs
from helpers.data.image_folder import split_of
from helpers.metrics.images import measure_reconstructions
from helpers.models.conv_vae import ConvVAE, VAEConfig
from helpers.models.discriminator import VAEGAN
from helpers.models.losses import gaussian_nll
from helpers.models.mlp_vae import MLPVAE
from helpers.training.checkpoints import load_weights, read_tensors, write_tensors
from helpers.training.history import History
from helpers.training.options import GROUPS, parse, typed
from tests.data.small_data import noise, write_photos
from tests.tools.common import ROOT

pytestmark = pytest.mark.slow

FEW = {"train": 60, "validation": 6, "test": 9}
SMALL = ["--resolution", "16", "--widths", "8", "16", "16"]
BASE = [*SMALL, "--factor", "4", "--steps", "4", "--batch", "4"]


def use(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Few drawn dogs, and all that is written goes below `folder`."""
    for split, count in FEW.items():
        patch.setitem(DRAWN_DOGS, split, count)
    for name in ("BUILD", "DATA"):
        patch.setenv(f"COURSE_{name}", str(folder / name.lower()))


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    use(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """What a run with --export leaves: its folder, file, model card, figures, and what it printed."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        use(folder, patch)
        figures = train_dogs.main([*BASE, "--export", "tiny"])
    file = folder / "build" / "checkpoints" / "tiny.safetensors"
    card = file.with_suffix(".md").read_text(encoding="utf-8")
    return SimpleNamespace(folder=folder, file=file, card=card, figures=figures, printed=printed.getvalue())


def same(one: dict, other: dict, rel: float) -> bool:
    return one["source"] == other["source"] and all(
        one[name] == pytest.approx(other[name], rel) for name in {*one, *other} - {"source"}
    )


def without_training(monkeypatch) -> dict:
    """`fit` notes what it is called with, and trains nothing."""
    called = {}

    def fit(model, loss, train, **options):
        called.update(options, model=model, loss=loss, train=train)
        return History([{"epoch": 1, "seconds": 90.0}])

    monkeypatch.setattr(train_dogs, "fit", fit)
    return called


def without_vgg(monkeypatch) -> list:
    """VGG16 cannot be had; each attempt is noted."""
    from torchvision.models import VGG16_Weights

    tried = []

    def fail(*args, **kwargs):
        tried.append(kwargs)
        raise OSError("no route to host")

    monkeypatch.setattr(VGG16_Weights, "get_state_dict", fail)
    return tried


# --- help ---


def test_help_says_what_every_option_does(capsys):
    with pytest.raises(SystemExit) as end:
        train_dogs.main(["--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0 and all(group in text for group in ("images:", "network:", "how long", "recipe:", "result:"))
    for option in vars(parse([])):
        words = re.search(rf"^  --{option.replace('_', '-')}\b[^\n]*?(?:  +|\n +)(\w[^\n]+)", text, re.M)
        assert words and len(words[1].split()) >= 2, option
    assert max(map(len, text.splitlines())) <= 95


def test_the_examples_of_the_help_are_accepted():
    commands = re.findall(r"helpers\.train_dogs (.*)\n", train_dogs.__doc__.replace("\\\n", ""))
    assert len(commands) == 3
    for command in commands:
        parse(shlex.split(command))


# --- a run ---


def test_a_run_reports_and_exports(exported):
    figures = exported.figures
    assert all(math.isfinite(value) for name, value in figures.items() if name != "source")
    assert figures["numbers"] == 4 * 4 * 4 and figures["source"] == "9 images; drawn dogs, embedded"
    lines = dict(re.findall(r"^(\w[\w ]*?)  +(.*)$", exported.printed, re.M))
    assert lines["PSNR"].startswith(
        f"{figures['psnr']:.2f} dB (block PCA of equal rate: {figures['block_pca_psnr']:.2f} dB)"
    )
    assert lines["scaling factor"] == f"{figures['scaling_factor']:.4f}" and lines["SSIM"] == f"{figures['ssim']:.3f}"
    assert lines["written"].startswith(str(exported.file))
    assert sorted(path.name for path in exported.file.parent.iterdir()) == ["tiny.md", "tiny.safetensors"]
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


def test_the_model_card_loads_the_model_and_says_how_it_was_made(exported, monkeypatch):
    monkeypatch.chdir(exported.file.parent)
    (code,) = re.findall(r"```python\n(.*?)```", exported.card, re.S)
    space = {}
    exec(code, space)
    assert isinstance(space["model"], ConvVAE) and not space["model"].training
    stored = read_tensors(exported.file)[0]
    assert all(torch.equal(value, stored[name].float()) for name, value in space["model"].state_dict().items())
    (command,) = re.findall(r"`python -m helpers.train_dogs (.*?)`", exported.card)
    assert parse(shlex.split(command)) == parse([*BASE, "--export", "tiny"])
    assert train_dogs.report(exported.figures) in exported.card and str(exported.folder) not in exported.card


def test_the_history_has_the_psnr_of_the_filmstrip(exported):
    (file,) = (exported.folder / "build" / "runs" / "train_dogs").glob("*/history.csv")
    (row,) = csv.DictReader(file.open())
    assert float(row["psnr"]) > 5 and float(row["val_loss"]) != 0
    assert len(list(file.parent.parent.glob("filmstrip/*/0001.png"))) == 1


def test_the_same_command_again_finds_the_run_finished(exported, monkeypatch, capsys):
    use(exported.folder, monkeypatch)
    assert same(train_dogs.main(BASE), exported.figures, rel=0.02)  # in fp32
    assert "it is finished and loaded" in capsys.readouterr().out


def test_evaluate_gives_the_same_figures_from_a_path_relative_to_the_current_directory(exported, monkeypatch, place):
    monkeypatch.chdir(exported.file.parent)
    called = without_training(monkeypatch)
    assert same(train_dogs.main(["--evaluate", "--start", "tiny.safetensors"]), exported.figures, rel=1e-6)
    assert not called and not (place / "build").exists()


def test_start_goes_on_with_the_weights_of_a_file(exported):
    figures = train_dogs.main(["--start", str(exported.file), "--steps", "1", "--lr", "1e-8", "--precision", "no"])
    assert figures["psnr"] == pytest.approx(exported.figures["psnr"], abs=1e-3) and figures["numbers"] == 64


def test_resolution_overrides_that_of_start(exported):
    assert train_dogs.main(["--start", str(exported.file), "--evaluate", "--resolution", "24"])["numbers"] == 4 * 6 * 6


def test_own_pictures(place):
    write_photos(place / "mine", 80, size=(20, 30))
    figures = train_dogs.main([*BASE, "--folder", str(place / "mine"), "--export", "mine"])
    held_out = [
        path for path in (place / "mine").rglob("*.png") if split_of(path.relative_to(place / "mine").as_posix()) == "test"
    ]
    assert figures["source"] == f"{len(held_out)} images; folder mine"
    card = (place / "build" / "checkpoints" / "mine.md").read_text(encoding="utf-8")
    assert "--folder mine" in card and str(place) not in card


def test_own_pictures_are_split_by_their_names(place, monkeypatch):
    write_photos(place / "mine", 80, size=(20, 30))
    called = without_training(monkeypatch)
    train_dogs.main([*BASE, "--folder", str(place / "mine")])
    assert {split_of(name) for name in called["train"].names} == {"train"}
    assert {split_of(name) for name in called["validation"].names} == {"validation"}


def test_too_few_own_pictures_show_before_training(place, monkeypatch):
    (place / "mine").mkdir()
    names = [name for name in (f"{i}.png" for i in range(40)) if split_of(name) == "train"]
    for number, name in enumerate(names):
        noise(20, 20, seed=number).save(place / "mine" / name)
    called = without_training(monkeypatch)
    with pytest.raises(SystemExit, match="falls into the test split"):
        train_dogs.main([*BASE, "--folder", str(place / "mine")])
    assert not called


# --- options ---


def test_options_reach_the_training(monkeypatch):
    called = without_training(monkeypatch)
    words = "--epochs 7 --batch 6 --accumulate 3 --lr 0.01 --ema 0.9 --seed 5 --precision no --run mine --recompute"
    figures = train_dogs.main([*SMALL, *words.split(), "--loss", "mse", "--beta", "0.25", "--latent-channels", "2"])
    wanted = {"minutes": None, "steps": None, "epochs": 7, "batch_size": 6, "accumulate": 3, "lr": 0.01, "ema": 0.9,
              "seed": 5, "precision": "no", "run": "mine"}  # fmt: skip
    assert {name: called[name] for name in wanted} == wanted and "betas" not in called
    assert called["loss"].keywords["beta"] == 0.25 and called["loss"].keywords["nll"].func is gaussian_nll
    assert all(stage.recompute for stage in called["model"].encoder.stages)
    assert figures["numbers"] == 2 * 4 * 4 and len(called["validation"]) == FEW["validation"]


def test_the_defaults(monkeypatch):
    called = without_training(monkeypatch)
    train_dogs.main(["--resolution", "16"])
    assert (called["minutes"], called["steps"], called["epochs"]) == (20.0, None, None)
    assert called["model"].settings == VAEConfig.course(8) and called["loss"].keywords["beta"] == 0.1
    assert called["ema"] is None and len(called["train"]) == FEW["train"]


def test_the_seed_decides_on_the_first_weights(monkeypatch):
    called, first = without_training(monkeypatch), {}
    for seed in ("0", "0", "1"):
        train_dogs.main([*SMALL, "--seed", seed])
        first.setdefault(seed, []).append(called["model"].encoder.conv_in.weight.clone())
    assert torch.equal(*first["0"]) and not torch.equal(first["0"][0], first["1"][0])


def test_zoom_trains_on_squares_of_larger_images(monkeypatch):
    called = without_training(monkeypatch)
    train_dogs.main([*SMALL, "--zoom", "1.5"])
    assert called["train"].images.shape[2:] == (24, 24) and called["validation"].images.shape[2:] == (16, 16)
    cropped = called["augment"](called["train"].pixels(), torch.Generator().manual_seed(0))
    assert cropped.shape[2:] == (16, 16)


def test_the_options_as_they_are_typed():
    words = "--folder photos --widths 8 16 --steps 3 --lr 0.0012345 --beta 0 --adversarial"
    assert typed(parse(words.replace("photos", "/home/ada/photos").split())) == words
    assert typed(parse([])) == ""
    assert typed(parse(["--folder", "/home/ada/my photos"])) == "--folder 'my photos'"


def test_adversarial_goes_on_without_vgg16(monkeypatch, capsys, place):
    tried = without_vgg(monkeypatch)
    figures = train_dogs.main([*SMALL, "--adversarial", "--steps", "2", "--batch", "4", "--export", "judged"])
    printed = capsys.readouterr().out.splitlines()
    assert tried and math.isfinite(figures["psnr"])
    (sentence,) = (line for line in printed if "VGG16" in line)
    assert "no route to host" in sentence and sentence.endswith("This run goes on without it.")
    (file,) = (place / "build" / "runs" / "train_dogs").glob("*/history.csv")
    (row,) = csv.DictReader(file.open())
    assert {"discriminator", "fooling", "val_loss", "psnr"} <= set(row)
    stored, header = read_tensors(place / "build" / "checkpoints" / "judged.safetensors")
    assert header["class"] == "ConvVAE" and not any("discriminator" in name for name in stored)
    assert "VGG16 could not be had" in (place / "build" / "checkpoints" / "judged.md").read_text(encoding="utf-8")


def test_the_adversarial_recipe_is_the_published_one_and_can_do_without_vgg16(monkeypatch):
    called, tried = without_training(monkeypatch), without_vgg(monkeypatch)
    train_dogs.main([*SMALL, "--adversarial", "--no-perceptual"])
    assert isinstance(called["model"], VAEGAN) and called["model"].distance is None and not tried
    assert (called["betas"], called["clip"], called["loss"].keywords) == ((0.5, 0.9), None, {"beta": 1e-6})
    train_dogs.main([*SMALL, "--adversarial", "--no-perceptual", "--beta", "0.5"])
    assert called["loss"].keywords == {"beta": 0.5}


# --- what is wrong ---

WRONG = {
    "--steps 0": "argument --steps: '0' is not a whole number of 1 or more",
    "--steps -3": "argument --steps: '-3' is not a whole number",
    "--steps 1.5": "argument --steps: '1.5' is not a whole number",
    "--epochs 0": "argument --epochs: '0'",
    "--minutes 0": "argument --minutes: '0' is not a number",
    "--minutes inf": "argument --minutes: 'inf' is not a number",
    "--batch 0": "argument --batch: '0'",
    "--batch many": "argument --batch: 'many'",
    "--resolution 0": "argument --resolution: '0'",
    "--resolution -64": "argument --resolution: '-64'",
    "--lr nan": "argument --lr: 'nan' is not a number",
    "--ema 1": "argument --ema: '1' is not a number of 0 or more and below 1",
    "--zoom 0.5": "argument --zoom: '0.5'",
    "--seed 99999999999999999999": "argument --seed: '99999999999999999999' is not a whole number of 0 or more and below",
    "--export ../elsewhere": "argument --export: '../elsewhere' is not a plain name",
    "--run .": "argument --run: '.' is not a plain name",
    "--factor 5": "argument --factor: invalid choice: 5",
    "--steps 3 --epochs 2": "not allowed with argument",
    f"--widths 8 {GROUPS + 1}": f"--widths must be multiples of {GROUPS}",
    "--widths 8 16 --factor 8": "--factor 8 and 2 --widths disagree",
    "--evaluate": "--evaluate needs --start, the weights to measure",
    "--evaluate --start x.safetensors --export y": "leave out --export",
    "--start x.safetensors --factor 4": "--start brings its network along",
    "--adversarial --loss mse": "leave out --loss",
    "--no-perceptual": "--adversarial",
    "--batch 8 --accumulate 3": "--accumulate 3 does not divide --batch 8",
}


@pytest.mark.parametrize("command", WRONG)
def test_a_wrong_option_is_one_sentence_and_exit_code_2(command, capsys):
    with pytest.raises(SystemExit) as end:
        train_dogs.main(command.split())
    usage, sentence = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and usage == "usage: python -m helpers.train_dogs [options]"
    assert WRONG[command] in sentence


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("--resolution 30", "30×30 does not divide by 8: a height of 24 or 32"),
        ("--resolution 30 --factor 4", "30×30 does not divide by 4: a height of 28 or 32"),
        ("--resolution 20 --widths 8 8 8 8", "20×20 does not divide by 8"),
        ("--resolution 8", "8 pixels are too small to be measured: take 11 or more"),
        ("--latent-channels 49 --factor 4", "49 latent channels compress nothing"),
        ("--start nowhere.safetensors", "there is no file nowhere.safetensors"),
        ("--start model.pt", "never loaded"),
        ("--start cut.safetensors", "cut.safetensors is cut off"),
        ("--start mlp.safetensors", "mlp.safetensors holds no ConvVAE"),
        ("--start foreign.safetensors --evaluate", "foreign.safetensors holds no ConvVAE"),
        ("--start other.safetensors", "other.safetensors lacks encoder.conv_in.weight"),
        ("--start newer.safetensors", "newer.safetensors is of another version"),
        ("--start bare.safetensors", "bare.safetensors is of another version"),
    ],
)
def test_what_cannot_work_is_one_sentence_before_any_image_is_read(command, words, monkeypatch, place):
    monkeypatch.chdir(place)
    Path("model.pt").write_bytes(b"pickle")
    Path("cut.safetensors").write_bytes(b"\x10")
    write_tensors(Path("mlp.safetensors"), {}, {"class": "MLPVAE", "config": MLPVAE(2, (4,)).config})
    write_tensors(Path("foreign.safetensors"), {"weight": torch.zeros(2)}, {})
    write_tensors(Path("other.safetensors"), {"weight": torch.zeros(2)}, {"class": "ConvVAE", "config": ConvVAE().config})
    write_tensors(Path("newer.safetensors"), {}, {"class": "ConvVAE", "config": ConvVAE().config | {"dropout": 0.1}})
    write_tensors(Path("bare.safetensors"), {}, {"class": "ConvVAE"})
    monkeypatch.setattr(train_dogs, "load", lambda *args: pytest.fail("images were read"))
    with pytest.raises(SystemExit) as end:
        train_dogs.main(command.split())
    text = end.value.code  # Python prints it to stderr, and exits with 1
    assert text.startswith("train_dogs: ") and words in text and "\n" not in text


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("--folder nowhere", "nowhere is not a folder"),
        ("--batch 61", "A batch of 61 images cannot be drawn from 60"),
        ("--precision fp16", "fp16"),
    ],
)
def test_what_the_data_or_the_machine_refuses_is_one_sentence(command, words, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as end:
        train_dogs.main([*SMALL, *command.split()])
    assert words in end.value.code and "\n" not in end.value.code


def name_in(split: str, number: int = 0) -> str:
    """The name of a picture that belongs to a split."""
    names = (f"{i}.png" for i in itertools.count())
    return next(itertools.islice((name for name in names if split_of(name) == split), number, None))


def photos(folder: Path, **counts: int) -> Path:
    """Pictures, so many of each split, and a file for training that is none."""
    folder.mkdir()
    for split, count in counts.items():
        for i in range(count):
            noise(20, 24, seed=1000 * len(split) + i).save(folder / name_in(split, i))
    (folder / name_in("train", 99)).write_bytes(b"no picture")
    return folder


def test_one_held_out_picture_is_too_few(place):
    folder = photos(place / "few", train=8, validation=2, test=1)
    with pytest.raises(SystemExit) as end:
        train_dogs.main([*BASE, "--folder", str(folder)])
    assert "Only one image is held out" in end.value.code and "\n" not in end.value.code


def test_a_skipped_file_is_named_once_though_the_training_images_are_read_twice(place, capsys):
    folder = photos(place / "some", train=8, validation=2, test=2)
    train_dogs.main([*BASE, "--folder", str(folder), "--zoom", "1.5"])
    assert capsys.readouterr().out.count("skipped") == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (CourseError("The dog is gone."), "train_dogs: The dog is gone."),
        (KeyboardInterrupt("stopped after 3 epochs"), "train_dogs: stopped after 3 epochs; the same command goes on"),
        (KeyboardInterrupt(), "train_dogs: stopped; the same command goes on"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "memory is full: try a smaller --batch"),
    ],
)
def test_what_stops_a_run_is_one_sentence(fault, words, monkeypatch):
    def fail(*args, **options):
        raise fault

    monkeypatch.setattr(train_dogs, "fit", fail)
    with pytest.raises(SystemExit) as end:
        train_dogs.main(BASE)
    assert words in end.value.code and "\n" not in end.value.code


# --- processes ---


def start(module: str, *words: str, **environment: str) -> subprocess.Popen:
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-m", module, *words]
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_command_fails_with_exit_code_1_and_one_line():
    process = start("helpers.train_dogs", "--resolution", "30")
    printed, said = process.communicate(timeout=60)
    assert (process.returncode, printed) == (1, "")
    assert said.startswith("train_dogs: ") and said.count("\n") == 1


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no such signal")
def test_a_killed_run_goes_on_and_ends_as_an_undisturbed_one(place, capsys):
    words = [*SMALL, "--steps", "70", "--batch", "8"]
    undisturbed = train_dogs.main([*words, "--run", "undisturbed"])
    process = start("tests.test_train_dogs", *words, "--run", "killed")
    runs, end = place / "build" / "runs" / "killed", time.monotonic() + 60
    while not list(runs.glob("*/last.safetensors")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it ended before it was killed"
    (last,) = runs.glob("*/last.safetensors")
    assert 1 <= read_tensors(last)[1]["epoch"] < 10
    capsys.readouterr()
    assert train_dogs.main([*words, "--run", "killed"]) == undisturbed
    assert re.search(r"Run killed/\w+ found: going on at epoch \d+, step 1\.", capsys.readouterr().out)


def test_of_two_processes_one_reports_and_exports(place):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    base = [*BASE, "--folder", str(photos(place / "photos", train=60, validation=6, test=9)), "--precision", "no"]
    words = [*base, "--export", "pair"]
    pair = [start("tests.test_train_dogs", *words, RANK=str(i), LOCAL_RANK=str(i), **common) for i in (0, 1)]
    try:
        told = [process.communicate(timeout=100) for process in pair]
    finally:
        for process in pair:
            process.kill()
    assert [process.returncode for process in pair] == [0, 0], told
    assert all(told[0][0].count(word) == 1 for word in ("skipped", "PSNR", "written")) and told[1][0] == ""
    assert "Traceback" not in told[0][1] + told[1][1]
    header = read_tensors(place / "build" / "checkpoints" / "pair.safetensors")[1]
    alone = train_dogs.main([*base, "--export", "alone"])
    assert same(header["figures"], alone, rel=1e-3)


if __name__ == "__main__":
    DRAWN_DOGS.update(FEW)
    train_dogs.main()
