"""`fit`: one training loop for every model of the course, on Hugging Face Accelerate.

The order of the images and all noise depend on (seed, epoch, step) alone.  A run that was killed therefore goes on
exactly where it was, and several processes see what one process would have seen.
"""

from collections.abc import Callable
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from helpers import CourseError, losses, trainer
from helpers.budget import device
from helpers.checkpoints import fingerprint, run_folder
from helpers.data import Batches, ImageSet
from helpers.history import History
from helpers.interrupts import polite_interrupt
from helpers.schedules import SCHEDULES, Length
from helpers.trainer import Loss, Trainer, evaluate

__all__ = ["choose_precision", "evaluate", "fit"]


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
    epochs: int | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    batch_size: int = 256,
    accumulate: int = 1,
    lr: float = 2e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    schedule: str = "one-cycle",
    clip: float | None = 1.0,
    ema: float | None = None,
    validation: ImageSet | None = None,
    augment: Callable | None = None,
    watch: Callable[[nn.Module, dict], None] | None = None,
    seed: int = 0,
    precision: str = "auto",
    run: str | None = None,
    resume: bool = True,
    checkpoint_seconds: float = 60.0,
) -> History:
    """Train `model` in place with Adam and return its History.

    loss(model, batch, generator): a dict of per-image tensors (B,), of which "loss" is minimised; `generator` gives
    the noise.  Exactly one of epochs, steps and minutes.  batch_size counts over all processes; accumulate: computed
    in so many parts, with less memory and the same numbers.  schedule: "one-cycle", "cosine" or "constant".  clip:
    largest gradient norm.  ema: decay of averaged weights, which are then validated, saved as best and left in
    `model`.  watch(model, row): called after each epoch.  precision: "auto", "bf16", "fp16" or "no".  run: a
    name; checkpoints and history.csv then go to $COURSE_RUNS/run/<fingerprint>/, and the same call after a kill goes on
    from the last one (resume=True).

    Raises CourseError where the loss or its gradient stops being finite, and KeyboardInterrupt after a ctrl-C,
    both with the last good checkpoint on disk.
    """
    on, length = device(), Length(epochs, steps, minutes)
    _check(schedule=(schedule, *SCHEDULES), precision=(precision, "auto", "bf16", "fp16", "no"))
    if precision == "fp16" and on.type != "cuda":
        raise CourseError("precision is 'fp16', which needs an NVIDIA GPU; 'auto' takes what this machine has.")
    chosen = choose_precision(on) if precision == "auto" else precision
    AcceleratorState._reset_state()  # one process trains several models, each in its own precision
    accelerator = Accelerator(mixed_precision=chosen, cpu=on.type == "cpu")
    if batch_size % (accelerator.num_processes * accumulate):
        parts = f"{accelerator.num_processes} processes" + (f" in {accumulate} parts each" if accumulate > 1 else "")
        raise CourseError(f"A batch of {batch_size} cannot be shared by {parts}.")
    batches = Batches(train, batch_size, seed=seed, device=accelerator.device, augment=augment)
    settings = vars(length) | {"batch_size": batch_size, "accumulate": accumulate, "lr": lr, "betas": list(betas)}
    settings |= {"schedule": schedule, "clip": clip, "ema": ema, "seed": seed, "precision": chosen}
    settings |= {"processes": accelerator.num_processes, "held out": len(validation or ())}
    folder = None
    if run:
        first = _first_weights(model, run)
        files = (__file__, trainer.__file__, losses.__file__)
        code = fingerprint(type(model), loss, augment, *(Path(file).read_text() for file in files))
        parts = {"configuration": fingerprint(settings, str(model), first), "code": code}
        parts["data"] = fingerprint([(data.images, data.labels) for data in (train, validation) if data is not None])
        folder = run_folder(run, parts, speak=accelerator.is_main_process)
        accelerator.wait_for_everyone()
    loop = Trainer(model, loss, batches, accelerator, length, settings, folder)
    try:
        if folder and resume:
            loop.restore()
        with polite_interrupt() as interrupted:
            loop.train(validation, watch, interrupted, checkpoint_seconds)
    finally:
        loop.detach()
        if run:
            _begun[model] = (run, fingerprint(model.state_dict()), first)
    return loop.history


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
