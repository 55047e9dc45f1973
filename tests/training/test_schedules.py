"""How long a run lasts, and its learning rate on the way."""

import pytest
import torch

from helpers import CourseError
from helpers.training.schedules import TICKS, Length, make_lr_scheduler


def rates(name: str, ticks: int, lr: float = 0.5) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr)
    scheduler, seen = make_lr_scheduler(optimizer, name, ticks), []
    for _ in range(ticks):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


@pytest.mark.parametrize("given", [(None, None, None), (1, 1, None), (1, None, 1.0), (1, 1, 1.0)])
def test_exactly_one_length(given):
    with pytest.raises(CourseError, match="exactly one of epochs, steps and minutes"):
        Length(*given)


def test_ticks_are_steps_or_thousandths_of_the_time():
    epochs, steps, minutes = Length(3, None, None), Length(None, 7, None), Length(None, None, 0.5)
    assert [length.ticks(5) for length in (epochs, steps, minutes)] == [15, 7, TICKS]
    assert [length.done(6, 999.0, 5) for length in (epochs, steps)] == [6, 6]
    assert [minutes.done(6, seconds, 5) for seconds in (0.0, 15.0, 30.0, 99.0)] == [0, TICKS // 2, TICKS, TICKS]


def test_no_time_at_all_is_over_at_once():
    assert Length(None, None, 0.0).done(0, 0.0, 5) == TICKS


def test_one_cycle_rises_in_the_first_tenth_and_ends_at_nothing():
    seen = rates("one-cycle", 100)
    top = seen.index(max(seen))
    assert 8 <= top <= 11 and max(seen) == pytest.approx(0.5, rel=0.02) and seen[0] == pytest.approx(0.02)
    assert seen[: top + 1] == sorted(seen[: top + 1]) and seen[top:] == sorted(seen[top:], reverse=True)
    assert seen[-1] < 1e-3


def test_cosine_falls_from_the_start_and_constant_stays():
    cosine = rates("cosine", 50)
    assert cosine[0] == 0.5 and cosine[25] == pytest.approx(0.25, rel=0.1) and cosine[-1] < 1e-2
    assert set(rates("constant", 50)) == {0.5}
