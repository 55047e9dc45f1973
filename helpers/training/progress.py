"""How a long training goes: a line of text after every epoch, and curves for TensorBoard."""

import os
import sys
from pathlib import Path

from accelerate import Accelerator

from helpers.training.schedules import Length


class EpochLines:
    """Prints a line per epoch with the time that is left, where no terminal shows a bar."""

    def __init__(self, length: Length, epoch_steps: int):
        self.length = length
        self.epoch_steps = epoch_steps

    def __call__(self, row: dict) -> None:
        if not sys.stderr.isatty() and os.environ.get("TQDM_DISABLE") != "1":
            print(self.line(row), flush=True)  # a file must show it now

    def line(self, row: dict) -> str:
        """One epoch in words; row: as in a History, with the "psnr" of a Filmstrip."""
        minutes = row["seconds"] / 60
        if self.length.minutes is not None:
            left = max(0.0, self.length.minutes - minutes)
        else:
            steps = row["epoch"] * self.epoch_steps
            left = max(0.0, minutes * (self.length.total(self.epoch_steps) / steps - 1))
        losses = f"loss {row['loss']:.4g}, held out {row['val_loss']:.4g}, {row['psnr']:.2f} dB"
        return f"epoch {row['epoch']}: {losses}; {minutes:.1f} minutes, about {left:.1f} left"


class TensorBoard:
    """Writes the rows of a History into `folder`, for `tensorboard --logdir`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.accelerator: Accelerator | None = None

    def __call__(self, row: dict) -> None:
        if self.accelerator is None:  # now, because `fit` makes an Accelerator of its own first
            self.accelerator = Accelerator(log_with="tensorboard", project_dir=self.folder)
            # an earlier run's later epochs disappear
            settings = {"tensorboard": {"purge_step": row["epoch"]}}
            self.accelerator.init_trackers("", init_kwargs=settings)
        self.accelerator.log(row, step=row["epoch"])
