"""The run behind `fit`: its set-up, its steps and its epochs."""

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast
from torch import nn
from tqdm.auto import tqdm

from helpers import CourseError
from helpers.data.loader import Batches, DataSet
from helpers.env import device
from helpers.rng import generator_for
from helpers.training.ema import EMA
from helpers.training.history import History
from helpers.training.schedules import Length, make_lr_scheduler

Loss = Callable[[nn.Module, dict[str, torch.Tensor], torch.Generator], dict[str, torch.Tensor]]


class Trainer:
    """One training run: its parts are made here, and `train` makes the steps.

    settings: epochs, steps, minutes, batch_size, accumulate, lr, betas, schedule, clip, ema, seed,
    precision, as `fit` has them.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        train: DataSet,
        settings: dict,
        augment: Callable | None = None,
    ):
        self.raw_model = model
        self.loss = loss
        self.settings = settings
        self.files = None  # the RunFiles of a run with a name

        # one process trains several models, each in its own precision
        AcceleratorState._reset_state()
        on_cpu = device().type == "cpu"
        self.accelerator = Accelerator(mixed_precision=settings["precision"], cpu=on_cpu)
        self.device = self.accelerator.device
        self.processes = self.accelerator.num_processes
        self.shard = (self.accelerator.process_index, self.processes)
        self._check_batch_size()

        seed = settings["seed"]
        self.batches = Batches(
            train, settings["batch_size"], seed=seed, device=self.device, augment=augment
        )
        self.length = Length(settings["epochs"], settings["steps"], settings["minutes"])
        self.total = self.length.total(len(self.batches))

        model.to(self.device)
        if self.device.type == "cuda":
            model.to(memory_format=torch.channels_last)  # what tensor cores read
        self.optimizer = torch.optim.Adam(
            model.parameters(),
            lr=settings["lr"],
            betas=settings["betas"],
            fused=self.device.type in ("cpu", "cuda"),
        )
        self.scheduler = make_lr_scheduler(self.optimizer, settings["schedule"], self.total)
        self.ema = None if settings["ema"] is None else EMA(model, settings["ema"])
        self.model, self.prepared_optimizer = self.accelerator.prepare(model, self.optimizer)

        self.history = History()
        self.epoch = 0
        self.step = 0  # of this epoch
        self.sums: dict[str, torch.Tensor] = {}  # of the loss terms, over this epoch's steps
        self.started = time.perf_counter()
        self.earlier_seconds = 0.0

    def _check_batch_size(self) -> None:
        accumulate = self.settings["accumulate"]
        if self.settings["batch_size"] % (self.processes * accumulate):
            parts = f" in {accumulate} parts each" if accumulate > 1 else ""
            raise CourseError(
                f"A batch of {self.settings['batch_size']} cannot be shared by "
                f"{self.processes} processes{parts}."
            )

    # --- the loop ---

    def train(
        self,
        validate: Callable[[], dict[str, float]] | None,
        callback: Callable[[nn.Module, dict], None] | None,
        interrupted: threading.Event,
        checkpoint_seconds: float,
    ) -> None:
        """All steps that are left, epoch by epoch; `interrupted` ends it after the step at hand."""
        saved = time.perf_counter()
        done = self._done()
        with self._progress_bar(done) as progress:
            while done < self.total or self.step:  # self.step: only the evaluation is left
                self.model.train()
                for batch in self._batches_left() if done < self.total else ():
                    self._one_step(batch)
                    before, done = done, self._done()
                    for _ in range(done - before):
                        self.scheduler.step()
                    progress.update(done - before)
                    self._heed(interrupted)
                    if done >= self.total:
                        break
                    if time.perf_counter() - saved > checkpoint_seconds:
                        self._save()
                        saved = time.perf_counter()
                row = self._finish_epoch(validate, callback)
                shown = {k: f"{v:.4g}" for k, v in row.items() if k not in History.ALWAYS}
                progress.set_postfix(shown)
                self._heed(interrupted)  # a ctrl-C during the evaluation

    def _batches_left(self) -> Iterator[dict[str, torch.Tensor]]:
        return self.batches.epoch(self.epoch, self.step, self.shard)

    def _progress_bar(self, done: int) -> tqdm:
        # tqdm reads TQDM_DISABLE itself, but not for its notebook bars
        silent = not self.accelerator.is_main_process or os.environ.get("TQDM_DISABLE") == "1"
        is_text = all(kind.__module__ != "tqdm.notebook" for kind in tqdm.__mro__)
        if is_text and not sys.stderr.isatty():  # a file would keep every state of the bar
            silent = True
        unit = "step" if self.length.minutes is None else "‰"
        return tqdm(total=self.total, initial=done, unit=unit, leave=False, disable=silent)

    def _done(self) -> int:
        """The steps of the schedule that lie behind."""
        done = self._done_at(self.seconds())
        if self.processes > 1:  # the processes' clocks differ
            done = int(broadcast(torch.tensor([done], device=self.device)))
        return min(done, self.total)

    def _done_at(self, seconds: float) -> int:
        steps = self.epoch * len(self.batches) + self.step
        return self.length.done(steps, seconds)

    def is_finished(self, seconds: float) -> bool:
        """Whether no step and no evaluation is left after so much time."""
        return self._done_at(seconds) >= self.total and not self.step

    def seconds(self) -> float:
        """How long the run has taken, from its first start on."""
        return self.earlier_seconds + time.perf_counter() - self.started

    def _save(self) -> None:
        if self.files:
            self.files.save(self)

    def _heed(self, interrupted: threading.Event) -> None:
        stop = interrupted.is_set()
        if self.processes > 1:  # all leave at the same step, whichever process the signal reached
            stop = bool(self.accelerator.reduce(torch.tensor(float(stop), device=self.device)))
        if stop:
            self._save()
            raise KeyboardInterrupt(
                f"stopped after {self.epoch} epochs and {self.step} steps; the weights are usable"
            )

    # --- one step ---

    def _one_step(self, batch: dict[str, torch.Tensor]) -> None:
        self.prepared_optimizer.zero_grad()
        means: dict[str, torch.Tensor] = {}
        for part, generator in self._parts(batch):
            with self.accelerator.autocast():
                terms = self.loss(self.model, part, generator)
            shares = {k: v.float().mean() / self.settings["accumulate"] for k, v in terms.items()}
            self._check_finite(shares["loss"].detach(), "loss")
            self.accelerator.backward(shares["loss"])
            means = {k: means.get(k, 0.0) + v.detach() for k, v in shares.items()}

        clip = math.inf if self.settings["clip"] is None else self.settings["clip"]
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), clip)
        if self.accelerator.scaler is None:  # fp16's scaler skips such a step by itself
            self._check_finite(norm, "gradient")
        self.prepared_optimizer.step()
        if self.ema:
            self.ema.update_parameters(self.raw_model)
        self.sums = {k: self.sums.get(k, 0.0) + v for k, v in means.items()}
        self.step += 1

    def _parts(self, batch: dict) -> Iterator[tuple[dict, torch.Generator]]:
        """(part of the batch, generator of its noise): gradients are accumulated over the parts."""
        count = self.settings["accumulate"]
        rows = len(next(iter(batch.values()))) // count
        key = ("noise", self.settings["seed"], self.epoch, self.step)
        index, processes = self.shard
        for i in range(count):
            part = {name: rows_of[i * rows : (i + 1) * rows] for name, rows_of in batch.items()}
            shard = (index * count + i, processes * count)
            yield part, generator_for(*key, device=self.device, shard=shard)

    def _check_finite(self, value: torch.Tensor | float, what: str) -> None:
        if not math.isfinite(value):
            saved = self.files and self.files.last.exists()
            kept = "last good checkpoint is kept" if saved else "weights are those before this step"
            step = min(self.step + 1, len(self.batches))
            raise CourseError(
                f"Training stopped at epoch {self.epoch + 1}, step {step}: the {what} is "
                f"{float(value)}; the {kept}. Try a smaller learning rate, and look for a log or "
                "a division of zero in the loss."
            )

    # --- the end of an epoch ---

    def _finish_epoch(self, validate: Callable | None, callback: Callable | None) -> dict:
        row = {
            "epoch": self.epoch + 1,
            "seconds": round(self.seconds(), 3),
            "lr": self.scheduler.get_last_lr()[0],
        }
        row |= {
            k: self.accelerator.reduce(v / self.step, "mean").item() for k, v in self.sums.items()
        }
        averaged = self.ema.swapped_in(self.raw_model) if self.ema else nullcontext()
        with self._without_autocast(), averaged:
            if validate is not None:
                row |= {f"val_{name}": value for name, value in validate().items()}
                self._check_finite(row["val_loss"], "val_loss")
                row["seconds"] = round(self.seconds(), 3)
            if callback and self.accelerator.is_main_process:
                self.raw_model.eval()
                callback(self.raw_model, row)
            self.history.rows.append(row)
            if self.files:
                self.files.save_epoch(self, row)
        self.epoch += 1
        self.step = 0
        self.sums = {}
        self._save()  # last, because a kill before it repeats the epoch and so the other two files
        return row

    @contextmanager
    def _without_autocast(self):
        """The model without Accelerate's wrapper: held-out figures are computed in float32."""
        members = vars(self.raw_model)
        wrapper = {k: members.pop(k) for k in ("forward", "_original_forward") if k in members}
        try:
            yield
        finally:
            members.update(wrapper)

    def detach(self) -> None:
        """Give the caller back a plain model, with the averaged weights where there are some.

        Accelerate's wrapper would compute later evaluations in half precision.
        """
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        for name in ("forward", "_original_forward"):
            self.raw_model.__dict__.pop(name, None)
        if self.ema:
            self.raw_model.load_state_dict(self.ema.module.state_dict())
        self.raw_model.eval()
