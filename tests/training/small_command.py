"""`helpers.train_vae` at its smallest, for the tests of the command."""

from pathlib import Path

import pytest

from helpers import train_vae
from helpers.data.datasets import DRAWN_DOGS
from helpers.data.splits import split_of
from helpers.training.history import History
from tests.data.small_data import noise

FEW = {"train": 24, "validation": 4, "test": 5}
SMALL = ["--resolution", "16", "--plain", "--channels", "8", "16", "16"]
BRIEF = ["--factor", "4", "--steps", "4", "--batch", "4"]
BASE = [*SMALL, *BRIEF]
USUAL = ["--resolution", "16", "--channels", "16", *BRIEF]  # patches and a linear shortcut


def use(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Few drawn dogs, and all that is written goes below `folder`."""
    for split, count in FEW.items():
        patch.setitem(DRAWN_DOGS, split, count)
    for name in ("BUILD", "DATA"):
        patch.setenv(f"COURSE_{name}", str(folder / name.lower()))


def refusal(*words: str) -> str:
    """The one sentence with which the command ends; Python prints it and exits with 1."""
    with pytest.raises(SystemExit) as end:
        train_vae.main(words)
    text = end.value.code
    assert text.startswith("train_vae: ") and "\n" not in text
    return text


def without_training(monkeypatch) -> dict:
    """`fit` notes what it is called with, and trains nothing."""
    called = {}

    def fit(model, loss, train, **options):
        called.update(options, model=model, loss=loss, train=train)
        return History([{"epoch": 1, "seconds": 90.0}])

    monkeypatch.setattr(train_vae, "fit", fit)
    return called


def photos(folder: Path, **counts: int) -> Path:
    """Pictures, so many of each split, and a file for training that is none."""
    folder.mkdir()
    wanted = counts | {"none": 1}
    number = 0
    while any(wanted.values()):
        number += 1
        path = folder / f"{number}.png"
        split = split_of(path.name)
        if wanted.get(split):
            noise(20, 24, seed=number).save(path)
        elif split == "train":
            path.write_bytes(b"no picture")
            split = "none"
        wanted[split] = max(0, wanted.get(split, 0) - 1)
    return folder
