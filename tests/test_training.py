"""`fit`: equal to a plain loop, resumed bit for bit, stopped in good order, and traceless afterwards."""

import copy
import csv
import functools
import os
import signal
import threading
from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from torch import nn

from helpers import CourseError, training
from helpers.budget import generator_for
from helpers.checkpoints import read_tensors
from helpers.data import Batches, random_shift
from helpers.losses import bernoulli_nll, gaussian_nll, negative_elbo
from helpers.mlp import MLPVAE, Autoencoder
from helpers.training import evaluate, fit
from tests.small_training import STEPS_PER_EPOCH, DropoutVAE, small_fit, small_model, squares, vae_loss

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("error::UserWarning")]  # a notebook shows no noise


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    """A folder for this test's runs; the loss of `at_step` starts to count anew."""
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    script.clear()
    return tmp_path / "runs"


script: dict[int, object] = {}  # call of `scripted_loss` → what happens in it
calls: list[int] = []


def scripted_loss(model, batch, generator):
    """`vae_loss` with incidents: `script` is no part of the run's fingerprint."""
    terms = vae_loss(model, batch, generator)
    if model.training:
        calls.append(1)
        incident = script.get(len(calls))
        terms = incident(model, terms) or terms if incident else terms
    return terms


def plan(**incidents) -> None:
    """plan(step7=function): what happens in the seventh training step from now on."""
    calls.clear()
    script.clear()
    script.update({int(name.removeprefix("step")): incident for name, incident in incidents.items()})


class Killed(Exception):
    pass


def killed(model, terms):
    raise Killed


def ctrl_c(model, terms):
    os.kill(os.getpid(), signal.SIGINT)


def nan_loss(model, terms):
    return terms | {"loss": terms["loss"] * float("nan")}


def nan_gradient(model, terms):
    weight = next(model.parameters())
    return terms | {"loss": terms["loss"] + (weight.sum() * 0).sqrt()}  # adds 0, whose derivative is 0 / 0


def equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def rows(history) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history.rows]


def folders(runs, name: str = "vae") -> list:
    return sorted(path.parent for path in (runs / name).glob("*/last.safetensors"))


def finite(model: nn.Module) -> bool:
    return all(torch.isfinite(p).all() for p in model.parameters())


# --- what it computes ---


def test_the_loss_falls():
    history = small_fit(small_model(), epochs=8, lr=1e-2)
    assert history["epoch"] == list(range(1, 9))
    assert history["loss"][-1] < 0.6 * history["loss"][0]
    assert history["loss"] == pytest.approx(
        [a + b for a, b in zip(history["reconstruction"], history["kl"], strict=True)], rel=1e-5
    )
    assert 0 < history.seconds < 60 and history["seconds"] == sorted(history["seconds"])


@pytest.mark.parametrize("clip", [1.0, None])
@pytest.mark.parametrize("augment", [None, random_shift])
def test_fit_gives_the_losses_and_weights_of_a_plain_loop(clip, augment):
    data, model, plain = squares(), small_model(), small_model()
    history = small_fit(model, data=data, clip=clip, augment=augment, seed=5)

    batches = Batches(data, 16, seed=5, augment=augment)
    optimizer = torch.optim.Adam(plain.parameters(), lr=2e-3, fused=True)
    steps = 3 * len(batches)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=2e-3, total_steps=steps + 1, pct_start=0.1, cycle_momentum=False
    )
    losses = []
    for epoch in range(3):
        total = 0.0
        for step, batch in enumerate(batches.epoch(epoch)):
            output = plain(batch.images, generator_for("noise", 5, epoch, step))
            loss = (bernoulli_nll(output.decoded, batch.images) + output.posterior.kl()).mean()
            optimizer.zero_grad()
            loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(plain.parameters(), clip)
            optimizer.step()
            schedule.step()
            total += loss.detach()
        losses.append((total / len(batches)).item())
    assert history["loss"] == losses
    assert equal(model, plain)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", lambda r: r[0] == r[1] == r[2] == 2e-3),
        ("cosine", lambda r: 2e-3 > r[0] > r[1] > r[2] == 0),
        ("one-cycle", lambda r: 2e-3 > r[0] > r[1] > r[2] > 0 and r[2] < 1e-5),
    ],
)
def test_the_rate_follows_its_schedule(schedule, rates):
    assert rates(small_fit(small_model(), schedule=schedule)["rate"])


@pytest.mark.parametrize("wrong", [{"schedule": "linear"}, {"precision": "float16"}, {"batch_size": 1000}])
def test_a_wrong_argument_is_one_sentence_and_leaves_no_run(wrong, runs):
    model = small_model()
    with pytest.raises(CourseError, match=str(next(iter(wrong.values())))) as error:
        small_fit(model, run="vae", **wrong)
    assert "\n" not in str(error.value) and not runs.exists()
    assert "forward" not in vars(model)


def test_validation_is_the_mean_over_all_images_of_a_model_at_rest():
    held_out, model = squares(70, seed=9), small_model(DropoutVAE)
    history = small_fit(model, validation=held_out, epochs=2)
    assert history["val_loss"][-1] == pytest.approx(evaluate(model, vae_loss, held_out)["loss"], rel=1e-6)
    assert evaluate(model, vae_loss, held_out) == evaluate(model, vae_loss, held_out)
    output = model.eval()(held_out.pixels(), generator_for("evaluate", 0, 0))
    terms = negative_elbo(output, held_out.pixels())
    assert history["val_kl"][-1] == pytest.approx(terms["kl"].mean().item(), rel=1e-6)
    assert history["val_loss"][-1] == pytest.approx(terms["loss"].mean().item(), rel=1e-6)


def test_evaluation_does_not_depend_on_where_the_batches_are_cut():
    def loss(model, batch, generator):  # without noise
        return {"loss": bernoulli_nll(model(batch.images).decoded, batch.images)}

    data, model = squares(50), Autoencoder(2, (8,))
    assert evaluate(model, loss, data, 7)["loss"] == pytest.approx(evaluate(model, loss, data)["loss"], rel=1e-5)


def test_validation_changes_nothing_in_the_training():
    one, other = small_model(DropoutVAE), small_model(DropoutVAE)
    torch.manual_seed(0)
    small_fit(one)
    torch.manual_seed(0)
    small_fit(other, validation=squares(30, seed=3))
    assert equal(one, other)


def test_another_seed_is_another_run():
    one, other = small_model(), small_model()
    assert small_fit(one, seed=0)["loss"] != small_fit(other, seed=1)["loss"]


# --- the model that comes back ---


def test_validation_is_in_float32_even_when_the_training_is_not():
    held_out, model = squares(70, seed=9), small_model()
    history = small_fit(model, validation=held_out, precision="bf16")
    assert history["val_loss"][-1] == evaluate(model, vae_loss, held_out)["loss"]


@pytest.mark.parametrize("precision", ["bf16", "no", "auto"])
def test_the_model_comes_back_plain(precision):
    model = small_model()
    small_fit(model, precision=precision, epochs=1)
    assert not {"forward", "_original_forward"} & set(vars(model)) and not model.training
    x = squares(4).pixels()
    output, mean = model(x, generator_for(0)), model.encode(x).mean
    assert output.decoded.dtype == mean.dtype == torch.float32
    fresh = MLPVAE(**model.config)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(output.decoded, fresh(x, generator_for(0)).decoded)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(twin(x, generator_for(0)).decoded, output.decoded)
    assert model(x, generator_for(0)).decoded.abs().max() == 0


def test_the_precision_is_each_runs_own():
    precisions = []

    def loss(model, batch, generator):
        precisions.append(torch.is_autocast_enabled("cpu"))
        return vae_loss(model, batch, generator)

    model = small_model()
    for precision in ("bf16", "no", "bf16"):
        small_fit(model, loss, precision=precision, epochs=1)
    assert precisions == ([True] * 6 + [False] * 6) + [True] * 6


def test_bf16_trains_about_as_well():
    exact, rough = small_fit(small_model(), epochs=6), small_fit(small_model(), epochs=6, precision="bf16")
    assert rough["loss"][-1] == pytest.approx(exact["loss"][-1], rel=0.05)
    assert rough["loss"] != exact["loss"]


def test_it_runs_outside_the_main_thread():
    lengths = []
    thread = threading.Thread(target=lambda: lengths.append(len(small_fit(small_model()).rows)))
    thread.start()
    thread.join()
    assert lengths == [3]


# --- resuming ---


@pytest.mark.parametrize("kind", [MLPVAE, DropoutVAE])
@pytest.mark.parametrize("step", [1, 2, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 1, 3 * STEPS_PER_EPOCH])
@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_an_interrupted_run_ends_with_the_undisturbed_ones_weights(kind, step, seconds, capsys):
    options = {"checkpoint_seconds": seconds, "validation": squares(30, seed=3)}
    torch.manual_seed(7)
    undisturbed, whole = small_model(kind), None
    torch.manual_seed(7)
    whole = small_fit(undisturbed, scripted_loss, **options)

    plan(**{f"step{step}": killed})
    model = small_model(kind)
    torch.manual_seed(7)
    with pytest.raises(Killed):
        small_fit(model, scripted_loss, run="vae", **options)
    plan()
    model = small_model(kind)
    torch.manual_seed(7)
    history = small_fit(model, scripted_loss, run="vae", **options)
    lost = (step - 1) % STEPS_PER_EPOCH if seconds else 0
    assert len(calls) == 3 * STEPS_PER_EPOCH - (step - 1) + lost
    assert equal(model, undisturbed) and rows(history) == rows(whole)
    assert history["seconds"] == sorted(history["seconds"])
    assert ("going on at epoch" in capsys.readouterr().out) == (step > 1 + lost)


@pytest.mark.parametrize("step", [4, STEPS_PER_EPOCH, 3 * STEPS_PER_EPOCH])
def test_ctrl_c_leaves_a_usable_checkpoint(step, runs):
    undisturbed = small_model(DropoutVAE)
    torch.manual_seed(7)
    whole = small_fit(undisturbed, scripted_loss)

    plan(**{f"step{step}": ctrl_c})
    model = small_model(DropoutVAE)
    torch.manual_seed(7)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="weights are usable"):
        small_fit(model, scripted_loss, run="vae")
    assert signal.getsignal(signal.SIGINT) is before
    assert len(calls) == step  # the step was finished, and no other begun
    tensors, header = read_tensors(folders(runs)[0] / "last.safetensors")
    assert (header["epoch"] * STEPS_PER_EPOCH + header["step"]) == step
    assert torch.equal(tensors["model.encoder.0.weight"], model.encoder[0].weight)

    plan()
    again = small_model(DropoutVAE)
    history = small_fit(again, scripted_loss, run="vae")
    assert len(calls) == 3 * STEPS_PER_EPOCH - step
    assert equal(again, undisturbed) and rows(history) == rows(whole)


def test_a_second_ctrl_c_stops_at_once():
    def twice(model, terms):
        ctrl_c(model, terms)
        ctrl_c(model, terms)
        raise AssertionError("went on")

    plan(step2=twice)
    with pytest.raises(KeyboardInterrupt):
        small_fit(small_model(), scripted_loss)


def test_ctrl_c_in_the_last_validation_is_not_lost():
    def loss(model, batch, generator):
        if not model.training:
            os.kill(os.getpid(), signal.SIGINT)
        return vae_loss(model, batch, generator)

    with pytest.raises(KeyboardInterrupt):
        small_fit(small_model(), loss, epochs=1, validation=squares(20))


def test_the_cell_that_was_stopped_can_be_run_again(capsys):
    """The model in memory is then half trained; it is the same run all the same."""
    undisturbed = small_model()
    small_fit(undisturbed, scripted_loss)
    plan(step8=ctrl_c)
    model = small_model()
    with pytest.raises(KeyboardInterrupt):
        small_fit(model, scripted_loss, run="vae")
    small_fit(model, scripted_loss, run="vae")
    assert "afresh" not in capsys.readouterr().out and equal(model, undisturbed)
    small_fit(model, scripted_loss, run="vae")
    assert "finished" in capsys.readouterr().out and equal(model, undisturbed)


def test_a_finished_run_is_loaded(runs, capsys):
    model = small_model()
    first = small_fit(model, scripted_loss, run="vae", validation=squares(30))
    plan()
    again, downloaded = small_model(), replace(squares(), source="the same images from another place")
    history = small_fit(again, scripted_loss, downloaded, run="vae", validation=squares(30))
    assert calls == [] and equal(model, again) and history.rows == first.rows
    assert "finished and loaded" in capsys.readouterr().out
    assert len(folders(runs)) == 1


def test_without_resume_a_run_starts_anew(capsys):
    small_fit(small_model(), scripted_loss, run="vae")
    plan()
    small_fit(small_model(), scripted_loss, run="vae", resume=False)
    assert len(calls) == 3 * STEPS_PER_EPOCH and capsys.readouterr().out == ""


def test_without_a_name_nothing_is_written(runs):
    small_fit(small_model(), checkpoint_seconds=0.0)
    assert not runs.exists()


def weighted(beta: float, inner=bernoulli_nll):
    """A loss that closes over a number and a function, as in a notebook."""
    return lambda model, batch, generator: negative_elbo(model(batch.images, generator), batch.images, inner, beta)


BASE = {"model": small_model, "loss": weighted(1.0), "data": squares, "validation": squares}
CHANGED = {
    "epochs": ({"epochs": 2}, "configuration"),
    "rate": ({"lr": 1e-3}, "configuration"),
    "batch and epochs that read alike": ({"batch_size": 1, "epochs": 13}, "configuration"),
    "seed": ({"seed": 1}, "configuration"),
    "clip": ({"clip": None}, "configuration"),
    "precision": ({"precision": "bf16"}, "configuration"),
    "initial weights": ({"model": lambda: small_model(seed=2)}, "configuration"),
    "width": ({"model": lambda: MLPVAE(2, (17,))}, "configuration"),
    "images": ({"data": lambda: squares(seed=1)}, "data"),
    "fewer images": ({"data": lambda: squares(99)}, "data"),
    "held-out images": ({"validation": lambda: squares(seed=1)}, "data"),
    "value in the loss": ({"loss": weighted(2.0)}, "code"),
    "function in the loss": ({"loss": weighted(1.0, gaussian_nll)}, "code"),
    "partial loss": ({"loss": weighted(1.0, functools.partial(gaussian_nll, sigma=0.5))}, "code"),
    "augmentation": ({"augment": random_shift}, "code"),
}


def fit_changed(**change):
    options = {"run": "vae", "epochs": 1} | BASE | change
    model, loss, data = options.pop("model")(), options.pop("loss"), options.pop("data")()
    return small_fit(model, loss, data, validation=options.pop("validation")(), **options)


@pytest.mark.parametrize("what", CHANGED)
def test_a_changed_run_starts_afresh_beside_the_old_one_and_says_why(what, runs, capsys):
    fit_changed()
    (old,) = folders(runs)
    before = (old / "last.safetensors").read_bytes()
    assert capsys.readouterr().out == ""
    change, why = CHANGED[what]
    history = fit_changed(**change)
    told = capsys.readouterr().out
    assert f"Run vae: another {why} than before; starting afresh beside the old run." in told
    assert len(folders(runs)) == 2 and (old / "last.safetensors").read_bytes() == before
    assert history["epoch"][0] == 1
    fit_changed()
    assert "finished and loaded" in capsys.readouterr().out


def test_another_model_code_starts_afresh(runs, capsys):
    """Two classes of one name and equal weights, as after an edit of a notebook's cell."""

    def define(power: int) -> type:
        class Model(MLPVAE):
            def encode(self, x):
                return super().encode(x**power)

        return Model

    for power in (1, 2, 1):
        small_fit(small_model(define(power)), run="vae", epochs=1)
    told = capsys.readouterr().out
    assert "another code than before" in told and told.endswith("finished and loaded.\n") and len(folders(runs)) == 2


def test_a_broken_checkpoint_is_one_sentence_and_the_model_stays_whole(runs):
    small_fit(small_model(), run="vae")
    last = folders(runs)[0] / "last.safetensors"
    last.write_bytes(last.read_bytes()[:1000])
    model, untouched = small_model(), small_model()
    with pytest.raises(CourseError, match="last.safetensors is cut off"):
        small_fit(model, run="vae", precision="no")
    assert equal(model, untouched) and "forward" not in vars(model)


# --- what it writes ---


def test_the_csv_holds_the_rows_of_the_history(runs):
    history = small_fit(small_model(), run="vae", validation=squares(30))
    with open(folders(runs)[0] / "history.csv", newline="") as file:
        stored = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assert stored == history.rows
    assert list(stored[0])[:4] == ["epoch", "seconds", "rate", "loss"] and "val_kl" in stored[0]
    names = sorted(path.name for path in folders(runs)[0].iterdir())
    assert names == ["best.safetensors", "fingerprint.json", "history.csv", "last.safetensors"]


def test_a_kill_between_two_files_of_an_epoch_loses_no_row(runs, monkeypatch):
    """Whatever was written when the last epoch's files were cut off, the next call ends with a whole table."""
    for count in range(1, 4):
        name, written = f"vae{count}", []

        def killing_replace(source, target, count=count, written=written, real=os.replace):
            if len(written) == count:
                raise Killed
            written.append(target)
            real(source, target)

        with monkeypatch.context() as patch, suppress(Killed):
            patch.setattr(os, "replace", killing_replace)
            small_fit(small_model(), run=name, epochs=1)
        history = small_fit(small_model(), run=name, epochs=1)
        with open(folders(runs, name)[0] / "history.csv", newline="") as file:
            assert [float(row["loss"]) for row in csv.DictReader(file)] == history["loss"]


val_losses: list[float] = []
val_weights: list[dict] = []


def loss_with_scripted_validation(model, batch, generator):
    terms = vae_loss(model, batch, generator)
    if model.training:
        return terms
    val_weights.append({k: v.clone() for k, v in model.state_dict().items()})
    return terms | {"loss": torch.full_like(terms["loss"], val_losses[len(val_weights) - 1])}


def test_the_best_weights_are_those_of_the_epoch_with_the_lowest_held_out_loss(runs):
    val_losses[:], val_weights[:] = [5.0, 3.0, 4.0, 3.5], []
    model = small_model()
    small_fit(model, loss_with_scripted_validation, run="vae", epochs=4, validation=squares(30))
    best, header = read_tensors(folders(runs)[0] / "best.safetensors")
    assert header["epoch"] == 2
    assert all(torch.equal(best[k], val_weights[1][k]) for k in val_weights[1])
    assert not equal(model, small_model()) and not torch.equal(best["encoder.0.bias"], model.encoder[0].bias)


def test_without_held_out_images_the_training_loss_decides(runs):
    history = small_fit(small_model(), run="vae")
    _, header = read_tensors(folders(runs)[0] / "best.safetensors")
    assert header["epoch"] == history["loss"].index(min(history["loss"])) + 1


# --- when the numbers go bad ---


@pytest.mark.parametrize("clip", [1.0, None])
@pytest.mark.parametrize(("incident", "what"), [(nan_loss, "loss is nan"), (nan_gradient, "gradient is nan")])
@pytest.mark.parametrize("step", [1, 9])
def test_training_stops_at_the_first_nan_and_keeps_the_last_good_checkpoint(runs, clip, incident, what, step):
    plan(**{f"step{step}": incident})
    model = small_model()
    with pytest.raises(CourseError) as error:
        small_fit(model, scripted_loss, run="vae", clip=clip, checkpoint_seconds=0.0)
    text = str(error.value)
    assert f"epoch {1 + step // 6}, step {1 + (step - 1) % 6}" in text and what in text and "\n" not in text
    assert len(calls) == step and finite(model) and "forward" not in vars(model)
    assert ("checkpoint is kept" in text) == (step > 1) == bool(folders(runs))
    if step > 1:
        tensors, header = read_tensors(folders(runs)[0] / "last.safetensors")
        assert header["epoch"] * 6 + header["step"] == step - 1
        assert torch.equal(tensors["model.encoder.0.weight"], model.encoder[0].weight)
        plan()
        small_fit(small_model(), scripted_loss, run="vae", clip=clip, checkpoint_seconds=0.0)
        assert len(calls) == 3 * STEPS_PER_EPOCH - (step - 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_held_out_loss_that_is_not_finite_stops_too(runs, value):
    val_losses[:], val_weights[:] = [5.0, value, 4.0], []
    with pytest.raises(CourseError, match="epoch 2.* val_loss is"):
        small_fit(small_model(), loss_with_scripted_validation, run="vae", validation=squares(30))
    _, header = read_tensors(folders(runs)[0] / "last.safetensors")
    assert header["epoch"] == 1


def test_a_far_too_large_rate_ends_in_one_sentence(runs):
    with pytest.raises(CourseError, match="smaller learning rate"):
        small_fit(small_model(), lr=1e30, schedule="constant", run="vae")


def test_an_infinite_loss_stops_without_a_named_run():
    plan(step3=lambda model, terms: terms | {"loss": terms["loss"] / 0})
    model = small_model()
    with pytest.raises(CourseError, match="step 3: the loss is inf; the weights are those before this step"):
        small_fit(model, scripted_loss)
    assert finite(model)


def test_a_loss_of_a_batch_of_one_size_or_another():
    """`fit` itself takes the mean over images, so a term may be a number per image or one for all."""
    one, other = small_model(), small_model()

    def averaged(model, batch, generator):
        return {name: value.mean() for name, value in vae_loss(model, batch, generator).items()}

    assert small_fit(one)["loss"] == small_fit(other, averaged)["loss"] and equal(one, other)


def test_fp16_is_refused_or_works():
    """No CPU has fp16 training; whatever happens must not hurt the model."""
    model = small_model()
    with suppress(CourseError, ValueError, RuntimeError):
        fit(model, vae_loss, squares(), epochs=1, batch_size=16, precision="fp16")
    assert finite(model) and "forward" not in vars(model)


def test_the_precision_that_is_chosen(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert training.choose_precision(torch.device("cpu")) == "bf16"
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    assert training.choose_precision(torch.device("cpu")) == "no"
    assert training.choose_precision(torch.device("mps")) == "no"
    for capability, expected in (((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda c=capability: c)
        assert training.choose_precision(torch.device("cuda")) == expected
