"""What a run writes into its folder, and how it goes on from there.

last.safetensors holds everything that the next step depends on, best.safetensors the weights of the
epoch with the lowest held-out loss.  Both say in their headers how the model is built again, so
that either can be the beginning of another run.
"""

import json
from pathlib import Path

import safetensors
import torch

from helpers.env import runs_dir
from helpers.rng import random_state, set_random_state
from helpers.training.checkpoints import describe, nest, read_tensors, unnest, write_tensors
from helpers.training.history import History
from helpers.training.trainer import Trainer


class RunFiles:
    """The files of one run, in `folder`.

    note: what the headers say beside the model's class and configuration.  Of several processes
    only the first writes.
    """

    def __init__(self, folder: Path, note: dict | None = None):
        self.folder = folder
        self.note = note or {}
        self.best = folder / "best.safetensors"
        self.last = folder / "last.safetensors"

    def save_epoch(self, training: Trainer, row: dict) -> None:
        """The weights, if no epoch was better, and the table of all epochs."""
        if not training.accelerator.is_main_process:
            return
        score = "val_loss" if "val_loss" in row else "loss"
        if row[score] == min(training.history[score]):
            header = self._header(training) | {"epoch": row["epoch"]}
            write_tensors(self.best, training.raw_model.state_dict(), header)
        training.history.save_csv(self.folder / "history.csv")

    def save(self, training: Trainer) -> None:
        """Everything that the next step depends on, in one file."""
        if not training.accelerator.is_main_process:
            return
        state = training.optimizer.state_dict()
        groups = {"model": training.raw_model.state_dict()}
        groups |= {"sums": training.sums, "rng": random_state()}
        groups |= {f"optimizer.{i}": entry for i, entry in state["state"].items()}
        if training.ema:
            groups["ema"] = training.ema.state_dict()
        scaler = training.accelerator.scaler
        seconds = training.seconds()
        header = self._header(training) | {
            "epoch": training.epoch,
            "step": training.step,
            "seconds": seconds,
            "finished": training.is_finished(seconds),
            "history": training.history.rows,
            "groups": state["param_groups"],
            "scheduler": training.scheduler.state_dict(),
            "scaler": scaler and scaler.state_dict(),
        }
        write_tensors(self.last, nest(groups), header)

    def _header(self, training: Trainer) -> dict:
        return describe(training.raw_model) | self.note

    def restore(self, training: Trainer) -> None:
        """Go on from the run's last checkpoint, where there is one."""
        if not self.last.exists():
            return
        tensors, header = read_tensors(self.last)
        training.raw_model.load_state_dict(unnest(tensors, "model"))
        _restore_optimizer(training, tensors, header["groups"])
        training.scheduler.load_state_dict(header["scheduler"])
        if training.ema:
            training.ema.load_state_dict(unnest(tensors, "ema"))
        if header["scaler"] and training.accelerator.scaler:
            training.accelerator.scaler.load_state_dict(header["scaler"])
        set_random_state(unnest(tensors, "rng"))

        training.sums = {k: v.to(training.device) for k, v in unnest(tensors, "sums").items()}
        training.epoch = header["epoch"]
        training.step = header["step"]
        training.earlier_seconds = header["seconds"]
        training.history = History(header["history"])
        going_on = f"going on at epoch {training.epoch + 1}, step {training.step + 1}"
        finished = training.is_finished(header["seconds"])
        what = "it is finished and loaded" if finished else going_on
        name = f"{self.folder.parent.name}/{self.folder.name}"
        training.accelerator.print(f"Run {name} found: {what}.")


def _restore_optimizer(training: Trainer, tensors: dict[str, torch.Tensor], groups: list) -> None:
    count = len(list(training.raw_model.parameters()))
    state = {i: unnest(tensors, f"optimizer.{i}") for i in range(count)}
    state = {i: entry for i, entry in state.items() if entry}
    training.optimizer.load_state_dict({"state": state, "param_groups": groups})
    # a file has no memory format, and fused Adam wants that of the weight
    for weight, entry in training.optimizer.state.items():
        for name, value in entry.items():
            if value.shape == weight.shape:
                entry[name] = torch.empty_like(weight).copy_(value)


# --- from outside ---


def newest_weights(run: str) -> Path | None:
    """The best weights so far of the run of that name that was written to last."""
    files = _by_age(run, "best.safetensors") or _by_age(run, "last.safetensors")
    return files[-1] if files else None


def finished_weights(run: str) -> Path | None:
    """The last.safetensors of the run of that name that finished last."""
    finished = [path for path in _by_age(run, "last.safetensors") if _is_finished(path)]
    return finished[-1] if finished else None


def weights_of(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """(weights, header) of any file of a model; of a last.safetensors the averaged ones, if any."""
    tensors, header = read_tensors(path)
    if "groups" in header:
        tensors = unnest(tensors, "ema.module") or unnest(tensors, "model")
    return tensors, header


def _by_age(run: str, name: str) -> list[Path]:
    return sorted((runs_dir() / run).glob(f"*/{name}"), key=lambda path: path.stat().st_mtime)


def _is_finished(path: Path) -> bool:
    """Read from the header alone: the tensors may be gigabytes."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            return json.loads(file.metadata()["course"]).get("finished", False)
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError):
        return False
