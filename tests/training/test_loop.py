"""`fit` and `evaluate`: equal to a plain loop, on any data, and what stops them."""

import copy
import threading
from functools import partial

import pytest
import torch
from torch import nn

from helpers import CourseError
from helpers.data.augment import crop_and_flip, random_shift
from helpers.data.image_set import ImageSet
from helpers.data.loader import Batches
from helpers.models.conv_vae import ConvVAE, VAEConfig, image_loss
from helpers.models.discriminator import VAEGAN, PatchDiscriminator, vae_gan_loss
from helpers.models.losses import bernoulli_nll, negative_elbo
from helpers.models.mlp_vae import MLPVAE
from helpers.rng import generator_for
from helpers.training.checkpoints import read_tensors
from helpers.training.ema import EMA
from helpers.training.loop import choose_precision, evaluate, fit
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

# a notebook shows no warnings
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("error::UserWarning")]


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    """A folder for this test's runs."""
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def photos(count: int = 24, size: int = 20) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    shape = (count, 3, size, size)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return ImageSet(images, None, "noise")


def conv_model() -> ConvVAE:
    torch.manual_seed(1)
    return ConvVAE(VAEConfig((8, 8), latent_channels=2, blocks=1, groups=2))


def weights(model) -> list[torch.Tensor]:
    return [weight.clone() for weight in model.state_dict().values()]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def finite(model: nn.Module) -> bool:
    return all(torch.isfinite(weight).all() for weight in model.parameters())


# --- what it computes ---


def test_the_loss_falls():
    history = small_fit(small_model(), epochs=5, lr=1e-2)
    assert history["epoch"] == [1, 2, 3, 4, 5]
    assert history["loss"][-1] < 0.6 * history["loss"][0]
    terms = zip(history["reconstruction"], history["kl"], strict=True)
    assert history["loss"] == pytest.approx([sum(pair) for pair in terms], rel=1e-5)
    assert history["seconds"] == sorted(history["seconds"]) and history["seconds"][0] > 0


@pytest.mark.parametrize("clip", [1.0, None])
@pytest.mark.parametrize("augment", [None, random_shift])
def test_fit_gives_the_losses_and_weights_of_a_plain_loop(clip, augment):
    data, model, plain = squares(), small_model(), small_model()
    betas = (0.8, 0.99)
    history = small_fit(model, data=data, clip=clip, augment=augment, betas=betas, seed=5)

    batches = Batches(data, 16, seed=5, augment=augment)
    optimizer = torch.optim.Adam(plain.parameters(), lr=2e-3, betas=betas, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 2e-3, 3 * len(batches) + 1, pct_start=0.1, cycle_momentum=False
    )
    rows = []
    for epoch in range(3):
        total = 0.0
        for step, batch in enumerate(batches.epoch(epoch)):
            output = plain(batch["images"], generator_for("noise", 5, epoch, step))
            loss = (bernoulli_nll(output.decoded, batch["images"]) + output.posterior.kl()).mean()
            optimizer.zero_grad()
            loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(plain.parameters(), clip)
            optimizer.step()
            schedule.step()
            total += loss.detach()
        rows.append(((total / len(batches)).item(), schedule.get_last_lr()[0]))
    assert list(zip(history["loss"], history["lr"], strict=True)) == rows
    assert equal(model, plain)


def test_validation_is_the_mean_over_all_images_of_a_model_at_rest_and_changes_nothing():
    held_out = squares(70, seed=9)
    model, alone = small_model(DropoutVAE), small_model(DropoutVAE)
    torch.manual_seed(0)
    history = small_fit(model, validation=held_out, epochs=2)
    torch.manual_seed(0)
    small_fit(alone, epochs=2)
    assert equal(model, alone)

    output = model.eval()(held_out.pixels(), generator_for("evaluate", 0, 0))
    terms = negative_elbo(output, held_out.pixels())
    terms = {name: value.mean().item() for name, value in terms.items()}
    assert evaluate(model, vae_loss, held_out) == pytest.approx(terms, rel=1e-6)
    last = {name: history[f"val_{name}"][-1] for name in terms}
    assert last == pytest.approx(terms, rel=1e-6)


def test_a_term_may_be_a_number_per_image_or_one_for_all():
    one, other = small_model(), small_model()

    def averaged(model, batch, generator):
        return {name: value.mean() for name, value in vae_loss(model, batch, generator).items()}

    assert small_fit(one)["loss"] == small_fit(other, averaged)["loss"] and equal(one, other)


# --- any data ---


class Rows(nn.Module):
    """Predicts a number from a latent and its tokens."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.latent = nn.Linear(8, 1)
        self.token = nn.Embedding(5, 1)

    def forward(self, latents: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return self.latent(latents.flatten(1))[:, 0] + self.token(tokens).sum((1, 2))


def row_loss(model, batch, generator) -> dict[str, torch.Tensor]:
    error = model(batch["latents"], batch["tokens"]) - batch["number"]
    return {"loss": error.square(), "row": batch["row"].double()}


def latents_and_tokens(count: int = 50) -> dict[str, torch.Tensor]:
    """Every row tells which one it is, in each of its tensors."""
    row = torch.arange(count)
    return {
        "latents": row.float().view(-1, 1, 1, 1).expand(count, 2, 2, 2).clone() / count,
        "tokens": (row[:, None] + torch.arange(3)) % 5,
        "number": 3 * row.float() / count,
        "row": row,
    }


def test_fit_trains_on_a_dict_without_images():
    data, model = latents_and_tokens(), Rows()
    options = {"batch_size": 10, "precision": "no", "lr": 0.1, "run": "rows"}
    history = fit(model, row_loss, data, epochs=10, validation=data, **options)
    assert history["loss"][-1] < 0.3 * history["loss"][0]
    assert history["row"] == pytest.approx(10 * [24.5]), "every epoch has every row once"
    assert history["val_loss"][-1] == evaluate(model, row_loss, data)["loss"]


def test_what_belongs_to_one_row_comes_in_one_batch():
    seen = []

    def loss(model, batch, generator):
        numbers = batch["row"]
        latents = latents_and_tokens()
        assert {name: rows.dtype for name, rows in batch.items()} == {
            name: rows.dtype for name, rows in latents.items()
        }
        assert all(torch.equal(batch[name], latents[name][numbers]) for name in latents)
        seen.extend(numbers.tolist())
        return row_loss(model, batch, generator)

    fit(Rows(), loss, latents_and_tokens(), epochs=1, batch_size=10, accumulate=2, precision="no")
    assert sorted(seen) == list(range(50)) != seen


def never(model, batch, generator):
    pytest.fail("it was trained")


@pytest.mark.parametrize("where", ["train", "validation"])
def test_tensors_of_unequal_length_are_one_sentence(where):
    wrong = latents_and_tokens() | {"tokens": torch.zeros(49, 3, dtype=torch.int64)}
    data = {"train": latents_and_tokens(), where: wrong}
    with pytest.raises(CourseError, match="'latents': 50, 'tokens': 49") as error:
        fit(Rows(), never, data.pop("train"), epochs=1, batch_size=10, **data)
    assert "\n" not in str(error.value)


def test_an_evaluation_in_chunks_is_the_mean_over_all_rows():
    count = 1203  # more than one chunk
    numbers = torch.arange(count, dtype=torch.float64)
    found = evaluate(Rows(), lambda model, batch, generator: batch, {"number": numbers})
    assert found == {"number": pytest.approx(601)}


# --- how long, and with what ---


def test_steps_end_a_run_in_the_middle_of_an_epoch():
    length = {"epochs": None, "steps": STEPS_PER_EPOCH + 2}
    model, same_model = small_model(), small_model()
    assert small_fit(model, **length)["epoch"] == [1, 2]
    small_fit(same_model, **length, run="steps")
    assert equal(model, same_model)
    again = small_model()
    small_fit(again, **length, run="steps")
    assert equal(model, again), "a finished run is loaded, not trained on"


def test_steps_of_whole_epochs_are_epochs():
    model, other = small_model(), small_model()
    small_fit(model, epochs=2)
    small_fit(other, epochs=None, steps=2 * STEPS_PER_EPOCH)
    assert equal(model, other)


NAN, INF = float("nan"), float("inf")
WRONG = [
    {"schedule": "linear"},
    {"precision": "float16"},
    *({"batch_size": value} for value in (1000, 0, -4, 16.0, "16", None, True)),
    *({"accumulate": value} for value in (0, 2.0)),
    *({"epochs": value} for value in (-1, 1.5, NAN, "3")),
    *({"epochs": None, "steps": value} for value in (-1, 2.0, INF)),
    *({"epochs": None, "minutes": value} for value in (-1, NAN, INF, "1", torch.tensor(1.0))),
    *({"lr": value} for value in (-1e-3, NAN, INF, None)),
    *({"clip": value} for value in (-1.0, NAN)),
    *({"ema": value} for value in (1.0, -0.1, NAN)),
    *({"betas": value} for value in ((0.9, 1.0), (-0.1, 0.9))),
    *({"seed": value} for value in (0.5, None)),
    *({"run": value} for value in ("../vae", "a/b", "/tmp/vae", "..", ".hidden", "a b", "C:", 7)),
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_wrong_argument_is_one_sentence_and_leaves_no_run(wrong, runs):
    model = small_model()
    *_, (name, value) = wrong.items()
    with pytest.raises(CourseError) as error:
        small_fit(model, **({"run": "vae"} | wrong))
    said = str(error.value)
    values = value if name == "betas" else [value]
    assert name.partition("_")[0] in said and any(repr(v) in said or str(v) in said for v in values)
    assert "\n" not in said and not list(runs.parent.rglob("*.safetensors")) and not runs.exists()
    assert "forward" not in vars(model)


def test_not_one_length_is_one_sentence_and_leaves_no_run(runs):
    for lengths in ({"steps": 7}, {"epochs": None}):
        with pytest.raises(CourseError, match="exactly one of epochs, steps, minutes"):
            small_fit(small_model(), run="vae", **lengths)
    assert not runs.exists()


@pytest.mark.parametrize(
    ("variable", "value", "word"),
    [
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "--dynamo_backend"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "gradient accumulation"),
        ("ACCELERATE_USE_FSDP", "true", "FSDP"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "DeepSpeed"),
    ],
)
def test_what_a_launcher_asks_for_and_fit_does_not_do_is_one_sentence(
    monkeypatch, variable, value, word
):
    monkeypatch.setenv(variable, value)
    with pytest.raises(CourseError, match=word) as error:
        small_fit(small_model())
    assert "\n" not in str(error.value)


def test_what_a_launcher_always_sets_is_no_fault(monkeypatch):
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "false")
    assert len(small_fit(small_model(), epochs=1).rows) == 1


def test_accumulation_gives_the_weights_of_the_whole_batch():
    whole, parted = conv_model(), conv_model()
    augment = partial(crop_and_flip, size=16)
    options = {"steps": 4, "batch_size": 8, "precision": "no", "augment": augment, "lr": 1e-3}
    first = fit(whole, image_loss, photos(), **options)
    second = fit(parted, image_loss, photos(), accumulate=4, **options)
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-5)
    for a, b in zip(weights(whole), weights(parted), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-5)


def test_a_batch_that_the_parts_do_not_divide_is_refused():
    words = "A batch of 16 cannot be shared by 1 processes in 3 parts each"
    with pytest.raises(CourseError, match=words):
        small_fit(small_model(), accumulate=3)


def test_averaged_weights_are_validated_shown_saved_as_best_and_left_in_the_model(runs):
    held_out, seen = squares(30, seed=2), []

    def callback(model, row):
        assert not model.training
        loss = evaluate(model, vae_loss, held_out)["loss"]
        seen.append((loss, weights(model)))

    plain, model = small_model(), small_model()
    trained = small_fit(plain)
    history = small_fit(model, ema=0.9, validation=held_out, callback=callback, run="ema")
    assert trained["loss"] == history["loss"], "averaging does not change the training itself"
    assert not equal(plain, model) and same(seen[-1][1], weights(model))
    assert history["val_loss"] == pytest.approx([loss for loss, _ in seen], rel=1e-6)
    (best,) = (runs / "ema").glob("*/best.safetensors")
    _, chosen = min(seen, key=lambda entry: entry[0])
    stored = read_tensors(best)[0]
    assert same([stored[name] for name in model.state_dict()], chosen)


def test_the_average_is_the_one_of_every_step(monkeypatch):
    steps = []

    class Recorder(EMA):
        def update_parameters(self, model):
            super().update_parameters(model)
            steps.append(model.encoder[0].bias.detach().clone())

    monkeypatch.setattr("helpers.training.trainer.EMA", Recorder)
    model = small_model()
    small_fit(model, ema=0.5)
    expected = steps[0]
    for n, value in enumerate(steps[1:], start=1):
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
    assert len(steps) == 3 * STEPS_PER_EPOCH
    torch.testing.assert_close(model.encoder[0].bias, expected)


def test_the_callback_may_add_to_the_row():
    def callback(model, row):
        row["mine"] = float(row["epoch"])

    assert small_fit(small_model(), callback=callback)["mine"] == [1.0, 2.0, 3.0]


def test_one_call_trains_a_vae_and_its_discriminator():
    vae = conv_model()
    model = VAEGAN(vae, PatchDiscriminator(width=8, layers=2, groups=2))
    before, unseen = weights(vae), weights(model.discriminator)
    recipe = {"betas": (0.5, 0.9), "clip": None, "ema": 0.9, "precision": "bf16"}
    data = {"train": photos(12, 16), "validation": photos(5, 16)}
    history = fit(model, vae_gan_loss, epochs=2, batch_size=4, **data, **recipe)
    assert not same(before, weights(vae)) and not same(unseen, weights(model.discriminator))
    assert history["discriminator"][-1] < history["discriminator"][0]


# --- precision, and the model that comes back ---


def test_bf16_trains_about_as_well_and_is_validated_in_float32():
    held_out, model = squares(70, seed=9), small_model()
    exact = small_fit(small_model())
    rough = small_fit(model, precision="bf16", validation=held_out)
    assert rough["loss"] == pytest.approx(exact["loss"], rel=0.05)
    assert rough["loss"] != exact["loss"]
    assert rough["val_loss"][-1] == evaluate(model, vae_loss, held_out)["loss"]


def test_the_model_comes_back_plain():
    model = small_model()
    small_fit(model, precision="bf16", epochs=None, steps=1)
    assert not {"forward", "_original_forward"} & set(vars(model)) and not model.training
    x = squares(4).pixels()
    output, mean = model(x, generator_for(0)), model.encode(x).mean
    assert output.decoded.dtype == mean.dtype == torch.float32
    fresh = MLPVAE(**model.config)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(output.decoded, fresh(x, generator_for(0)).decoded)

    # Accelerate's wrapper would keep the forward of the original
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

    for precision in ("bf16", "no", "bf16"):
        small_fit(small_model(), loss, precision=precision, epochs=None, steps=2)
    assert precisions == [True, True, False, False, True, True]


def test_fp16_needs_an_nvidia_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CourseError, match="'fp16', which needs an NVIDIA GPU"):
        small_fit(small_model(), precision="fp16")


def test_the_precision_that_is_chosen(monkeypatch):
    def precision(device: str) -> str:
        return choose_precision(torch.device(device))

    for supported, expected in ((True, "bf16"), (False, "no")):
        name = "_is_avx512_bf16_supported"
        monkeypatch.setattr(torch.cpu, name, lambda s=supported: s, raising=False)
        assert precision("cpu") == expected
    assert precision("mps") == "no"
    for capability, expected in (((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda c=capability: c)
        assert precision("cuda") == expected


def test_it_runs_outside_the_main_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(small_fit(small_model())))
    thread.start()
    thread.join()
    assert timeless(found[0].rows) == timeless(small_fit(small_model()).rows)


# --- when the numbers go bad; what is saved then stands in test_runs.py ---


def test_a_far_too_large_learning_rate_ends_in_one_sentence():
    with pytest.raises(CourseError, match="smaller learning rate"):
        small_fit(small_model(), lr=1e30, schedule="constant")


def test_an_infinite_loss_stops_without_a_named_run():
    calls = []

    def loss(model, batch, generator):
        calls.append(1)
        terms = vae_loss(model, batch, generator)
        return terms | {"loss": terms["loss"] / (len(calls) < 3)}

    model = small_model()
    words = "step 3: the loss is inf; the weights are those before this step"
    with pytest.raises(CourseError, match=words):
        small_fit(model, loss)
    assert finite(model)
