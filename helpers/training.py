"""`fit`: one training loop for every model of the course, on Hugging Face Accelerate.

The order of the images and all noise depend on (seed, epoch, step) alone.  A run that was killed therefore goes on
exactly where it was, and several processes see what one process would have seen.
"""

import math
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from tqdm.auto import tqdm

from helpers import CourseError, losses
from helpers.budget import device, generator_for, random_state, set_random_state
from helpers.checkpoints import fingerprint, nest, read_tensors, run_folder, unnest, write_tensors
from helpers.data import Batch, Batches, ImageSet
from helpers.history import History

Loss = Callable[[nn.Module, Batch, torch.Generator], dict[str, torch.Tensor]]


def choose_precision(on: torch.device) -> str:
    """Accelerate's name for the fastest safe arithmetic: "bf16", "fp16" (with a gradient scaler) or "no" (fp32)."""
    if on.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16"  # a T4 is 7.5
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)  # newer torch only
    return "bf16" if on.type == "cpu" and has_bf16() else "no"


def fit(
    model: nn.Module,
    loss: Loss,
    train: ImageSet,
    *,
    epochs: int,
    batch_size: int = 256,
    lr: float = 2e-3,
    schedule: str = "one-cycle",
    clip: float | None = 1.0,
    validation: ImageSet | None = None,
    augment: Callable | None = None,
    seed: int = 0,
    precision: str = "auto",
    run: str | None = None,
    resume: bool = True,
    checkpoint_seconds: float = 60.0,
) -> History:
    """Train `model` in place with Adam and return its History.

    loss(model, batch, generator): a dict of per-image tensors (B,), of which "loss" is minimised; `generator` gives
    the noise.  batch_size counts over all processes.  schedule: "one-cycle", "cosine" or "constant".  clip: largest
    gradient norm.  precision: "auto", "bf16", "fp16" or "no".  run: a name; checkpoints and history.csv then go to
    $COURSE_RUNS/run/<fingerprint>/, and the same call after a kill goes on from the last one (resume=True).

    Raises CourseError where the loss or its gradient stops being finite, and KeyboardInterrupt after a ctrl-C,
    both with the last good checkpoint on disk.
    """
    on = device()
    _check(schedule=(schedule, "one-cycle", "cosine", "constant"), precision=(precision, "auto", "bf16", "fp16", "no"))
    if precision == "fp16" and on.type != "cuda":
        raise CourseError("precision is 'fp16', which needs an NVIDIA GPU; 'auto' takes what this machine has.")
    chosen = choose_precision(on) if precision == "auto" else precision
    AcceleratorState._reset_state()  # one process trains several models, each in its own precision
    accelerator = Accelerator(mixed_precision=chosen, cpu=on.type == "cpu")
    if batch_size % accelerator.num_processes:
        raise CourseError(f"A batch of {batch_size} cannot be shared by {accelerator.num_processes} processes.")
    batches = Batches(train, batch_size, seed=seed, device=accelerator.device, augment=augment)
    settings = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "schedule": schedule, "clip": clip, "seed": seed}
    settings |= {"precision": chosen, "processes": accelerator.num_processes, "held out": len(validation or ())}
    folder = None
    if run:
        first = _first_weights(model, run)
        code = fingerprint(type(model), loss, augment, *(Path(f).read_text() for f in (__file__, losses.__file__)))
        parts = {"configuration": fingerprint(settings, str(model), first), "code": code}
        parts["data"] = fingerprint([(data.images, data.labels) for data in (train, validation) if data is not None])
        folder = run_folder(run, parts, speak=accelerator.is_main_process)
        accelerator.wait_for_everyone()
    trainer = _Trainer(model, loss, batches, accelerator, settings, folder)
    try:
        if folder and resume:
            trainer.restore()
        with _polite_interrupt() as interrupted:
            trainer.train(validation, interrupted, checkpoint_seconds)
    finally:
        trainer.detach()
        if run:
            _begun[model] = (run, fingerprint(model.state_dict()), first)
    return trainer.history


_begun: WeakKeyDictionary[nn.Module, tuple] = WeakKeyDictionary()  # model → run, weights when it stopped, at its start


def _first_weights(model: nn.Module, run: str) -> str:
    """The fingerprint of the weights that `run` began with: after a ctrl-C the model in memory has other ones."""
    now = fingerprint(model.state_dict())
    earlier = _begun.get(model, ())
    return earlier[2] if earlier[:2] == (run, now) else now


def _check(**options) -> None:
    """name=(value, what it can be, …): CourseError where it is something else."""
    for name, (value, *known) in options.items():
        if value not in known:
            raise CourseError(f"{name} is {value!r}; it can be {', '.join(map(repr, known))}.")


class _Trainer:
    """The state of one training run: model, optimizer, rate, and the position (epoch, step)."""

    def __init__(self, model, loss, batches, accelerator, settings, folder):
        self.loss, self.batches, self.accelerator, self.settings, self.folder = loss, batches, accelerator, settings, folder
        self.bare = model
        on = accelerator.device
        self.optimizer = torch.optim.Adam(model.to(on).parameters(), lr=settings["lr"], fused=on.type in ("cpu", "cuda"))
        self.scheduler = _scheduler(self.optimizer, settings, max(1, settings["epochs"] * len(batches)))
        self.model, self.prepared = accelerator.prepare(model, self.optimizer)
        self.history, self.epoch, self.step, self.earlier_seconds = History(), 0, 0, 0.0
        self.sums: dict[str, float] = {}

    def train(self, validation, interrupted, checkpoint_seconds) -> None:
        self.started = saved = time.perf_counter()
        shard = (self.accelerator.process_index, self.accelerator.num_processes)
        total, done = self.settings["epochs"] * len(self.batches), self.epoch * len(self.batches) + self.step
        # tqdm reads TQDM_DISABLE itself, but not for its notebook bars
        silent = not self.accelerator.is_main_process or os.environ.get("TQDM_DISABLE") == "1"
        with tqdm(total=total, initial=done, unit="step", leave=False, disable=silent) as bar:
            while self.epoch < self.settings["epochs"]:
                self.model.train()
                for batch in self.batches.epoch(self.epoch, self.step, shard):
                    self._one_step(batch, shard)
                    bar.update()
                    self._heed(interrupted)
                    if time.perf_counter() - saved > checkpoint_seconds:
                        self.save()
                        saved = time.perf_counter()
                row = self._finish_epoch(validation)
                bar.set_postfix({k: f"{v:.4g}" for k, v in row.items() if k not in ("epoch", "seconds", "rate")})
                if self.folder:
                    self._save_epoch(row)
                self._heed(interrupted)  # a ctrl-C during the evaluation

    def _heed(self, interrupted: threading.Event) -> None:
        if interrupted.is_set():
            self.save()
            raise KeyboardInterrupt(f"stopped after {self.epoch} epochs and {self.step} steps; the weights are usable")

    def _one_step(self, batch: Batch, shard: tuple[int, int]) -> None:
        generator = generator_for(
            "noise", self.settings["seed"], self.epoch, self.step, device=self.accelerator.device, shard=shard
        )
        self.prepared.zero_grad()
        with self.accelerator.autocast():
            terms = self.loss(self.model, batch, generator)
        means = {name: value.float().mean() for name, value in terms.items()}
        self._insist(means["loss"].detach(), "loss")
        self.accelerator.backward(means["loss"])
        clip = math.inf if self.settings["clip"] is None else self.settings["clip"]
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), clip)
        if self.accelerator.scaler is None:  # fp16's scaler skips such a step by itself and lowers its scale
            self._insist(norm, "gradient")
        self.prepared.step()
        self.scheduler.step()
        for name, value in means.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach()
        self.step += 1

    def _insist(self, value: torch.Tensor | float, what: str) -> None:
        if not math.isfinite(value):
            saved = self.folder and (self.folder / "last.safetensors").exists()
            where = "the last good checkpoint is kept" if saved else "the weights are those before this step"
            step = min(self.step + 1, len(self.batches))
            raise CourseError(
                f"Training stopped at epoch {self.epoch + 1}, step {step}: the {what} is {float(value)}; {where}. "
                "Try a smaller learning rate, and look for a log or a division of zero in the loss."
            )

    def _finish_epoch(self, validation: ImageSet | None) -> dict:
        means = {k: self.accelerator.reduce(v / self.step, "mean").item() for k, v in self.sums.items()}
        if validation is not None:
            with self._plain():
                means |= {f"val_{k}": v for k, v in evaluate(self.bare, self.loss, validation).items()}
            self._insist(means["val_loss"], "val_loss")
        self.epoch, self.step, self.sums = self.epoch + 1, 0, {}
        row = {"epoch": self.epoch, "seconds": round(self._seconds(), 3), "rate": self.scheduler.get_last_lr()[0]} | means
        self.history.rows.append(row)
        return row

    def _seconds(self) -> float:
        return self.earlier_seconds + time.perf_counter() - self.started

    def _save_epoch(self, row: dict) -> None:
        score = "val_loss" if "val_loss" in row else "loss"
        if row[score] == min(self.history[score]) and self.accelerator.is_main_process:
            write_tensors(self.folder / "best.safetensors", self.bare.state_dict(), {"epoch": row["epoch"]})
        if self.accelerator.is_main_process:
            self.history.save_csv(self.folder / "history.csv")
        self.save()  # last, because a kill before it repeats the epoch and so the other two files

    def save(self) -> None:
        """Write everything that the next step depends on to one file, last.safetensors."""
        if self.folder is None or not self.accelerator.is_main_process:
            return
        tensors = nest({"model": self.bare.state_dict(), "sums": self.sums, "rng": random_state()})
        state, scaler = self.optimizer.state_dict(), self.accelerator.scaler
        tensors |= nest({f"optimizer.{i}": entry for i, entry in state["state"].items()})
        header = {"epoch": self.epoch, "step": self.step, "seconds": self._seconds(), "history": self.history.rows}
        header |= {"groups": state["param_groups"], "scheduler": self.scheduler.state_dict()}
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
        self.scheduler.load_state_dict(header["scheduler"])
        if header["scaler"] and self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(header["scaler"])
        set_random_state(unnest(tensors, "rng"))
        self.sums = {k: v.to(self.accelerator.device) for k, v in unnest(tensors, "sums").items()}
        self.epoch, self.step, self.earlier_seconds = header["epoch"], header["step"], header["seconds"]
        self.history = History(header["history"])
        done = self.epoch == self.settings["epochs"]
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
        self.bare.eval()


def _scheduler(optimizer: torch.optim.Optimizer, settings: dict, steps: int):
    name, lr = settings["schedule"], settings["lr"]
    if name == "one-cycle":  # Smith & Topin 2018: up in the first tenth, then down to nothing
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps + 1, pct_start=0.1, cycle_momentum=False)
    if name == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


@torch.no_grad()
def evaluate(model: nn.Module, loss: Loss, data: ImageSet, batch_size: int = 1000, seed: int = 0) -> dict[str, float]:
    """Mean of every loss term over all images of `data`, in float32; the noise is the same at every call."""
    model.eval()
    on, totals = next(model.parameters()).device, {}
    for start in range(0, len(data), batch_size):
        part = data[start : start + batch_size]
        batch = Batch(part.pixels(on), None if part.labels is None else part.labels.to(on))
        generator = generator_for("evaluate", seed, start, device=on)
        for name, value in loss(model, batch, generator).items():
            totals[name] = totals.get(name, 0.0) + value.float().sum().item()
    return {name: total / len(data) for name, total in totals.items()}


@contextmanager
def _polite_interrupt():
    """An event that the first ctrl-C sets, so that a step is never cut in two; a second ctrl-C stops at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handler(number, frame):
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
