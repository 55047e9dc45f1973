"""How long a run lasts, and the learning rate on the way: by epochs, by steps, or by the clock."""

import torch
from torch.optim import lr_scheduler

from helpers import CourseError, check_number

CLOCK_STEPS = 1000  # a run by the clock changes its learning rate this often
SCHEDULES = ("one-cycle", "cosine", "constant")


class Length:
    """Exactly one of epochs, steps, minutes; counted in steps of the learning rate's schedule."""

    def __init__(self, epochs: int | None, steps: int | None, minutes: float | None):
        if sum(given is not None for given in (epochs, steps, minutes)) != 1:
            raise CourseError("Say how long to train with exactly one of epochs, steps, minutes.")
        _check_length(epochs, steps, minutes)
        self.epochs = epochs
        self.steps = steps
        self.minutes = minutes

    def total(self, epoch_steps: int) -> int:
        """All steps of the schedule: the training steps, or CLOCK_STEPS in a run by the clock."""
        if self.minutes is not None:
            return CLOCK_STEPS
        return self.steps if self.epochs is None else self.epochs * epoch_steps

    def done(self, steps: int, seconds: float) -> int:
        """The steps of the schedule that lie behind after so many training steps and seconds."""
        if self.minutes is None:
            return steps
        if not self.minutes:
            return CLOCK_STEPS
        return min(CLOCK_STEPS, int(CLOCK_STEPS * seconds / (60 * self.minutes)))


def _check_length(epochs: int | None, steps: int | None, minutes: float | None) -> None:
    if minutes is not None:
        check_number("minutes", minutes, 0)
    else:
        name, value = ("epochs", epochs) if steps is None else ("steps", steps)
        check_number(name, value, 0, whole=True)


def make_lr_scheduler(
    optimizer: torch.optim.Optimizer, name: str, steps: int
) -> lr_scheduler.LRScheduler:
    """The learning rate of each step: "one-cycle", "cosine" (both end at 0) or "constant"."""
    steps = max(1, steps)
    if name == "one-cycle":  # Smith & Topin 2018: up in the first tenth, then down
        lr = optimizer.param_groups[0]["lr"]
        rise = 0.1 if steps != 9 else 0.11  # torch divides by 0 where the rise ends with step 0
        return lr_scheduler.OneCycleLR(
            optimizer, lr, steps + 1, pct_start=rise, cycle_momentum=False
        )
    if name == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return lr_scheduler.ConstantLR(optimizer, factor=1.0)
