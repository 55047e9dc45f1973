"""python -m helpers.text_to_image: what it trains on, what it says, and what it leaves behind."""

import subprocess
import sys

import pytest
import torch

from helpers.classifiers.dogs import COMBINATIONS, FACTORS, DogClassifier
from helpers.data.synthetic_dogs import POSES, caption, load_synthetic_dogs
from helpers.diffusion.parts import load_tiny_sd, sample
from helpers.models.conv_vae import ConvVAE, VAEConfig
from helpers.train_tiny_sd import (
    CHANNELS,
    FACTOR,
    NEVER_SEEN,
    SEEN,
    WATCHED,
    draw_prompts,
    load_seen,
    main,
    measure,
    train_vae,
)
from helpers.training.checkpoints import load_shipped
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path / "build"))


def test_every_word_of_a_hidden_combination_is_seen_in_others():
    assert (
        len(set(NEVER_SEEN)) == 8
        and len(SEEN) == 40
        and set(NEVER_SEEN) | set(SEEN) == set(COMBINATIONS)
    )
    for position, values in enumerate(FACTORS.values()):
        for value in values:
            assert sum(combination[position] == value for combination in SEEN) >= 6


def test_hidden_combinations_are_not_in_the_training_set():
    dogs = load_seen(96)
    hidden = {caption(*combination) for combination in NEVER_SEEN}
    assert len(dogs) == 80 and not hidden & set(dogs.captions)
    assert len(dogs.images) == len(dogs.captions) == len(dogs.factors["pose"])
    assert set(dogs.captions) == {caption(*combination) for combination in SEEN}
    assert set(dogs.factors["pose"].tolist()) == {POSES.index("sitting")}


def test_prompts_go_round_the_combinations():
    prompts = draw_prompts(NEVER_SEEN, 20)
    assert (
        prompts[:8] == [caption(*combination) for combination in NEVER_SEEN]
        and prompts[8:16] == prompts[:8]
    )
    assert len(prompts) == 20


def test_watched_prompts_show_each_coat_and_something_new():
    assert {text.split()[1] for text in WATCHED} == set(FACTORS["coat"])
    assert (
        len({text.split()[4] for text in WATCHED}) == 2
        and len({text.split(" ears ")[1] for text in WATCHED}) == 4
    )
    assert any(caption(*combination) in WATCHED for combination in NEVER_SEEN)


@pytest.mark.slow
def test_the_vae_knows_its_scale():
    dogs = load_synthetic_dogs(48)
    vae = train_vae(dogs, dogs, steps=8)
    assert (vae.config.factor, vae.config.latent_channels) == (8, 8)
    assert vae.config.scaling_factor not in (1.0, 0.18215)


def test_measure_asks_for_both_kinds(monkeypatch):
    class Sees(torch.nn.Module):
        """A judge who sees what the first pixels say."""

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return {
                name: x[:, i, 0, : len(values)] for i, (name, values) in enumerate(FACTORS.items())
            }

    def draw(pipeline, prompts, seed):
        pictures = torch.zeros(len(prompts), 3, 1, 6)
        for picture, text in zip(pictures, prompts, strict=True):
            words = next(c for c in COMBINATIONS if caption(*c) == text)
            for i, (word, values) in enumerate(zip(words, FACTORS.values(), strict=True)):
                picture[i, 0, values.index(word)] = 1.0
            if words in NEVER_SEEN:
                picture[1] = 1 - picture[1]  # the wrong ears
        return pictures

    monkeypatch.setattr("helpers.text_to_image.sample", draw)
    found = measure(None, Sees())
    assert found["seen"] == {"coat": 1, "ears": 1, "ground": 1, "all three": 1}
    assert found["never seen"] == {"coat": 1, "ears": 0, "ground": 1, "all three": 0}


def test_the_parts_share_the_minutes(monkeypatch):
    asked = []

    def train_vae(dogs, validation, *_, minutes):
        for each in (dogs, validation):
            assert set(each.factors["pose"].tolist()) == {POSES.index("sitting")}
        asked.append(minutes)
        return ConvVAE(VAEConfig.course(FACTOR, CHANNELS))

    def stop(*_, minutes):
        asked.append(minutes)
        raise KeyboardInterrupt

    monkeypatch.setattr("helpers.text_to_image.train_vae", train_vae)
    monkeypatch.setattr("helpers.text_to_image.train_on_latents", stop)
    with pytest.raises(SystemExit, match="stopped; the same command goes on"):
        main(["--minutes", "10", "--dogs", "96"])
    assert len(asked) == 2 and min(asked) > 1 and sum(asked) == pytest.approx(10)


@pytest.mark.slow
def test_a_short_run_trains_samples_measures_and_exports(tmp_path, capsys):
    words = ["--minutes", "0.05", "--dogs", "96", "--run", "toy", "--export", "toy-sd"]
    figures = main(words)
    said = capsys.readouterr().out
    assert "scaling factor" in said and "never seen" in said and "toy/samples" in said
    folder = tmp_path / "build" / "checkpoints" / "toy-sd"
    card = (folder / "README.md").read_text()
    assert (
        f"{figures['psnr']:.2f} dB" in card
        and "80 drawn dogs" in card
        and str(tmp_path) not in card
    )
    assert (folder / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size < 25_000_000
    pipeline = load_tiny_sd(folder)
    assert pipeline.vae.config.scaling_factor == pytest.approx(figures["scaling_factor"])
    assert measure(pipeline, load_shipped(DogClassifier, "dog_classifier")) == figures["shares"]
    again = main(words)
    said = capsys.readouterr().out
    assert said.count("it is finished and loaded") == 2 and again["shares"] == figures["shares"]


@pytest.mark.slow
def test_the_exported_pipeline_needs_nothing_of_the_course(tmp_path):
    main(["--minutes", "0.01", "--dogs", "96", "--run", "toy", "--export", "toy-sd"])
    folder = tmp_path / "build" / "checkpoints" / "toy-sd"
    code = (
        "import sys, torch; from diffusers import StableDiffusionPipeline; torch.set_num_threads(1); "
        "pipeline = StableDiffusionPipeline.from_pretrained(sys.argv[1]); "
        "noise = torch.Generator().manual_seed(0); "
        "found = pipeline('a red dog', num_inference_steps=3, guidance_scale=3.0, generator=noise, output_type='pt'); "
        "torch.save(found.images, sys.argv[2])"
    )
    command = [sys.executable, "-c", code, folder, tmp_path / "y.pt"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    ours = sample(load_tiny_sd(folder), ["a red dog"], steps=3)
    torch.testing.assert_close(
        torch.load(tmp_path / "y.pt", weights_only=True), ours, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    "words, said",
    [
        (["--minutes", "0"], "0 is not above 0"),
        (["--minutes", "nan"], "nan is not above 0"),
        (["--dogs", "many"], "invalid whole number value: 'many'"),
        (["--dogs", "7"], "--dogs 7 are too few: 96 are two of each combination"),
        (["--colour", "red"], "unrecognized arguments"),
    ],
)
def test_wrong_options_get_a_sentence(words, said, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert said in capsys.readouterr().err + str(stop.value)


def test_help_is_clear():
    command = [sys.executable, "-m", "helpers.text_to_image", "--help"]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for piece in (
        "--minutes X",
        "--export NAME",
        "goes on when the same command comes again",
        "twenty minutes on two cores",
    ):
        assert piece in said
