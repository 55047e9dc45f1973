"""How long a run lasts, and its learning rate on the way."""

import pytest
import torch

from helpers import CourseError
from helpers.training.schedules import CLOCK_STEPS, Length, make_lr_scheduler


def learning_rates(name: str, steps: int, lr: float = 0.5) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr)
    scheduler = make_lr_scheduler(optimizer, name, steps)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


@pytest.mark.parametrize("given", [(None, None, None), (1, 1, None), (1, None, 1.0), (1, 1, 1.0)])
def test_exactly_one_length(given):
    with pytest.raises(CourseError, match="exactly one of epochs, steps, minutes"):
        Length(*given)


def test_the_schedules_steps_are_training_steps_or_shares_of_the_time():
    epochs, steps, minutes = Length(3, None, None), Length(None, 7, None), Length(None, None, 0.5)
    assert [length.total(5) for length in (epochs, steps, minutes)] == [15, 7, CLOCK_STEPS]
    assert [length.done(6, 999.0) for length in (epochs, steps)] == [6, 6]
    done = [minutes.done(6, seconds) for seconds in (0.0, 15.0, 30.0, 99.0)]
    assert done == [0, CLOCK_STEPS // 2, CLOCK_STEPS, CLOCK_STEPS]


def test_no_time_at_all_is_over_at_once():
    assert Length(None, None, 0.0).done(0, 0.0) == CLOCK_STEPS


def test_one_cycle_rises_in_the_first_tenth_and_ends_at_nothing():
    seen = learning_rates("one-cycle", 100)
    top = seen.index(max(seen))
    assert 8 <= top <= 11
    assert seen[0] == pytest.approx(0.02) and seen[top] == pytest.approx(0.5, rel=0.02)
    assert seen[: top + 1] == sorted(seen[: top + 1])
    assert seen[top:] == sorted(seen[top:], reverse=True) and seen[-1] < 1e-3


@pytest.mark.parametrize("name", ["one-cycle", "cosine", "constant"])
def test_a_run_may_be_as_short_as_it_likes(name):
    for steps in range(1, 25):
        seen = learning_rates(name, steps)
        assert len(seen) == steps and all(0 < lr <= 0.5 for lr in seen)


def test_cosine_falls_from_the_start_and_constant_stays():
    cosine = learning_rates("cosine", 50)
    assert cosine[0] == 0.5 and cosine[25] == pytest.approx(0.25, rel=0.1) and cosine[-1] < 1e-2
    assert set(learning_rates("constant", 50)) == {0.5}
