"""`fit` beyond epochs: steps, minutes, accumulation, averaged weights, watching, and all of them after a kill."""

import time
from functools import partial

import pytest
import torch

from helpers import CourseError
from helpers.data.augment import crop_and_flip
from helpers.data.image_set import ImageSet
from helpers.models.conv_vae import ConvVAE, VAEConfig, image_loss
from helpers.models.discriminator import VAEGAN, PatchDiscriminator, vae_gan_loss
from helpers.training.checkpoints import read_tensors
from helpers.training.ema import EMA
from helpers.training.loop import fit
from helpers.training.trainer import Trainer, evaluate
from tests.training.small_training import STEPS_PER_EPOCH, small_fit, small_model, squares, vae_loss

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("error::UserWarning")]


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def photos(count: int = 24, size: int = 20) -> ImageSet:
    images = torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return ImageSet(images, None, "noise")


def conv_model() -> ConvVAE:
    torch.manual_seed(1)
    return ConvVAE(VAEConfig((8, 8), latent_channels=2, blocks=1, groups=2))


def weights(model) -> list[torch.Tensor]:
    return [weight.clone() for weight in model.state_dict().values()]


def equal(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


class Stop(Exception):
    pass


left = {"steps": 0}  # before the next stop; a dict is no part of a run's fingerprint


def stop_at(model, batch, generator):
    """`vae_loss`, which stops after left["steps"] training steps."""
    if model.training and left["steps"]:
        left["steps"] -= 1
        if not left["steps"]:
            raise Stop
    return vae_loss(model, batch, generator)


def test_steps_end_a_run_in_the_middle_of_an_epoch():
    model = small_model()
    history = small_fit(model, epochs=None, steps=STEPS_PER_EPOCH + 2)
    assert history["epoch"] == [1, 2]
    same = small_model()
    small_fit(same, epochs=None, steps=STEPS_PER_EPOCH + 2, validation=squares(30, seed=2), run="steps")
    assert equal(weights(model), weights(same))
    again = small_model()
    small_fit(again, epochs=None, steps=STEPS_PER_EPOCH + 2, validation=squares(30, seed=2), run="steps")
    assert equal(weights(model), weights(again)), "a finished run is loaded, not trained on"


def test_steps_of_whole_epochs_are_epochs():
    model, other = small_model(), small_model()
    small_fit(model, epochs=2)
    small_fit(other, epochs=None, steps=2 * STEPS_PER_EPOCH)
    assert equal(weights(model), weights(other))


def test_minutes_end_a_run_by_the_clock():
    started = time.perf_counter()
    history = small_fit(small_model(), epochs=None, minutes=2 / 60)
    assert 1.9 < time.perf_counter() - started < 10 and 2.0 <= history.seconds < 4
    assert history["lr"][-1] < 1e-5 < max(history["lr"])


class Clock:
    """Stands for the time module: every look at it takes a hundredth of a second."""

    now = 0.0

    def perf_counter(self) -> float:
        self.now += 0.01
        return self.now


def test_a_run_by_the_clock_goes_on_with_the_time_that_is_left(runs, monkeypatch):
    monkeypatch.setattr("helpers.trainer.time", Clock())
    options = {"epochs": None, "minutes": 3 / 60, "checkpoint_seconds": 0.0}
    left["steps"] = 10**6
    small_fit(small_model(), stop_at, run="undisturbed", **options)
    whole, left["steps"] = 10**6 - left["steps"], 40
    with pytest.raises(Stop):
        small_fit(small_model(), stop_at, run="clock", **options)
    left["steps"] = 10**6
    history = small_fit(small_model(), stop_at, run="clock", **options)
    rest = 10**6 - left["steps"]
    left["steps"] = 0
    assert whole > 60 and history.seconds >= 3.0
    assert rest == pytest.approx(whole - 40, abs=5)


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulation_gives_the_weights_of_the_whole_batch(parts):
    whole, parted = conv_model(), conv_model()
    options = {"epochs": 2, "batch_size": 8, "precision": "no", "augment": partial(crop_and_flip, size=16), "lr": 1e-3}
    first = fit(whole, image_loss, photos(), **options)
    second = fit(parted, image_loss, photos(), accumulate=parts, **options)
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-5)
    for a, b in zip(weights(whole), weights(parted), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-5)


def test_a_batch_that_the_parts_do_not_divide_is_refused():
    with pytest.raises(CourseError, match="A batch of 16 cannot be shared by 1 processes in 3 parts each"):
        small_fit(small_model(), accumulate=3)


def test_averaged_weights_are_validated_watched_saved_as_best_and_left_in_the_model(runs):
    held_out, seen = squares(30, seed=2), []

    def watch(model, row):
        assert not model.training
        seen.append((row["epoch"], weights(model), evaluate(model, vae_loss, held_out)["loss"]))

    plain, model = small_model(), small_model()
    small_fit(plain)
    history = small_fit(model, ema=0.9, validation=held_out, callback=watch, run="ema")
    assert not equal(weights(plain), weights(model))
    assert equal(seen[-1][1], weights(model))
    assert history["val_loss"] == pytest.approx([loss for *_, loss in seen], rel=1e-6)
    (best,) = (runs / "ema").glob("*/best.safetensors")
    chosen = min(seen, key=lambda entry: entry[2])
    stored = read_tensors(best)[0]
    assert equal([stored[name] for name in model.state_dict()], chosen[1])


def test_averaging_does_not_change_the_training_itself():
    plain = small_fit(small_model())
    averaged = small_fit(small_model(), ema=0.99)
    assert plain["loss"] == averaged["loss"]


def test_the_average_is_the_one_of_every_step():
    model, steps = small_model(), []

    class Recorder(EMA):
        def update(self, model):
            super().update(model)
            steps.append(model.state_dict()["encoder.0.bias"].clone())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("helpers.trainer.EMA", Recorder)
        small_fit(model, ema=0.5)
    expected = small_model().state_dict()["encoder.0.bias"]
    for n, value in enumerate(steps):
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
    torch.testing.assert_close(model.state_dict()["encoder.0.bias"], expected)


@pytest.mark.parametrize("stop", [3, STEPS_PER_EPOCH + 2])
def test_a_killed_run_with_averages_and_parts_ends_as_an_undisturbed_one(stop):
    options = {"ema": 0.9, "accumulate": 2, "checkpoint_seconds": 0.0, "validation": squares(30, seed=2)}
    undisturbed = small_model()
    small_fit(undisturbed, stop_at, run="undisturbed", **options)
    model = small_model()
    left["steps"] = 2 * stop
    with pytest.raises(Stop):
        small_fit(model, stop_at, run="killed", **options)
    resumed = small_model()
    small_fit(resumed, stop_at, run="killed", **options)
    assert equal(weights(undisturbed), weights(resumed))


def test_watch_may_add_to_the_row():
    def watch(model, row):
        row["mine"] = float(row["epoch"])

    assert small_fit(small_model(), callback=watch)["mine"] == [1.0, 2.0, 3.0]


def test_betas_reach_the_optimizer():
    one, other = small_model(), small_model()
    small_fit(one, betas=(0.5, 0.9))
    small_fit(other)
    assert not equal(weights(one), weights(other))


def test_a_contest_is_trained_by_one_call():
    vae = conv_model()
    contest = VAEGAN(vae, PatchDiscriminator(width=8, layers=2, groups=2))
    before, judge = weights(vae), weights(contest.discriminator)
    history = fit(contest, vae_gan_loss, photos(size=32), epochs=2, batch_size=4, betas=(0.5, 0.9), clip=None, ema=0.9,
                  precision="bf16", validation=photos(5, 32))  # fmt: skip
    assert not equal(before, weights(vae)) and not equal(judge, weights(contest.discriminator))
    assert history["discriminator"][-1] < history["discriminator"][0]


def test_a_resumed_optimizer_has_the_weights_memory_format(monkeypatch):
    """On a GPU the weights are channels_last, and fused Adam refuses moments that are not."""
    same, restore = [], Trainer.restore

    def spy(self):
        restore(self)
        same.extend(weight.stride() == entry["exp_avg"].stride() for weight, entry in self.optimizer.state.items())

    monkeypatch.setattr(Trainer, "restore", spy)
    for _ in range(2):  # the second call loads what the first one left
        model = conv_model().to(memory_format=torch.channels_last)
        fit(model, partial(image_loss, beta=0.1), photos(), steps=2, batch_size=4, run="format")
    assert len(same) == len(list(model.parameters())) and all(same)
