"""Runs of `fit` with a name: resumed bit for bit, stopped in good order, told apart."""

import csv
import functools
import os
import signal
from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from torch import nn

from helpers import CourseError
from helpers.data.augment import random_shift
from helpers.models.conv_vae import ConvVAE, VAEConfig, image_loss
from helpers.models.losses import bernoulli_nll, gaussian_nll, negative_elbo
from helpers.models.mlp_vae import MLPVAE
from helpers.training.checkpoints import read_tensors
from helpers.training.run_state import RunFiles
from tests.training.small_training import (
    STEPS_PER_EPOCH,
    DropoutVAE,
    equal,
    small_fit,
    small_model,
    squares,
    timeless,
    vae_loss,
)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("error::UserWarning")]


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    """A folder for this test's runs; `incident_loss` starts to count anew."""
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    plan()
    return tmp_path / "runs"


# --- a loss with incidents ---

script: dict[int, object] = {}  # training step → what happens in it; no part of a fingerprint
calls: list[int] = []


def incident_loss(model, batch, generator):
    terms = vae_loss(model, batch, generator)
    if model.training:
        calls.append(1)
        incident = script.get(len(calls))
        terms = incident(model, terms) or terms if incident else terms
    return terms


def plan(step: int = 0, incident=None) -> None:
    """What happens in one of the training steps from now on."""
    calls.clear()
    script.clear()
    if incident:
        script[step] = incident


class Killed(Exception):
    pass


def kill(model, terms):
    raise Killed


def ctrl_c(model, terms):
    os.kill(os.getpid(), signal.SIGINT)


def nan_loss(model, terms):
    return terms | {"loss": terms["loss"] * float("nan")}


def nan_gradient(model, terms):
    weight = next(model.parameters())
    return terms | {"loss": terms["loss"] + (weight.sum() * 0).sqrt()}  # adds 0; derivative 0 / 0


def the_run(runs, name: str = "vae"):
    """The folder of the only run of that name."""
    (file,) = (runs / name).glob("*/last.safetensors")
    return file.parent


def steps_saved(runs) -> int:
    header = read_tensors(the_run(runs) / "last.safetensors")[1]
    return header["epoch"] * STEPS_PER_EPOCH + header["step"]


# --- going on ---

# everything that a checkpoint has to bring back: dropout, averages, sums of an epoch, Adam
RECIPE = {"ema": 0.9, "accumulate": 2, "validation": squares(30, seed=3)}


def train(**options):
    torch.manual_seed(7)
    model = small_model(DropoutVAE)
    return model, small_fit(model, incident_loss, **RECIPE, **options)


@pytest.fixture(scope="module")
def undisturbed():
    plan()
    return train()


@pytest.mark.parametrize(
    ("step", "seconds", "again"),
    [
        (1, 0.0, 18),  # before anything was saved
        (2, 0.0, 17),
        (STEPS_PER_EPOCH, 0.0, 13),
        (STEPS_PER_EPOCH + 3, 60.0, 12),  # saved at the end of the epoch alone
        (3 * STEPS_PER_EPOCH, 0.0, 1),
    ],
)
def test_an_interrupted_run_ends_with_the_undisturbed_ones_weights(
    step, seconds, again, undisturbed, capsys
):
    truth, whole = undisturbed
    options = {"run": "vae", "checkpoint_seconds": seconds}
    plan(2 * step, kill)  # in the second part of the step's batch
    with pytest.raises(Killed):
        train(**options)
    plan()
    model, history = train(**options)
    assert len(calls) == 2 * again
    assert equal(model, truth) and timeless(history.rows) == timeless(whole.rows)
    assert history["seconds"] == sorted(history["seconds"])
    assert ("going on at epoch" in capsys.readouterr().out) == (again < 18)


@pytest.mark.parametrize("step", [4, STEPS_PER_EPOCH, 3 * STEPS_PER_EPOCH])
def test_ctrl_c_leaves_a_usable_checkpoint(step, runs, undisturbed):
    truth, whole = undisturbed
    before = signal.getsignal(signal.SIGINT)
    plan(2 * step - 1, ctrl_c)
    with pytest.raises(KeyboardInterrupt, match="weights are usable"):
        train(run="vae")
    assert signal.getsignal(signal.SIGINT) is before
    assert len(calls) == 2 * step, "the step was finished, and no other begun"
    assert steps_saved(runs) == step

    plan()
    model, history = train(run="vae")
    assert len(calls) == 2 * (3 * STEPS_PER_EPOCH - step)
    assert equal(model, truth) and timeless(history.rows) == timeless(whole.rows)


def test_a_second_ctrl_c_stops_at_once():
    def twice(model, terms):
        ctrl_c(model, terms)
        ctrl_c(model, terms)
        raise AssertionError("went on")

    plan(2, twice)
    with pytest.raises(KeyboardInterrupt):
        small_fit(small_model(), incident_loss)


def test_ctrl_c_in_the_last_validation_is_not_lost():
    def loss(model, batch, generator):
        if not model.training:
            os.kill(os.getpid(), signal.SIGINT)
        return vae_loss(model, batch, generator)

    with pytest.raises(KeyboardInterrupt):
        small_fit(small_model(), loss, epochs=1, validation=squares(20))


def test_the_cell_that_was_stopped_can_be_run_again(capsys):
    """The model in memory is then half trained; it is the same run all the same."""
    truth, model = small_model(), small_model()
    small_fit(truth, incident_loss)
    plan(8, ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        small_fit(model, incident_loss, run="vae")
    small_fit(model, incident_loss, run="vae")
    assert "afresh" not in capsys.readouterr().out and equal(model, truth)
    small_fit(model, incident_loss, run="vae")
    assert "finished" in capsys.readouterr().out and equal(model, truth)


def test_a_finished_run_is_loaded(runs, capsys):
    model, again = small_model(), small_model()
    held_out = squares(30)
    first = small_fit(model, incident_loss, run="vae", validation=held_out)
    plan()
    moved = replace(squares(), source="the same images from another place")
    history = small_fit(again, incident_loss, moved, run="vae", validation=held_out)
    assert calls == [] and equal(model, again) and history.rows == first.rows
    assert the_run(runs) and "finished and loaded" in capsys.readouterr().out


def test_without_resume_a_run_starts_anew_and_without_a_name_nothing_is_written(runs, capsys):
    small_fit(small_model(), checkpoint_seconds=0.0)
    assert not runs.exists()
    small_fit(small_model(), incident_loss, run="vae")
    plan()
    small_fit(small_model(), incident_loss, run="vae", resume=False)
    assert len(calls) == 3 * STEPS_PER_EPOCH and capsys.readouterr().out == ""


class Clock:
    """Stands for the time module: every look at it takes a fiftieth of a second."""

    now = 0.0

    def perf_counter(self) -> float:
        self.now += 0.02
        return self.now


def test_a_run_by_the_clock_goes_on_with_the_time_that_is_left(monkeypatch):
    monkeypatch.setattr("helpers.training.trainer.time", Clock())
    options = {"epochs": None, "minutes": 3 / 60, "checkpoint_seconds": 0.0}
    history = small_fit(small_model(), incident_loss, run="undisturbed", **options)
    whole = len(calls)
    assert whole > 30 and 3.0 <= history.seconds < 3.2
    assert history["lr"][-1] < 1e-5 < max(history["lr"])

    plan(20, kill)
    with pytest.raises(Killed):
        small_fit(small_model(), incident_loss, run="clock", **options)
    plan()
    history = small_fit(small_model(), incident_loss, run="clock", **options)
    assert len(calls) == pytest.approx(whole - 20, abs=3) and history.seconds >= 3.0


def test_a_resumed_optimizer_has_the_weights_memory_format(monkeypatch):
    """On a GPU the weights are channels_last, and fused Adam refuses moments that are not."""
    found, restore = [], RunFiles.restore

    def spy(files, training):
        restore(files, training)
        state = training.optimizer.state.items()
        found.extend(weight.stride() == entry["exp_avg"].stride() for weight, entry in state)

    monkeypatch.setattr(RunFiles, "restore", spy)
    photos = squares(24)
    photos = replace(photos, images=photos.images.repeat(1, 3, 1, 1))
    for _ in range(2):  # the second call loads what the first one left
        torch.manual_seed(1)
        model = ConvVAE(VAEConfig((8, 8), latent_channels=2, blocks=1, groups=2))
        model.to(memory_format=torch.channels_last)
        small_fit(model, image_loss, photos, epochs=None, steps=2, batch_size=4, run="format")
    assert found == [True] * len(list(model.parameters()))


# --- which run is the same ---


def weighted(beta: float, nll=bernoulli_nll):
    """A loss that closes over a number and a function, as in a notebook."""

    def loss(model, batch, generator):
        output = model(batch["images"], generator)
        return negative_elbo(output, batch["images"], nll, beta)

    return loss


def powered(power: int) -> type:
    """Classes of one name and equal weights, as after an edit of a notebook's cell."""

    class Model(MLPVAE):
        def encode(self, x):
            return super().encode(x**power)

    return Model


def with_tanh() -> MLPVAE:
    """Equal weights and another activation."""
    model = small_model(powered(1))
    model.encoder[1] = nn.Tanh()
    return model


def with_a_frozen_layer() -> MLPVAE:
    model = small_model(powered(1))
    model.encoder[0].requires_grad_(False)
    return model


BASE = {
    "model": lambda: small_model(powered(1)),
    "loss": weighted(1.0),
    "data": squares(),
    "validation": squares(20),
    "epochs": None,
    "steps": 1,
    "run": "vae",
}
CHANGED = {
    "steps": ({"steps": 2}, "configuration"),
    "learning rate": ({"lr": 1e-3}, "configuration"),
    "seed": ({"seed": 1}, "configuration"),
    "clip": ({"clip": None}, "configuration"),
    "precision": ({"precision": "bf16"}, "configuration"),
    "initial weights": ({"model": lambda: small_model(powered(1), seed=2)}, "configuration"),
    "activation": ({"model": with_tanh}, "configuration"),
    "frozen weights": ({"model": with_a_frozen_layer}, "configuration"),
    "width": ({"model": lambda: powered(1)(2, (17,))}, "configuration"),
    "images": ({"data": squares(seed=1)}, "data"),
    "fewer images": ({"data": squares(99)}, "data"),
    "held-out images": ({"validation": squares(20, seed=1)}, "data"),
    "model": ({"model": lambda: small_model(powered(2))}, "code"),
    "value in the loss": ({"loss": weighted(2.0)}, "code"),
    "function in the loss": ({"loss": weighted(1.0, gaussian_nll)}, "code"),
    "partial": ({"loss": weighted(1.0, functools.partial(gaussian_nll, sigma=0.5))}, "code"),
    "augmentation": ({"augment": random_shift}, "code"),
}


def fit_changed(**change):
    options = BASE | change
    return small_fit(options.pop("model")(), options.pop("loss"), options.pop("data"), **options)


@pytest.mark.parametrize("what", CHANGED)
def test_a_changed_run_starts_afresh_beside_the_old_one_and_says_why(what, runs, capsys):
    fit_changed()
    old = the_run(runs) / "last.safetensors"
    before = old.read_bytes()
    assert capsys.readouterr().out == ""
    change, why = CHANGED[what]
    history = fit_changed(**change)
    told = capsys.readouterr().out
    assert f"Run vae: the {why} changed; starting afresh beside the old run." in told
    assert len(list((runs / "vae").iterdir())) == 2 and old.read_bytes() == before
    assert history["epoch"][0] == 1
    fit_changed()
    assert "finished and loaded" in capsys.readouterr().out


# --- what it writes ---


def test_a_broken_checkpoint_is_one_sentence_and_the_model_stays_whole(runs):
    small_fit(small_model(), run="vae")
    last = the_run(runs) / "last.safetensors"
    last.write_bytes(last.read_bytes()[:1000])
    model = small_model()
    with pytest.raises(CourseError, match="last.safetensors is cut off"):
        small_fit(model, run="vae")
    assert equal(model, small_model()) and "forward" not in vars(model)


def table(run) -> list[dict]:
    with open(run / "history.csv", newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def test_the_csv_holds_the_rows_of_the_history(runs):
    history = small_fit(small_model(), run="vae", validation=squares(30))
    stored = table(the_run(runs))
    assert stored == history.rows
    assert list(stored[0])[:4] == ["epoch", "seconds", "lr", "loss"] and "val_kl" in stored[0]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_kill_between_two_files_of_an_epoch_loses_no_row(count, runs, monkeypatch):
    written = []

    def replace_or_die(source, target, real=os.replace):
        if len(written) == count:
            raise Killed
        written.append(target)
        real(source, target)

    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(os, "replace", replace_or_die)
        small_fit(small_model(), run="vae", epochs=None, steps=1)
    assert len(written) == count
    history = small_fit(small_model(), run="vae", epochs=None, steps=1)
    assert [row["loss"] for row in table(the_run(runs))] == history["loss"]


val_losses: list[float] = []
val_weights: list[dict] = []


def scripted_validation(model, batch, generator):
    """`vae_loss`, whose held-out values are those of `val_losses`."""
    terms = vae_loss(model, batch, generator)
    if model.training:
        return terms
    val_weights.append({k: v.clone() for k, v in model.state_dict().items()})
    return terms | {"loss": torch.full_like(terms["loss"], val_losses[len(val_weights) - 1])}


def test_the_best_weights_are_those_of_the_epoch_with_the_lowest_held_out_loss(runs):
    val_losses[:], val_weights[:] = [5.0, 3.0, 4.0, 3.5], []
    model = small_model()
    small_fit(model, scripted_validation, run="vae", epochs=4, validation=squares(30))
    best, header = read_tensors(the_run(runs) / "best.safetensors")
    assert header["epoch"] == 2
    assert all(torch.equal(best[name], val_weights[1][name]) for name in best)
    assert not torch.equal(best["encoder.0.bias"], model.encoder[0].bias)


def test_without_held_out_images_the_training_loss_decides(runs):
    history = small_fit(small_model(), run="vae")
    _, header = read_tensors(the_run(runs) / "best.safetensors")
    assert header["epoch"] == history["loss"].index(min(history["loss"])) + 1


# --- when the numbers go bad ---


@pytest.mark.parametrize(
    ("step", "incident", "what", "clip"),
    [
        (1, nan_loss, "loss is nan", 1.0),
        (9, nan_loss, "loss is nan", None),
        (9, nan_gradient, "gradient is nan", 1.0),
        (9, nan_gradient, "gradient is nan", None),
    ],
)
def test_training_stops_at_the_first_nan_and_keeps_the_last_good_checkpoint(
    step, incident, what, clip, runs
):
    options = {"run": "vae", "clip": clip, "checkpoint_seconds": 0.0}
    plan(step, incident)
    model = small_model()
    with pytest.raises(CourseError) as error:
        small_fit(model, incident_loss, **options)
    text = str(error.value)
    assert f"epoch {1 + step // 6}, step {1 + (step - 1) % 6}: the {what}" in text
    assert ("checkpoint is kept" in text) == (step > 1) and "\n" not in text
    assert len(calls) == step and "forward" not in vars(model)
    assert all(torch.isfinite(weight).all() for weight in model.parameters())
    if step > 1:
        assert steps_saved(runs) == step - 1
        tensors, _ = read_tensors(the_run(runs) / "last.safetensors")
        assert torch.equal(tensors["model.encoder.0.weight"], model.encoder[0].weight)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_held_out_loss_that_is_not_finite_stops_too(runs, value):
    val_losses[:], val_weights[:] = [5.0, value, 4.0], []
    with pytest.raises(CourseError, match="epoch 2.* val_loss is"):
        small_fit(small_model(), scripted_validation, run="vae", validation=squares(30))
    assert steps_saved(runs) == STEPS_PER_EPOCH
