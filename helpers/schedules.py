"""How long a run lasts, and the learning rate on the way: by epochs, by steps, or by the clock."""

import torch
from torch.optim import lr_scheduler

from helpers import CourseError

TICKS = 1000  # a run by the clock changes its rate this often
SCHEDULES = ("one-cycle", "cosine", "constant")


class Length:
    """Exactly one of epochs, steps and minutes: a run of that length goes from progress 0 to 1."""

    def __init__(self, epochs: int | None, steps: int | None, minutes: float | None):
        if sum(given is not None for given in (epochs, steps, minutes)) != 1:
            raise CourseError("Say how long to train with exactly one of epochs, steps and minutes.")
        self.epochs, self.steps, self.minutes = epochs, steps, minutes

    def ticks(self, epoch_steps: int) -> int:
        """How often the rate changes: once a step, or TICKS times in a run by the clock."""
        if self.minutes is not None:
            return TICKS
        return self.steps if self.epochs is None else self.epochs * epoch_steps

    def done(self, steps: int, seconds: float, epoch_steps: int) -> int:
        """The ticks that lie behind after so many steps and seconds; at most `ticks`."""
        if self.minutes is None:
            return steps
        return min(TICKS, int(TICKS * seconds / (60 * self.minutes))) if self.minutes else TICKS


def make_scheduler(optimizer: torch.optim.Optimizer, name: str, ticks: int) -> lr_scheduler.LRScheduler:
    """The rate of each tick: "one-cycle", "cosine" (both end at nothing) or "constant"."""
    ticks = max(1, ticks)
    if name == "one-cycle":  # Smith & Topin 2018: up in the first tenth, then down
        lr = optimizer.param_groups[0]["lr"]
        return lr_scheduler.OneCycleLR(optimizer, lr, ticks + 1, pct_start=0.1, cycle_momentum=False)
    if name == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, ticks)
    return lr_scheduler.ConstantLR(optimizer, factor=1.0)
