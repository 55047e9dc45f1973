"""`fit` and `evaluate`: one training loop for every model, on Hugging Face Accelerate.

The order of the rows and all noise depend on (seed, epoch, step) alone.  A run that was killed
therefore goes on exactly where it was, and several processes see what one would have seen.
"""

import signal
import threading
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from torch import nn

from helpers import CourseError, check_choice
from helpers.data.loader import DataSet, in_chunks, tensors_of
from helpers.env import device
from helpers.models import losses
from helpers.rng import generator_for
from helpers.training import run_state, trainer
from helpers.training.checkpoints import run_folder
from helpers.training.fingerprint import fingerprint_of
from helpers.training.history import History
from helpers.training.run_state import RunFiles
from helpers.training.schedules import SCHEDULES
from helpers.training.settings import check_launcher, check_settings
from helpers.training.trainer import Loss, Trainer

PRECISIONS = ("auto", "bf16", "fp16", "no")


def choose_precision(on: torch.device) -> str:
    """Accelerate's name for the fastest safe arithmetic.

    "bf16", "fp16" (with a gradient scaler) or "no" (float32).
    """
    if on.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16"  # a T4 is 7.5
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)  # newer torch only
    return "bf16" if on.type == "cpu" and has_bf16() else "no"


def fit(
    model: nn.Module,
    loss: Loss,
    train: DataSet,
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
    validation: DataSet | None = None,
    augment: Callable | None = None,
    callback: Callable[[nn.Module, dict], None] | None = None,
    seed: int = 0,
    precision: str = "auto",
    run: str | None = None,
    resume: bool = True,
    checkpoint_seconds: float = 60.0,
    note: dict | None = None,
) -> History:
    """Train `model` in place with Adam and return its History.

    loss(model, batch, generator): a dict of per-image tensors (B,), of which "loss" is minimised;
    batch is a dict of tensors, `generator` gives the noise.
    train: an ImageSet, or any dict of equally long tensors.

    epochs, steps, minutes: exactly one of them.
    batch_size counts over all processes.  accumulate: a batch is computed in so many parts, with
    less memory and the same result.
    lr: the largest learning rate.  schedule: "one-cycle", "cosine" or "constant".
    clip: largest gradient norm.
    ema: decay of averaged weights, which are then validated, saved as best and left in `model`.
    callback(model, row): called after each epoch; it may add to the row.
    precision: "auto", "bf16", "fp16" or "no".
    run: a name.  Checkpoints and history.csv then go to $COURSE_RUNS/run/<fingerprint>/, and the
    same call after a kill goes on from the last one (resume=True).  note: what their headers say
    beside the model's class and configuration.

    Raises CourseError for an argument of the wrong kind; and where the loss or its gradient stops
    being finite, and KeyboardInterrupt after a ctrl-C, both with the last good checkpoint on disk.
    """
    check_launcher()
    check_choice("schedule", schedule, SCHEDULES)
    check_choice("precision", precision, PRECISIONS)
    if precision == "fp16" and device().type != "cuda":
        raise CourseError(
            "precision is 'fp16', which needs an NVIDIA GPU; 'auto' takes what this machine has."
        )
    settings = {
        "epochs": epochs,
        "steps": steps,
        "minutes": minutes,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "lr": lr,
        "betas": list(betas),
        "schedule": schedule,
        "clip": clip,
        "ema": ema,
        "seed": seed,
        "precision": choose_precision(device()) if precision == "auto" else precision,
    }
    check_settings(settings)
    if validation is not None:
        tensors_of(validation)  # a fault shows before the training, not after its first epoch
    training = Trainer(model, loss, train, settings, augment)
    validate = None if validation is None else partial(evaluate, model, loss, validation)
    first = _first_weights(model, run)
    try:
        if run:
            folder = _open_run(training, run, first, train, validation, augment)
            training.files = RunFiles(folder, note)
            if resume:
                training.files.restore(training)
        with polite_interrupt() as interrupted:
            training.train(validate, callback, interrupted, checkpoint_seconds)
    finally:
        training.detach()
        if run:
            _begun[model] = (run, fingerprint_of(model.state_dict()), first)
    return training.history


@torch.no_grad()
def evaluate(model: nn.Module, loss: Loss, data: DataSet, seed: int = 0) -> dict[str, float]:
    """Mean of every loss term over all rows of `data`, in float32.

    The noise is the same at every call.
    """
    model.eval()
    on = next(model.parameters()).device
    totals: dict[str, float] = {}
    count = 0
    for batch in in_chunks(data, on):
        generator = generator_for("evaluate", seed, count, device=on)
        for name, value in loss(model, batch, generator).items():
            totals[name] = totals.get(name, 0.0) + value.float().sum().item()
        count += len(next(iter(batch.values())))
    return {name: total / count for name, total in totals.items()}


def _open_run(
    training: Trainer,
    run: str,
    first: str,
    train: DataSet,
    validation: DataSet | None,
    augment: Callable | None,
) -> Path:
    """The folder of a run: another one where its configuration, code or data are not the same."""
    files = (__file__, trainer.__file__, run_state.__file__, losses.__file__)
    code = [Path(file).read_text(encoding="utf-8") for file in files]
    held_out = 0 if validation is None else len(next(iter(tensors_of(validation).values())))
    settings = training.settings | {"processes": training.processes, "held out": held_out}
    model = training.raw_model
    frozen = [name for name, weight in model.named_parameters() if not weight.requires_grad]
    data = [tensors_of(part) for part in (train, validation) if part is not None]
    parts = {
        "configuration": fingerprint_of(settings, str(model), frozen, first),
        "code": fingerprint_of(type(model), training.loss, augment, *code),
        "data": fingerprint_of(data),
    }
    folder = run_folder(run, parts, speak=training.accelerator.is_main_process)
    training.accelerator.wait_for_everyone()
    return folder


# model → run, fingerprints of its weights when that stopped and when it began
_begun: WeakKeyDictionary[nn.Module, tuple] = WeakKeyDictionary()


def _first_weights(model: nn.Module, run: str | None) -> str | None:
    """The fingerprint of the weights that `run` began with.

    After a ctrl-C the model in memory has other ones.
    """
    if run is None:
        return None
    now = fingerprint_of(model.state_dict())
    earlier = _begun.get(model, ())
    return earlier[2] if earlier[:2] == (run, now) else now


@contextmanager
def polite_interrupt():
    """An event that the first ctrl-C sets, so that a step is never cut in two.

    A second ctrl-C stops at once.
    """
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
