"""Checkpoint files: whole or not there, refused in one sentence, never a pickle; fingerprints of runs."""

import functools
import json
import os
import time
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from helpers import CourseError
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
    write_tensors,
)
from helpers.training.fingerprint import fingerprint_of


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


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


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
    header = {"epoch": 3, "rate": 0.1 + 0.2, "history": [{"loss": 1e-17}], "none": None}
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
    assert same(tied, again)


def test_a_failed_write_leaves_the_old_file_and_no_half_one(saved, monkeypatch):
    path, model = saved

    def full(tensors, file, header):
        file.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(OSError, match="no space"):
        write_tensors(path, {"a": torch.zeros(3)}, {})
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    load_weights(MLPVAE(2, (4,)), path)


def test_what_killed_processes_left_behind_goes_after_a_while(tmp_path):
    old, new = tmp_path / "last.safetensors.1.part", tmp_path / "last.safetensors.2.part"
    for part in (old, new):
        part.write_bytes(b"half a checkpoint")
    os.utime(old, (time.time() - 3600,) * 2)
    write_tensors(tmp_path / "last.safetensors", {"a": torch.zeros(3)}, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.safetensors", new.name]  # may be at work still


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(saved, keep):
    path, _ = saved
    path.write_bytes(path.read_bytes()[:keep])
    model = MLPVAE(2, (4,))
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
    """A pickle of it would touch a file when it is loaded."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("name", ["model.pt", "model.pkl", "model.bin", "model.safetensors"])
def test_a_pickle_is_never_loaded(tmp_path, name):
    sprung = tmp_path / "sprung"
    torch.save({"encoder.0.weight": Trap(sprung)}, tmp_path / name)
    text = refusal(load_weights, MLPVAE(2, (4,)), tmp_path / name)
    assert name in text and not sprung.exists()
    assert "pickle" in text or "safetensors" in text


def changed(model: nn.Module, change) -> dict[str, torch.Tensor]:
    tensors = dict(model.state_dict())
    change(tensors)
    return tensors


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("decoder.0.bias"), ("lacks decoder.0.bias",)),
        (lambda t: t.update(extra=torch.zeros(2)), ("holds extra", "MLPVAE")),
        (lambda t: t.update({"encoder.2.bias": torch.zeros(9)}), ("encoder.2.bias", "(9,)", "(4,)")),
        (lambda t: (t.clear(), t.update(foreign=torch.zeros(2))), ("lacks encoder.0.weight",)),
    ],
)
def test_a_foreign_file_is_refused_by_its_first_wrong_key_and_nothing_is_loaded(tmp_path, change, words):
    model = MLPVAE(2, (4,))
    path = write_tensors(tmp_path / "x.safetensors", changed(MLPVAE(2, (4,)), change), {})
    before = {k: v.clone() for k, v in model.state_dict().items()}
    text = refusal(load_weights, model, path)
    assert "x.safetensors" in text and all(word in text for word in words)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_model_of_another_size_is_told_how_it_was_made(saved):
    text = refusal(load_weights, MLPVAE(3, (4,)), saved[0])
    assert "MLPVAE({'latent': 2, 'hidden': [4]})" in text


def test_weights_are_loaded_and_the_header_returned(saved):
    path, model = saved
    again = MLPVAE(2, (4,))
    assert load_weights(again, str(path))["class"] == "MLPVAE"
    assert same(model, again)


@pytest.mark.parametrize("publish", ["1", "0"])
def test_only_publishing_writes_among_the_courses_own_checkpoints(tmp_path, monkeypatch, publish):
    monkeypatch.setattr("helpers.budget.ROOT", tmp_path / "course")
    monkeypatch.setattr(checkpoints, "ROOT", tmp_path / "course")
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path / "build"))
    monkeypatch.setenv("COURSE_PUBLISH", publish)
    model = MLPVAE(3, (4,))
    path = save_model("teaser", model, epochs=5)
    assert read_tensors(path)[1] == {"class": "MLPVAE", "config": model.config, "epochs": 5}
    if publish == "1":
        assert path == tmp_path / "course" / "data" / "checkpoints" / "teaser.safetensors"
        again = load_shipped(MLPVAE, "teaser")
        assert same(again, model) and not again.training
        text = refusal(load_shipped, Autoencoder, "teaser")
        assert "teaser.safetensors" in text and "MLPVAE" in text and "Autoencoder" in text
    else:
        assert path == tmp_path / "build" / "checkpoints" / "teaser.safetensors"
        assert "teaser.safetensors is not there" in refusal(load_shipped, MLPVAE, "teaser")


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
    stored = read_tensors(half)[0]
    assert {name: tensor.dtype for name, tensor in stored.items()} == {
        "layer.weight": torch.float16, "layer.bias": torch.float16, "batches": torch.int64, "mask": torch.bool
    }  # fmt: skip
    again.batches.zero_()
    load_weights(again, half)
    assert again.layer.weight.dtype == torch.float32 and torch.equal(again.layer.weight, model.layer.weight.half().float())
    assert int(again.batches) == 70_001 and torch.equal(again.mask, model.mask)
    assert model.layer.weight.dtype == torch.float32, "the model itself stays as it is"


def test_nested_groups_come_back():
    groups = {"a": {"x": torch.zeros(1), "y.z": torch.ones(1)}, "a.b": {"x": torch.ones(2)}, "ab": {"x": torch.ones(3)}}
    flat = nest(groups)
    assert unnest(flat, "a.b") == groups["a.b"] and unnest(flat, "ab") == groups["ab"]
    assert unnest(flat, "a")["y.z"] is groups["a"]["y.z"]


# --- fingerprints ---


def define(source: str, name: str = "f", **known):
    """Run code as a notebook's cell would, and return what it defines."""
    space = {"__name__": "__main__", "torch": torch, "nn": nn, **known}
    exec(source, space)
    return space[name]


def test_a_fingerprint_is_the_same_for_the_same():
    parts = ({"a": 1, "b": [2.5, None, "x"]}, torch.arange(3), define("def f(x): return x + 1"))
    assert fingerprint_of(*parts) == fingerprint_of(*parts) and len(fingerprint_of(*parts)) == 16


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.zeros(3), torch.tensor([0.0, 0.0, 1e-30])),
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (torch.zeros(3), torch.zeros(3, dtype=torch.int32)),
        (1, 2),
        (1, "1"),
        (None, "None"),
        ({"epochs": 1, "batch_size": 64}, {"epochs": 16, "batch_size": 4}),
        ([1, 23], [12, 3]),
        (["a", ["b"]], [["a"], "b"]),
        ([["a"], "b"], [["a", "b"]]),
        ({"a": 1}, {"b": 1}),
        ({1, 2}, {1, 3}),
        (torch.zeros(2).numpy(), torch.ones(2).numpy()),
        (functools.partial(print, end=""), functools.partial(print, end=" ")),
        (MLPVAE, Autoencoder),
    ],
)
def test_a_fingerprint_changes_with_a_value(one, other):
    assert fingerprint_of(one) != fingerprint_of(other)
    assert fingerprint_of(one) == fingerprint_of(one)


def closing_over(value):
    return lambda x: x * value


def nested(value):
    return lambda x: (lambda y: y * value)(x)


@pytest.mark.parametrize("make", [closing_over, nested])
def test_a_fingerprint_changes_with_what_a_function_closes_over(make):
    assert fingerprint_of(make(2)) == fingerprint_of(make(2)) != fingerprint_of(make(3))
    assert fingerprint_of(make(torch.ones(2))) != fingerprint_of(make(torch.zeros(2)))
    assert fingerprint_of(make(closing_over(1))) == fingerprint_of(make(closing_over(1))) != fingerprint_of(make(closing_over(2)))


CHANGES = {
    "a constant": ("def f(x): return x * 2", "def f(x): return x * 3"),
    "an operation": ("def f(x): return x * 2", "def f(x): return x + 2"),
    "a called name": ("def f(x): return x.sin()", "def f(x): return x.cos()"),
    "a default": ("def f(x, k=1): return x", "def f(x, k=2): return x"),
    "a keyword default": ("def f(x, *, k=1): return x", "def f(x, *, k=2): return x"),
    "a lambda inside": ("def f(x): return (lambda y: y * 2)(x)", "def f(x): return (lambda y: y * 3)(x)"),
    "a global": ("k = 1\ndef f(x): return x * k", "k = 2\ndef f(x): return x * k"),
    "a global in a lambda": ("k = 1\ndef f(x): return [(lambda: k)()]", "k = 2\ndef f(x): return [(lambda: k)()]"),
    "a global tensor": ("k = torch.zeros(1)\ndef f(x): return x * k", "k = torch.ones(1)\ndef f(x): return x * k"),
    "a function it calls": ("def g(x): return x\ndef f(x): return g(x)", "def g(x): return -x\ndef f(x): return g(x)"),
    "a class it makes": (
        "class G:\n def go(self): return 1\ndef f(x): return G().go()",
        "class G:\n def go(self): return 2\ndef f(x): return G().go()",
    ),
    "a method": ("class f:\n def go(self): return 1", "class f:\n def go(self): return 2"),
    "a class constant": ("class f:\n k = 1", "class f:\n k = 2"),
    "a property": (
        "class f:\n @property\n def k(self): return 1",
        "class f:\n @property\n def k(self): return 2",
    ),
    "a static method": (
        "class f:\n @staticmethod\n def k(): return 1",
        "class f:\n @staticmethod\n def k(): return 2",
    ),
    "a base class": (
        "class G:\n def go(self): return 1\nclass f(G): pass",
        "class G:\n def go(self): return 2\nclass f(G): pass",
    ),
    "a callable object": (
        "class G:\n def __call__(self): return 1\nf = G()",
        "class G:\n def __call__(self): return 2\nf = G()",
    ),
    "what an object holds": (
        "class G:\n def __init__(self, k): self.k = k\nf = G(1)",
        "class G:\n def __init__(self, k): self.k = k\nf = G(2)",
    ),
    "the object of a method": (
        "class G:\n def __init__(self, k): self.k = k\n def go(self): return self.k\nf = G(1).go",
        "class G:\n def __init__(self, k): self.k = k\n def go(self): return self.k\nf = G(2).go",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_fingerprint_changes_with_the_code(what):
    one, other = CHANGES[what]
    assert fingerprint_of(define(one)) != fingerprint_of(define(other))
    assert fingerprint_of(define(one)) == fingerprint_of(define("\n\n# at another line\n" + one))


def test_a_fingerprint_ignores_what_the_code_does_not_use():
    source = "def f(batch): return batch["images"]"
    assert fingerprint_of(define(source)) == fingerprint_of(define(source, images=torch.zeros(3), k=5))


def test_a_fingerprint_ends_for_recursive_code():
    fingerprint_of(define("def f(n): return n and f(n - 1)"))
    fingerprint_of(define("class f:\n def copy(self): return f()"))
    fingerprint_of(define("class G: pass\nf = G()\nf.me = f"))


def test_a_fingerprint_includes_a_models_weights_and_code():
    one, other = MLPVAE(2, (4,)), MLPVAE(2, (4,))
    assert fingerprint_of(closing_over(one)) != fingerprint_of(closing_over(other))
    other.load_state_dict(one.state_dict())
    assert fingerprint_of(closing_over(one)) == fingerprint_of(closing_over(other))


def test_a_fingerprint_of_a_library_function_is_cheap_and_steady():
    start = time.perf_counter()
    assert fingerprint_of(nn.functional.relu, nn.Linear) == fingerprint_of(nn.functional.relu, nn.Linear)
    assert time.perf_counter() - start < 0.5


@dataclass(frozen=True)
class Settings:
    width: int = 3


def test_a_fingerprint_of_a_dataclass_depends_on_its_values():
    assert fingerprint_of(Settings()) == fingerprint_of(Settings(3)) != fingerprint_of(Settings(4))


# --- run folders ---


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


PARTS = {"configuration": "a", "code": "b", "data": "c"}


def test_the_first_run_of_a_name_says_nothing(runs, capsys):
    folder = run_folder("vae", PARTS)
    assert folder.parent == runs / "vae" and json.loads((folder / "fingerprint.json").read_text()) == PARTS
    assert run_folder("vae", PARTS) == folder
    run_folder("other", PARTS | {"data": "x"})
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("what", [["code"], ["data"], ["configuration", "data"]])
def test_another_run_of_a_name_says_what_changed(runs, capsys, what):
    first = run_folder("vae", PARTS)
    second = run_folder("vae", PARTS | dict.fromkeys(what, "x"))
    assert first != second and first.exists() and second.exists()
    told = capsys.readouterr().out
    assert told == f"Run vae: another {' and '.join(what)} than before; starting afresh beside the old run.\n"


def test_the_nearest_earlier_run_is_named(runs, capsys):
    run_folder("vae", PARTS)
    run_folder("vae", {"configuration": "x", "code": "x", "data": "x"})
    capsys.readouterr()
    run_folder("vae", PARTS | {"data": "y"})
    assert "another data than" in capsys.readouterr().out


def test_a_folder_that_was_cut_off_before_its_note_gets_it_later(runs):
    folder = run_folder("vae", PARTS)
    (folder / "fingerprint.json").unlink()
    run_folder("vae", PARTS)
    assert (folder / "fingerprint.json").exists()


def test_only_the_speaking_process_makes_the_folder(runs, capsys):
    folder = run_folder("vae", PARTS, speak=False)
    assert not folder.exists() and folder == run_folder("vae", PARTS)
    assert capsys.readouterr().out == ""
