"""python -m helpers.train_tiny_sd: what it trains on, what it says, and what it leaves behind."""

import importlib
import shlex
from functools import partial

import pytest
import torch

from helpers import train_tiny_sd as command
from helpers.classifiers.dogs import COMBINATIONS, FACTORS, DogClassifier
from helpers.data.synthetic_dogs import POSES, caption
from helpers.diffusion import latents
from helpers.diffusion.model_card import CARD
from helpers.diffusion.parts import load_tiny_sd, sample
from helpers.models.conv_vae import ConvVAE, VAEConfig
from helpers.train_tiny_sd import (
    NEVER_SEEN,
    SEEN,
    WATCHED,
    draw_prompts,
    load_seen,
    main,
    measure_prompt_accuracy,
)
from helpers.training.checkpoints import load_shipped
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path / "build"))


def test_every_word_of_a_hidden_combination_is_seen_in_others():
    assert len(set(NEVER_SEEN)) == 8 and len(SEEN) == 40
    assert set(NEVER_SEEN) | set(SEEN) == set(COMBINATIONS)
    for position, values in enumerate(FACTORS.values()):
        for value in values:
            assert sum(combination[position] == value for combination in SEEN) >= 6


def test_hidden_combinations_are_not_in_the_training_set():
    dogs = load_seen(96)
    assert len(dogs.images) == len(dogs.captions) == len(dogs.factors["pose"]) == 80
    assert set(dogs.captions) == {caption(*combination) for combination in SEEN}
    assert set(dogs.factors["pose"].tolist()) == {POSES.index("sitting")}


def test_prompts_go_round_the_combinations():
    prompts = draw_prompts(NEVER_SEEN, 20)
    assert prompts[:8] == [caption(*combination) for combination in NEVER_SEEN]
    assert prompts[8:16] == prompts[:8] and len(prompts) == 20


def test_watched_prompts_show_each_coat_and_something_new():
    shown = [next(c for c in COMBINATIONS if caption(*c) == text) for text in WATCHED]
    for values, known in zip(zip(*shown, strict=True), FACTORS.values(), strict=True):
        assert set(values) == set(known)
    assert set(shown) & set(NEVER_SEEN) and set(shown) & set(SEEN)


def test_prompt_accuracy_is_measured_for_both_kinds(monkeypatch):
    class Sees(torch.nn.Module):
        """A classifier that sees what the first pixels say."""

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x):
            names = enumerate(FACTORS.items())
            return {name: x[:, i, 0, : len(values)] for i, (name, values) in names}

    def draw(pipeline, prompts, seed):
        pictures = torch.zeros(len(prompts), 3, 1, 6)
        for picture, text in zip(pictures, prompts, strict=True):
            words = next(c for c in COMBINATIONS if caption(*c) == text)
            for i, (word, values) in enumerate(zip(words, FACTORS.values(), strict=True)):
                picture[i, 0, values.index(word)] = 1.0
            if words in NEVER_SEEN:
                picture[1] = 1 - picture[1]  # the wrong ears
        return pictures

    monkeypatch.setattr(command, "sample", draw)
    found = measure_prompt_accuracy(None, Sees())
    assert found["seen"] == {"coat": 1, "ears": 1, "ground": 1, "all three": 1}
    assert found["never seen"] == {"coat": 1, "ears": 0, "ground": 1, "all three": 0}


def test_the_parts_share_the_minutes(monkeypatch):
    asked = []

    def train_first_stage(dogs, validation, *_, minutes):
        for each in (dogs, validation):
            assert set(each.factors["pose"].tolist()) == {POSES.index("sitting")}
        asked.append(minutes)
        return ConvVAE(VAEConfig.course(command.FACTOR, command.CHANNELS))

    def stop(*_, minutes):
        asked.append(minutes)
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "train_first_stage", train_first_stage)
    monkeypatch.setattr(command, "train_on_latents", stop)
    with pytest.raises(SystemExit, match="train_tiny_sd: stopped; the same command goes on"):
        main(["--minutes", "10", "--dogs", "96"])
    assert len(asked) == 2 and min(asked) > 1 and sum(asked) == pytest.approx(10)


WRONG = {
    "--run ../mine": "--run is '../mine'; it can be a plain name",
    "--run ''": "--run is ''; it can be a plain name",
    "--export /tmp/mine": "--export is '/tmp/mine'; it can be a plain name",
    "--export ''": "--export is ''; it can be a plain name",
    "--seed -1": "--seed is -1; it can be a whole number (int) of 0 or more",
    "--seed 99999999999999999999": "--seed is 99999999999999999999",
    "--dogs 95": "--dogs 95 are too few",
    "--minutes nan": 2,
    "--minutes inf": 2,
    "--minutes -1": 2,
    "--steps 1.5": 2,
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_option_is_one_sentence_before_anything_is_made(tmp_path, words):
    with pytest.raises(SystemExit) as end:
        main(shlex.split(words))
    expected = WRONG[words]
    assert end.value.code == expected or str(end.value).startswith(f"train_tiny_sd: {expected}")
    assert "\n" not in str(end.value) and not any(tmp_path.iterdir())


@pytest.mark.parametrize("module", ["train_vae", "train_tiny_sd"])
def test_an_unknown_profile_is_one_sentence_of_the_command(monkeypatch, module):
    monkeypatch.setenv("COURSE_PROFILE", "GPU")
    program = importlib.reload(importlib.import_module(f"helpers.{module}"))  # as when it starts
    with pytest.raises(SystemExit) as end:
        program.main([])
    assert str(end.value) == f"{module}: COURSE_PROFILE is 'GPU'; it can be quick, cpu, gpu."


@pytest.mark.slow
def test_a_short_run_trains_samples_measures_exports_and_is_found_again(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(command.PICTURES, "quick", 4)
    for module in (command, latents):  # what is drawn does not matter here
        monkeypatch.setattr(module, "sample", partial(sample, steps=1))
    words = ["--steps", "3", "--dogs", "96", "--run", "toy", "--export", "toy-sd"]
    figures = main(words)
    said = capsys.readouterr().out
    assert "scaling factor" in said and "never seen" in said and "toy/samples" in said

    folder = tmp_path / "build" / "checkpoints" / "toy-sd"
    card = (folder / "README.md").read_text()
    assert f"{figures['psnr']:.2f} dB" in card and "80 drawn dogs" in card
    assert "`python -m helpers.train_tiny_sd --steps 3 --dogs 96 --seed 0 --export toy-sd`" in card
    assert str(tmp_path) not in card
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    assert weights.stat().st_size < 25_000_000  # in fp16

    pipeline = load_tiny_sd(folder)
    config = pipeline.vae.config
    assert config.latent_channels == 8 and len(config.block_out_channels) == 4
    assert config.scaling_factor == pytest.approx(figures["scaling_factor"])
    assert config.scaling_factor not in (1.0, 0.18215)  # it was measured
    classifier = load_shipped(DogClassifier, "dog_classifier")
    assert measure_prompt_accuracy(pipeline, classifier) == figures["shares"]

    again = main(words)
    said = capsys.readouterr().out
    assert said.count("it is finished and loaded") == 2 and again["shares"] == figures["shares"]


def test_the_published_card_is_as_the_command_writes_it():
    """Its numbers are of the run that was published; its sentences are the template's."""
    card = (ROOT / "data" / "checkpoints" / "tiny-sd" / "README.md").read_text()
    for line in CARD.splitlines():
        if "{" not in line:
            assert line in card.splitlines()
    assert "`python -m helpers.train_tiny_sd --minutes 20 " in card


@pytest.mark.parametrize(
    "words, said",
    [
        (["--minutes", "0"], "0 is not above 0"),
        (["--minutes", "nan"], "nan is not above 0"),
        (["--minutes", "2", "--steps", "3"], "not allowed with argument --minutes"),
        (["--dogs", "many"], "invalid whole number value: 'many'"),
        (["--dogs", "7"], "--dogs 7 are too few: 96 are two of each combination"),
        (["--colour", "red"], "unrecognized arguments"),
    ],
)
def test_wrong_options_get_a_sentence(words, said, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert said in capsys.readouterr().err + str(stop.value)


def test_help_is_clear(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    for piece in (
        "--minutes X",
        "--export NAME",
        "goes on when the same command comes again",
        "twenty minutes on two cores",
    ):
        assert piece in said
