"""The options of `python -m helpers.train_vae`: accepted, refused, and typed once more."""

import re
import shlex
from pathlib import Path

import pytest

from helpers import train_vae
from helpers.training import options
from helpers.training.options import GROUP, as_typed, network_of, parse


def test_help_says_what_every_option_does(capsys):
    with pytest.raises(SystemExit) as end:
        train_vae.main(["--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0
    assert all(group in text for group in ("images:", "network:", "how long", "recipe:", "result:"))
    for option in vars(parse([])):
        name = option.rstrip("_").replace("_", "-")
        words = re.search(rf"^  --{name}\b[^\n]*?(?:  +|\n +)(\w[^\n]+)", text, re.M)
        assert words and len(words[1].split()) >= 2, option
    assert max(map(len, text.splitlines())) <= 95


def test_the_examples_of_the_help_are_accepted():
    text = train_vae.__doc__.replace("\\\n", "")
    commands = re.findall(r"helpers\.train_vae (.*)\n", text)
    assert len(commands) == 6
    for command in commands:
        parse(shlex.split(command))


def test_a_name_with_one_slash_is_a_model_on_hugging_face_unless_it_is_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    words = ["ada/vae", "models/vae", "vae", "a/b/vae", "./vae"]
    found = [parse(["--init-from", word]).init_from for word in words]
    assert found == ["ada/vae", *map(Path, words[1:])]


def test_groups_divide_all_widths_and_hold_four_channels():
    for words, groups in {"12 16": 1, "16 24": 2, "32 64": 8}.items():
        config = network_of(parse(["--channels", *words.split()]))
        assert config.groups == groups and config.factor == 8 and config.linear_shortcut


def test_without_a_length_it_is_twenty_minutes():
    assert parse([]).minutes == 20.0
    assert parse(["--steps", "3"]).minutes is None


def test_the_options_as_they_are_typed():
    words = "--folder photos --crop-from 1.5 --channels 8 16 --steps 3 --lr 0.0012345 --beta 0"
    words += " --adversarial --gradient-checkpointing"
    elsewhere = words.replace("photos", "/home/ada/photos")
    assert parse(elsewhere.split()).folder == Path("/home/ada/photos")
    assert sorted(as_typed(parse(elsewhere.split())).split()) == sorted(words.split())
    assert parse(as_typed(parse(words.split())).split()) == parse(words.split())
    assert as_typed(parse([])) == ""
    assert as_typed(parse(["--continue", "--ema", "0"])) == "--continue --ema 0"
    assert as_typed(parse(["--init-from", "ada/dogs-vae"])) == "--init-from ada/dogs-vae"
    assert as_typed(parse(["--init-from", "/home/ada/dogs-vae"])) == "--init-from dogs-vae"
    assert as_typed(parse(["--folder", "/home/ada/my photos"])) == "--folder 'my photos'"


WRONG = {
    "--steps 0": "argument --steps: '0' is not a whole number of 1 or more",
    "--steps 1.5": "argument --steps: '1.5' is not a whole number",
    "--minutes 0": "argument --minutes: '0' is not a number",
    "--minutes inf": "argument --minutes: 'inf' is not a number",
    "--batch many": "argument --batch: 'many'",
    "--resolution -64": "argument --resolution: '-64'",
    "--lr nan": "argument --lr: 'nan' is not a number",
    "--ema 1": "argument --ema: '1' is not a number of 0 or more and below 1",
    "--crop-from 0.5": "argument --crop-from: '0.5'",
    "--seed 99999999999999999999": "is not a whole number of 0 or more and below",
    "--export ../elsewhere": "argument --export: '../elsewhere' is not a plain name",
    "--run .": "argument --run: '.' is not a plain name",
    "--export ''": "argument --export: '' is not a plain name",
    "--folder ''": "argument --folder: the name is empty",
    "--init-from=": "argument --init-from: the name is empty",
    "--factor 5": "argument --factor: invalid choice: 5",
    "--steps 3 --epochs 2": "not allowed with argument",
    f"--channels 8 {GROUP + 1}": f"--channels must be multiples of {GROUP}",
    "--channels 8 16 --factor 4": "--factor 4 and 2 --channels disagree",
    "--evaluate": "--evaluate needs --init-from, the weights to measure",
    "--init-from x.safetensors --factor 4": "--init-from brings its network along",
    "--continue --channels 8 16": "--continue brings its network along",
    "--init-from x.safetensors --plain": "leave out --factor, --latent-channels, --ch",
    "--continue --init-from x.safetensors": "leave out --init-from and --evaluate",
    "--reconstruct a.jpg": "--reconstruct needs --init-from, the weights to use",
    "--reconstruct a.jpg --init-from x --export y": "leave out --evaluate and --export",
    "--freeze encoder": "--freeze needs --init-from, whose encoder is kept",
    "--log-with tensorboard": "--log-with tensorboard needs TensorBoard: pip install tensorboard",
    "--log-with paper": "argument --log-with: invalid choice: 'paper'",
    "--adversarial --loss mse": "leave out --loss",
    "--no-perceptual": "--adversarial",
    "--batch 8 --accumulate 3": "--accumulate 3 does not divide --batch 8",
}


@pytest.mark.parametrize("command", WRONG)
def test_a_wrong_option_is_one_sentence_and_exit_code_2(command, capsys, monkeypatch):
    monkeypatch.setattr(options, "is_tensorboard_available", lambda: False)
    with pytest.raises(SystemExit) as end:
        train_vae.main(shlex.split(command))
    usage, sentence = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and usage == "usage: python -m helpers.train_vae [options]"
    assert WRONG[command] in sentence
