"""The loop behind `fit`: steps, evaluation after each epoch, checkpoints that a run goes on from."""

import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, nullcontext

import torch
from accelerate.utils import broadcast
from torch import nn
from tqdm.auto import tqdm

from helpers import CourseError
from helpers.budget import generator_for, random_state, set_random_state
from helpers.checkpoints import nest, read_tensors, unnest, write_tensors
from helpers.data import Batch, ImageSet
from helpers.ema import AveragedWeights
from helpers.history import History
from helpers.schedules import make_scheduler

Loss = Callable[[nn.Module, Batch, torch.Generator], dict[str, torch.Tensor]]


class Trainer:
    """The state of one training run: model, optimizer, rate, and the position (epoch, step)."""

    def __init__(self, model, loss, batches, accelerator, length, settings, folder):
        self.loss, self.batches, self.accelerator, self.settings, self.folder = loss, batches, accelerator, settings, folder
        self.bare, self.length, self.ticks = model, length, length.ticks(len(batches))
        on = accelerator.device
        if on.type == "cuda":
            model.to(memory_format=torch.channels_last)  # what tensor cores read; on two CPU cores it gains nothing
        self.optimizer = torch.optim.Adam(
            model.to(on).parameters(), lr=settings["lr"], betas=settings["betas"], fused=on.type in ("cpu", "cuda")
        )
        self.scheduler = make_scheduler(self.optimizer, settings["schedule"], self.ticks)
        self.model, self.prepared = accelerator.prepare(model, self.optimizer)
        self.average = AveragedWeights(model, settings["ema"]) if settings["ema"] is not None else None
        self.history, self.epoch, self.step = History(), 0, 0
        self.started, self.earlier_seconds = time.perf_counter(), 0.0
        self.sums: dict[str, float] = {}

    def train(self, validation, watch, interrupted, checkpoint_seconds) -> None:
        saved = time.perf_counter()
        shard = (self.accelerator.process_index, self.accelerator.num_processes)
        done = self._ticks_done()
        # tqdm reads TQDM_DISABLE itself, but not for its notebook bars
        silent = not self.accelerator.is_main_process or os.environ.get("TQDM_DISABLE") == "1"
        unit = "step" if self.length.minutes is None else "‰"
        with tqdm(total=self.ticks, initial=done, unit=unit, leave=False, disable=silent) as bar:
            while done < self.ticks or self.step:  # self.step: only the evaluation is left
                self.model.train()
                for batch in self.batches.epoch(self.epoch, self.step, shard) if done < self.ticks else ():
                    self._one_step(batch, shard)
                    earlier, done = done, self._ticks_done()
                    for _ in range(done - earlier):
                        self.scheduler.step()
                    bar.update(done - earlier)
                    self._heed(interrupted)
                    if done >= self.ticks:
                        break
                    if time.perf_counter() - saved > checkpoint_seconds:
                        self.save()
                        saved = time.perf_counter()
                row = self._finish_epoch(validation, watch)
                bar.set_postfix({k: f"{v:.4g}" for k, v in row.items() if k not in ("epoch", "seconds", "rate")})
                self._heed(interrupted)  # a ctrl-C during the evaluation

    def _ticks_done(self) -> int:
        steps = self.epoch * len(self.batches) + self.step
        done = self.length.done(steps, self._seconds(), len(self.batches))
        if self.accelerator.num_processes > 1:  # the processes' clocks differ
            done = int(broadcast(torch.tensor([done], device=self.accelerator.device)))
        return min(done, self.ticks)

    def _heed(self, interrupted: threading.Event) -> None:
        stop = interrupted.is_set()
        if self.accelerator.num_processes > 1:  # all leave at the same step, whichever process the signal reached
            stop = bool(self.accelerator.reduce(torch.tensor(float(stop), device=self.accelerator.device)))
        if stop:
            self.save()
            raise KeyboardInterrupt(f"stopped after {self.epoch} epochs and {self.step} steps; the weights are usable")

    def _one_step(self, batch: Batch, shard: tuple[int, int]) -> None:
        self.prepared.zero_grad()
        means: dict[str, torch.Tensor] = {}
        for part, generator in self._parts(batch, shard):
            with self.accelerator.autocast():
                terms = self.loss(self.model, part, generator)
            shares = {name: value.float().mean() / self.settings["accumulate"] for name, value in terms.items()}
            self._insist(shares["loss"].detach(), "loss")
            self.accelerator.backward(shares["loss"])
            means = {name: means.get(name, 0.0) + value.detach() for name, value in shares.items()}
        clip = math.inf if self.settings["clip"] is None else self.settings["clip"]
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), clip)
        if self.accelerator.scaler is None:  # fp16's scaler skips such a step by itself and lowers its scale
            self._insist(norm, "gradient")
        self.prepared.step()
        if self.average:
            self.average.update(self.bare)
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in means.items()}
        self.step += 1

    def _parts(self, batch: Batch, shard: tuple[int, int]):
        """(part of the batch, generator of its noise): as many parts as gradients are accumulated over."""
        count, rows = self.settings["accumulate"], len(batch.images) // self.settings["accumulate"]
        key, on = ("noise", self.settings["seed"], self.epoch, self.step), self.accelerator.device
        for i in range(count):
            cut = slice(i * rows, (i + 1) * rows)
            part = Batch(batch.images[cut], None if batch.labels is None else batch.labels[cut])
            yield part, generator_for(*key, device=on, shard=(shard[0] * count + i, shard[1] * count))

    def _insist(self, value: torch.Tensor | float, what: str) -> None:
        if not math.isfinite(value):
            saved = self.folder and (self.folder / "last.safetensors").exists()
            where = "the last good checkpoint is kept" if saved else "the weights are those before this step"
            step = min(self.step + 1, len(self.batches))
            raise CourseError(
                f"Training stopped at epoch {self.epoch + 1}, step {step}: the {what} is {float(value)}; {where}. "
                "Try a smaller learning rate, and look for a log or a division of zero in the loss."
            )

    def _finish_epoch(self, validation: ImageSet | None, watch: Callable | None) -> dict:
        means = {k: self.accelerator.reduce(v / self.step, "mean").item() for k, v in self.sums.items()}
        with self._plain(), self.average.inside(self.bare) if self.average else nullcontext():
            if validation is not None:
                means |= {f"val_{k}": v for k, v in evaluate(self.bare, self.loss, validation).items()}
                self._insist(means["val_loss"], "val_loss")
            rate = self.scheduler.get_last_lr()[0]
            row = {"epoch": self.epoch + 1, "seconds": round(self._seconds(), 3), "rate": rate} | means
            if watch and self.accelerator.is_main_process:
                self.bare.eval()
                watch(self.bare, row)
            self.history.rows.append(row)
            if self.folder:
                self._save_best(row)
        self.epoch, self.step, self.sums = self.epoch + 1, 0, {}
        if self.folder:
            self.save()  # last, because a kill before it repeats the epoch and so the other two files
        return row

    def _seconds(self) -> float:
        return self.earlier_seconds + time.perf_counter() - self.started

    def _save_best(self, row: dict) -> None:
        if not self.accelerator.is_main_process:
            return
        score = "val_loss" if "val_loss" in row else "loss"
        if row[score] == min(self.history[score]):
            write_tensors(self.folder / "best.safetensors", self.bare.state_dict(), {"epoch": row["epoch"]})
        self.history.save_csv(self.folder / "history.csv")

    def save(self) -> None:
        """Write everything that the next step depends on to one file, last.safetensors."""
        if self.folder is None or not self.accelerator.is_main_process:
            return
        tensors = nest({"model": self.bare.state_dict(), "sums": self.sums, "rng": random_state()})
        state, scaler = self.optimizer.state_dict(), self.accelerator.scaler
        tensors |= nest({f"optimizer.{i}": entry for i, entry in state["state"].items()})
        tensors |= nest({"average": self.average.weights}) if self.average else {}
        header = {"epoch": self.epoch, "step": self.step, "seconds": self._seconds(), "history": self.history.rows}
        header |= {"groups": state["param_groups"], "scheduler": self.scheduler.state_dict()}
        header |= {"averaged": self.average.updates} if self.average else {}
        write_tensors(self.folder / "last.safetensors", tensors, header | {"scaler": scaler and scaler.state_dict()})

    def restore(self) -> None:
        """Go on from the run's last checkpoint, where there is one."""
        path = self.folder / "last.safetensors"
        if not path.exists():
            return
        tensors, header = read_tensors(path)
        self.bare.load_state_dict(unnest(tensors, "model"))
        entries = range(len(list(self.bare.parameters())))
        state = {i: entry for i in entries if (entry := unnest(tensors, f"optimizer.{i}"))}
        self.optimizer.load_state_dict({"state": state, "param_groups": header["groups"]})
        for weight, entry in self.optimizer.state.items():  # a file has no memory format; fused Adam wants the weight's
            entry |= {k: torch.empty_like(weight).copy_(v) for k, v in entry.items() if v.shape == weight.shape}
        self.scheduler.load_state_dict(header["scheduler"])
        if self.average:
            self.average.weights = {k: v.to(self.accelerator.device) for k, v in unnest(tensors, "average").items()}
            self.average.updates = header["averaged"]
        if header["scaler"] and self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(header["scaler"])
        set_random_state(unnest(tensors, "rng"))
        self.sums = {k: v.to(self.accelerator.device) for k, v in unnest(tensors, "sums").items()}
        self.epoch, self.step, self.earlier_seconds = header["epoch"], header["step"], header["seconds"]
        self.history = History(header["history"])
        done = self._ticks_done() == self.ticks and not self.step
        what = "it is finished and loaded" if done else f"going on at epoch {self.epoch + 1}, step {self.step + 1}"
        self.accelerator.print(f"Run {self.folder.parent.name}/{self.folder.name} found: {what}.")

    @contextmanager
    def _plain(self):
        """The model without Accelerate's mixed-precision wrapper: held-out numbers are computed in float32."""
        wrapper = {k: vars(self.bare).pop(k) for k in ("forward", "_original_forward") if k in vars(self.bare)}
        try:
            yield
        finally:
            vars(self.bare).update(wrapper)

    def detach(self) -> None:
        """Give the caller back a plain model: Accelerate's mixed-precision wrapper would change later evaluations."""
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        for name in ("forward", "_original_forward"):
            self.bare.__dict__.pop(name, None)
        if self.average:
            self.bare.load_state_dict(self.average.weights)
        self.bare.eval()


def fitting_batch(data: ImageSet) -> int:
    """How many images are evaluated at once: a million pixels, at most 1,000 images."""
    return max(1, min(1000, 1_000_000 // data.images.shape[2:].numel()))


@torch.no_grad()
def evaluate(model: nn.Module, loss: Loss, data: ImageSet, seed: int = 0) -> dict[str, float]:
    """Mean of every loss term over all images of `data`, in float32; the noise is the same at every call."""
    model.eval()
    on, totals = next(model.parameters()).device, {}
    batch_size = fitting_batch(data)
    for start in range(0, len(data), batch_size):
        part = data[start : start + batch_size]
        batch = Batch(part.pixels(on), None if part.labels is None else part.labels.to(on))
        generator = generator_for("evaluate", seed, start, device=on)
        for name, value in loss(model, batch, generator).items():
            totals[name] = totals.get(name, 0.0) + value.float().sum().item()
    return {name: total / len(data) for name, total in totals.items()}
