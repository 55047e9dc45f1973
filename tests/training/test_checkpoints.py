"""Checkpoint files: whole or not there, refused in one sentence, never a pickle; run folders."""

import errno
import functools
import json
import multiprocessing
import os
import stat
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from helpers import CourseError
from helpers.env import ROOT
from helpers.models.conv_vae import ConvVAE, VAEConfig
from helpers.models.mlp_vae import MLPVAE, Autoencoder
from helpers.training import checkpoints
from helpers.training.checkpoints import (
    load_shipped,
    load_weights,
    nest,
    read_tensors,
    run_folder,
    save_model,
    unnest,
    write_library,
    write_tensors,
)
from tests.training.small_training import equal


def refusal(function, *arguments) -> str:
    """The one sentence with which a call is refused."""
    with pytest.raises(CourseError) as error:
        function(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def saved(tmp_path):
    """A file with the weights of a small model, and the model."""
    model = MLPVAE(2, (4,))
    header = {"class": "MLPVAE", "config": model.config}
    return write_tensors(tmp_path / "vae.safetensors", model.state_dict(), header), model


# --- files ---


def test_tensors_and_header_come_back(tmp_path):
    tensors = {
        "float": torch.randn(3, 4),
        "double": torch.randn(2).double(),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "scalar": torch.tensor(1.5),
        "transposed": torch.randn(3, 4).T,
        "half": torch.randn(3).bfloat16(),
        "grad": torch.randn(3, requires_grad=True),
    }
    header = {"epoch": 3, "lr": 0.1 + 0.2, "history": [{"loss": 1e-17}], "none": None}
    path = write_tensors(tmp_path / "new" / "x.safetensors", tensors, header)
    again, told = read_tensors(path)
    assert told == header and set(again) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(again[name], tensor) and again[name].dtype == tensor.dtype
    assert [p.name for p in path.parent.iterdir()] == ["x.safetensors"]


def test_tied_weights_can_be_saved(tmp_path):
    layer = nn.Linear(3, 3)
    tied = nn.Sequential(layer, layer)
    again = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    load_weights(again, write_tensors(tmp_path / "x.safetensors", tied.state_dict(), {}))
    assert equal(tied, again)


def test_a_failed_write_is_one_sentence_and_leaves_the_old_file_and_no_half_one(saved, monkeypatch):
    path, _ = saved

    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    text = refusal(write_tensors, path, {"a": torch.zeros(3)}, {})
    assert "vae.safetensors could not be written (No space left on device)" in text
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    load_weights(MLPVAE(2, (4,)), path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_the_modes_of_files_and_of_a_librarys_folder_follow_the_umask(tmp_path):
    def fill(folder):
        (folder / "unet").mkdir(parents=True)
        save_file({"a": torch.zeros(2)}, folder / "unet" / "model.safetensors")
        os.chmod(folder / "unet" / "model.safetensors", 0o600)  # as some versions leave it

    before = os.umask(0o022)
    try:
        file = write_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(2)}, {})
        folder = write_library(tmp_path / "pipeline", fill)
    finally:
        os.umask(before)
    assert [stat.S_IMODE(f.stat().st_mode) for f in (file, *folder.rglob("*.safetensors"))] == (
        [0o644] * 2
    )


def test_a_folder_is_written_whole_beside_what_is_there_or_not_at_all(tmp_path):
    def fill(folder, text="new"):
        (folder / "vae").mkdir(parents=True)
        (folder / "vae" / "config.json").write_text(text, encoding="utf-8")
        if text == "full":
            raise OSError(errno.ENOSPC, "No space left on device")

    folder = tmp_path / "checkpoints" / "mine"
    folder.mkdir(parents=True)
    (folder / "my notes").touch()
    assert write_library(folder, fill) == folder
    text = refusal(write_library, folder, functools.partial(fill, text="full"))
    assert "mine could not be written (No space left on device)" in text
    assert (folder / "vae" / "config.json").read_text(encoding="utf-8") == "new"
    assert (folder / "my notes").exists() and list(folder.parent.iterdir()) == [folder]
    (tmp_path / "file").touch()
    assert "could not be written" in refusal(write_library, tmp_path / "file" / "mine", fill)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(saved, keep):
    path, model = saved
    path.write_bytes(path.read_bytes()[:keep])
    before = {k: v.clone() for k, v in model.state_dict().items()}
    text = refusal(load_weights, model, path)
    assert "vae.safetensors is cut off" in text and str(path.parent) not in text
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_missing_file_says_where_it_comes_from(tmp_path):
    text = refusal(read_tensors, tmp_path / "gone.safetensors")
    assert "gone.safetensors is not there" in text and str(tmp_path) not in text


def test_a_folder_is_refused(tmp_path):
    (tmp_path / "x.safetensors").mkdir()
    assert "x.safetensors" in refusal(read_tensors, tmp_path / "x.safetensors")


class Trap:
    """A pickle of it would make a folder when it is loaded."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("name", ["model.pt", "model.pkl", "model.bin", "model.safetensors"])
def test_a_pickle_is_never_loaded(tmp_path, name):
    sprung = tmp_path / "sprung"
    torch.save({"encoder.0.weight": Trap(sprung)}, tmp_path / name)
    text = refusal(load_weights, MLPVAE(2, (4,)), tmp_path / name)
    assert name in text and not sprung.exists()
    assert "pickle" in text or "safetensors" in text


# --- models ---


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("decoder.0.bias"), ("lacks decoder.0.bias",)),
        (lambda t: t.update(extra=torch.zeros(2)), ("holds extra", "MLPVAE")),
        (
            lambda t: t.update({"encoder.2.bias": torch.zeros(9)}),
            ("encoder.2.bias", "(9,)", "(4,)"),
        ),
        (lambda t: (t.clear(), t.update(other=torch.zeros(2))), ("lacks encoder.0.weight",)),
    ],
)
def test_a_foreign_file_is_refused_by_its_first_wrong_key(saved, change, words):
    path, model = saved
    tensors = dict(MLPVAE(2, (4,)).state_dict())
    change(tensors)
    write_tensors(path, tensors, {})
    before = {k: v.clone() for k, v in model.state_dict().items()}
    text = refusal(load_weights, model, path)
    assert "vae.safetensors" in text and all(word in text for word in words)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()), "half loaded"


def test_a_model_of_another_size_is_told_how_it_was_made(saved):
    text = refusal(load_weights, MLPVAE(3, (4,)), saved[0])
    assert "MLPVAE({'latent': 2, 'hidden': [4]})" in text


def test_weights_are_loaded_and_the_header_returned(saved):
    path, model = saved
    again = MLPVAE(2, (4,))
    assert load_weights(again, str(path))["class"] == "MLPVAE"
    assert equal(model, again)


@pytest.mark.parametrize("name", ["../mine", "/tmp/mine", "a/b", "..", "", None])
def test_a_name_cannot_lead_out_of_the_folder(runs, tmp_path, monkeypatch, name):
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path / "build"))
    for write in (lambda: save_model(name, MLPVAE(2, (4,))), lambda: run_folder(name, PARTS)):
        assert f"is {name!r}; it can be a plain name" in refusal(write)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("publish", ["1", "0"])
def test_only_publishing_writes_among_the_courses_own_checkpoints(tmp_path, monkeypatch, publish):
    monkeypatch.setattr("helpers.env.ROOT", tmp_path / "course")
    monkeypatch.setattr(checkpoints, "ROOT", tmp_path / "course")
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path / "build"))
    monkeypatch.setenv("COURSE_PUBLISH", publish)
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    model = MLPVAE(3, (4,))
    path = save_model("teaser", model, epochs=5)
    header = read_tensors(path)[1]
    assert header == {"class": "MLPVAE", "config": model.config, "epochs": 5}
    if publish == "1":
        assert path == tmp_path / "course" / "data" / "checkpoints" / "teaser.safetensors"
        again = load_shipped(MLPVAE, "teaser")
        assert equal(again, model) and not again.training
        text = refusal(load_shipped, Autoencoder, "teaser")
        assert all(word in text for word in ("teaser.safetensors", "MLPVAE", "Autoencoder"))
        monkeypatch.setenv("COURSE_PROFILE", "quick")
        before = path.read_bytes()
        assert "nothing worth publishing" in refusal(save_model, "teaser", MLPVAE(3, (4,)))
        assert path.read_bytes() == before
    else:
        assert path == tmp_path / "build" / "checkpoints" / "teaser.safetensors"
        assert "teaser.safetensors is not there" in refusal(load_shipped, MLPVAE, "teaser")


def test_a_dataclass_as_configuration_is_written_as_a_dict_and_read_back(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path))
    config = VAEConfig((8, 16), latent_channels=3, blocks=1, groups=4, scaling_factor=0.5)
    model = ConvVAE(config)
    path = save_model("conv", model)
    again = ConvVAE(**read_tensors(path)[1]["config"])
    load_weights(again, path)
    assert again.config == config and equal(again, model)


def test_the_shipped_files_load():
    """Those of the classifiers are tested with the classifiers."""
    classes = {kind.__name__: kind for kind in (Autoencoder, MLPVAE, ConvVAE)}
    loaded = []
    for path in sorted((ROOT / "data" / "checkpoints").glob("*.safetensors")):
        kind = classes.get(read_tensors(path)[1]["class"])
        if kind:
            loaded.append(type(load_shipped(kind, path.stem)))
    assert set(loaded) == set(classes.values())


class Counting(nn.Module):
    """Weights, and a buffer of whole numbers, as BatchNorm has one."""

    config = {"width": 300}

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(300, 200)
        self.register_buffer("batches", torch.tensor(70_001))  # more than fp16 can count
        self.register_buffer("mask", torch.tensor([True, False]))


def test_half_takes_half_the_space_and_comes_back_as_float32(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path))
    model, again = Counting(), Counting()
    whole, half = save_model("whole", model), save_model("half", model, half=True)
    assert half.stat().st_size == pytest.approx(whole.stat().st_size / 2, rel=0.01)
    assert {name: tensor.dtype for name, tensor in read_tensors(half)[0].items()} == {
        "layer.weight": torch.float16,
        "layer.bias": torch.float16,
        "batches": torch.int64,
        "mask": torch.bool,
    }
    again.batches.zero_()
    load_weights(again, half)
    assert torch.equal(again.layer.weight, model.layer.weight.half().float())
    assert int(again.batches) == 70_001 and torch.equal(again.mask, model.mask)
    assert model.layer.weight.dtype == torch.float32, "the model itself stays as it is"


def test_nested_groups_come_back():
    groups = {
        "a": {"x": torch.zeros(1), "y.z": torch.ones(1)},
        "a.b": {"x": torch.ones(2)},
        "ab": {"x": torch.ones(3)},
    }
    flat = nest(groups)
    assert unnest(flat, "a.b") == groups["a.b"] and unnest(flat, "ab") == groups["ab"]
    assert unnest(flat, "a")["y.z"] is groups["a"]["y.z"]


# --- run folders ---


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


PARTS = {"configuration": "a", "code": "b", "data": "c"}


def test_the_first_run_of_a_name_says_nothing(runs, capsys):
    folder = run_folder("vae", PARTS)
    assert folder.parent == runs / "vae"
    assert json.loads((folder / "fingerprint.json").read_text()) == PARTS
    assert run_folder("vae", PARTS) == folder
    run_folder("other", PARTS | {"data": "x"})
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("what", [["code"], ["data"], ["configuration", "data"]])
def test_another_run_of_a_name_says_what_changed(runs, capsys, what):
    first = run_folder("vae", PARTS)
    second = run_folder("vae", PARTS | dict.fromkeys(what, "x"))
    assert first != second and first.exists() and second.exists()
    changed = " and ".join(what)
    told = f"Run vae: the {changed} changed; starting afresh beside the old run.\n"
    assert capsys.readouterr().out == told


def test_the_nearest_earlier_run_is_named(runs, capsys):
    run_folder("vae", PARTS)
    run_folder("vae", {"configuration": "x", "code": "x", "data": "x"})
    capsys.readouterr()
    run_folder("vae", PARTS | {"data": "y"})
    assert "the data changed" in capsys.readouterr().out


def test_a_folder_that_was_cut_off_before_its_note_gets_it_later(runs):
    folder = run_folder("vae", PARTS)
    (folder / "fingerprint.json").unlink()
    run_folder("vae", PARTS)
    assert (folder / "fingerprint.json").exists()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", '{"code": "é"}'.encode("cp1252")]
)
def test_a_broken_note_starts_afresh_and_is_written_again(runs, capsys, content):
    folder = run_folder("vae", PARTS)
    (folder / "fingerprint.json").write_bytes(content)
    other = run_folder("vae", PARTS | {"code": "x"})
    assert other != folder and "starting afresh beside the old run" in capsys.readouterr().out
    assert run_folder("vae", PARTS) == folder and capsys.readouterr().out == ""
    assert json.loads((folder / "fingerprint.json").read_text()) == PARTS


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a fork may fail")
def test_processes_may_begin_the_same_run_at_once(runs):
    fork = multiprocessing.get_context("fork")
    together = fork.Barrier(4)

    def begin() -> None:
        for number in range(20):
            together.wait(20)
            run_folder(f"vae{number}", PARTS)

    children = [fork.Process(target=begin) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(20)
    assert [child.exitcode for child in children] == [0] * 4
    files = [path for path in runs.rglob("*") if path.is_file()]
    assert len(files) == 20 and all(json.loads(path.read_text()) == PARTS for path in files)


def test_runs_that_cannot_be_kept_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "file" / "runs"))
    (tmp_path / "file").touch()
    assert "fingerprint.json could not be written" in refusal(run_folder, "vae", PARTS)


def test_only_the_speaking_process_makes_the_folder(runs, capsys):
    folder = run_folder("vae", PARTS, speak=False)
    assert not folder.exists() and folder == run_folder("vae", PARTS)
    assert capsys.readouterr().out == ""
