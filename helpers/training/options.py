"""The options of `python -m helpers.train_vae`."""

import argparse
import functools
import math
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from accelerate.utils import is_tensorboard_available

from helpers.env import PLAIN_NAME
from helpers.models.conv_vae import VAEConfig, photo_config
from helpers.models.losses import calibrated_gaussian_nll, gaussian_nll, laplace_nll
from helpers.training.loop import PRECISIONS

LOSSES = {
    "calibrated": calibrated_gaussian_nll,
    "mse": functools.partial(gaussian_nll, sigma=0.05),  # about what is left at 26 dB
    "l1": functools.partial(laplace_nll, scale=0.05),
}
GROUP = 4  # channels, at least: with fewer in it GroupNorm takes away what a channel says
BATCH = 8


def parse(arguments: Sequence[str] | None = None, description: str = "") -> argparse.Namespace:
    """The options of a command line.

    A wrong one ends the program with a sentence and exit code 2.
    """
    parser = argparse.ArgumentParser(
        prog="python -m helpers.train_vae",
        usage="%(prog)s [options]",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_images(parser)
    _add_network(parser)
    _add_length(parser)
    _add_recipe(parser)
    _add_resources(parser)
    _add_result(parser)
    options = parser.parse_args(arguments)

    if options.minutes is options.steps is options.epochs is None:
        options.minutes = 20.0
    fault = _contradiction(options)
    if fault:
        parser.error(fault)
    return options


def _contradiction(options: argparse.Namespace) -> str | None:
    channels = options.channels or []
    begin = "--init-from" if options.init_from is not None else "--continue"
    begins = options.init_from is not None or options.continue_
    if options.evaluate and options.init_from is None:
        return "--evaluate needs --init-from, the weights to measure"
    if options.reconstruct and options.init_from is None:
        return "--reconstruct needs --init-from, the weights to use"
    if options.reconstruct and (options.evaluate or options.export):
        return "--reconstruct writes pictures and nothing else: leave out --evaluate and --export"
    if options.continue_ and (options.init_from is not None or options.evaluate):
        return "--continue begins with its own --run: leave out --init-from and --evaluate"
    if options.freeze and not begins:
        return "--freeze needs --init-from, whose encoder is kept"
    if begins and (options.factor or options.latent_channels or channels or options.plain):
        network = "--factor, --latent-channels, --channels and --plain"
        return f"{begin} brings its network along: leave out {network}"
    if any(width % GROUP for width in channels):
        return f"--channels must be multiples of {GROUP}"
    if channels and options.factor and options.factor != network_of(options).factor:
        given = f"--factor {options.factor} and {len(channels)} --channels"
        levels = "three levels, factor 8 four" if options.plain else "one level, factor 8 two"
        return f"{given} disagree: factor 4 has {levels}"
    if options.adversarial and options.loss:
        return "--adversarial has a loss of its own: leave out --loss"
    if options.no_perceptual and not options.adversarial:
        return "--no-perceptual belongs to --adversarial, which is not there"
    if options.log_with and not is_tensorboard_available():
        return "--log-with tensorboard needs TensorBoard: pip install tensorboard"
    if (options.batch or BATCH) % options.accumulate:
        return f"--accumulate {options.accumulate} does not divide --batch {options.batch or BATCH}"
    return None


def network_of(options: argparse.Namespace) -> VAEConfig:
    """The network that --factor, --latent-channels, --channels and --plain describe."""
    named = VAEConfig.course if options.plain else photo_config
    config = named(options.factor or 8, options.latent_channels or 4)
    if not options.channels:
        return config
    groups = math.gcd(*options.channels) // GROUP
    return replace(config, channels=tuple(options.channels), groups=groups)


def as_typed(options: argparse.Namespace) -> str:
    """The options that are not at their default, as a command line.

    Of a path it shows the last part only, so that no model card tells where somebody's files are.
    """
    usual = vars(parse([]))
    words = []
    for option, value in vars(options).items():
        if value not in (usual[option], None):
            words.append("--" + option.rstrip("_").replace("_", "-"))
            values = value if isinstance(value, list) else [value]
            words += [_as_word(value) for value in values if value is not True]
    return shlex.join(words)


def _as_word(value: int | float | str | Path) -> str:
    if isinstance(value, Path):
        return value.name
    return f"{value:.10g}" if isinstance(value, float) else str(value)


# --- the groups of the help ---


def _add_images(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("images").add_argument
    words = "your photographs; without it: dogs, out of COURSE_DATA or downloaded (Imagewoof)"
    add("--folder", type=_path, help=words)
    words = "height and width (default 128, or that of --init-from)"
    add("--resolution", type=_number(int, 1), metavar="PIXELS", help=words)
    words = "load images X times larger and crop random squares from them (default 1: whole images)"
    add("--crop-from", type=_number(float, 1), default=1.0, metavar="X", help=words)


def _add_network(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("network").add_argument
    words = "how many times smaller the latent is along each side (default 8)"
    add("--factor", type=int, choices=(4, 8), help=words)
    words = "channels of the latent (default 4)"
    add("--latent-channels", type=_number(int, 1), metavar="N", help=words)
    small, large = (" ".join(map(str, photo_config(factor).channels)) for factor in (4, 8))
    words = f"widths of the levels from the finest down, multiples of {GROUP} "
    words += f"(default for factor 8: {large}, for factor 4: {small})"
    add("--channels", type=_number(int, 1), nargs="+", metavar="N", help=words)
    words = "Stable Diffusion's layers alone, so that diffusers loads it without the course: no "
    words += "patches, and no linear shortcut, so slower and less exact"
    add("--plain", action="store_true", help=words)
    words = "begin with the network and weights of a file that --export or a run wrote, of a "
    words += "diffusers folder (a VAE or a pipeline), or of such a one on Hugging Face (owner/name)"
    add("--init-from", type=_source, metavar="FILE", help=words)
    words = "begin with the finished --run of this name, and train it for so long once more; the "
    words += "learning rate rises and falls anew"
    add("--continue", action="store_true", dest="continue_", help=words)
    words = "train the decoder alone: the latents stay those of --init-from, bit for bit"
    add("--freeze", choices=("encoder",), help=words)


def _add_length(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how long (one of these; default 20 minutes)")
    add = group.add_mutually_exclusive_group().add_argument
    words = "by the clock; a resumed run has what is left of them"
    add("--minutes", type=_number(float, 0.001), metavar="X", help=words)
    add("--steps", type=_number(int, 1), metavar="N", help="so many batches")
    words = "so many times through all training images"
    add("--epochs", type=_number(int, 1), metavar="N", help=words)


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("recipe").add_argument
    words = f"images per step, over all processes (default {BATCH}, or as many as there are)"
    add("--batch", type=_number(int, 1), metavar="N", help=words)
    words = "largest learning rate (default 0.003)"
    add("--lr", type=_number(float, 1e-8), default=3e-3, metavar="X", help=words)
    words = "averaged weights (EMA) are kept; their decay rises to X (default 0.999; 0: keep the "
    words += "last step's weights)"
    add("--ema", type=_number(float, 0, 1), default=0.999, metavar="X", help=words)
    words = "squared error with each image's own best sigma (calibrated, default) or with sigma "
    words += "0.05 (mse); absolute error with scale 0.05 (l1)"
    add("--loss", choices=LOSSES, help=words)
    words = "weight of the KL (default 0.1; with --adversarial 1e-6)"
    add("--beta", type=_number(float, 0), metavar="X", help=words)
    words = "Stable Diffusion's recipe: L1, VGG16 (528 MB, downloaded) and a discriminator; best "
    words += "with --init-from and --lr 1e-4"
    add("--adversarial", action="store_true", help=words)
    add("--no-perceptual", action="store_true", help="with --adversarial: without VGG16")
    words = "of the first weights, the order and the noise (default 0)"
    add("--seed", type=_number(int, 0, 2**63), default=0, metavar="N", help=words)


def _add_resources(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("memory and speed").add_argument
    words = "bf16, fp16 (NVIDIA GPUs only) or no (float32); default auto: the fastest safe one"
    add("--precision", choices=PRECISIONS, default="auto", help=words)
    words = "compute a batch in N parts: less memory, the same result (with --adversarial nearly)"
    add("--accumulate", type=_number(int, 1), default=1, metavar="N", help=words)
    words = "less memory, about a third more time"
    add("--gradient-checkpointing", action="store_true", help=words)
    words = "torch.compile: the start takes minutes, then a GPU is faster"
    add("--compile", action="store_true", help=words)


def _add_result(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("result").add_argument
    words = "checkpoints and pictures go to this folder in COURSE_RUNS, by default build/runs "
    words += "(default train_vae)"
    add("--run", type=_name, default="train_vae", metavar="NAME", help=words)
    words = "write build/checkpoints/NAME.safetensors (fp16; float32 with --freeze), a model card "
    words += "NAME.md, and a folder NAME for diffusers"
    add("--export", type=_name, metavar="NAME", help=words)
    words = "train nothing; print the figures of the weights of --init-from (and --export them)"
    add("--evaluate", action="store_true", help=words)
    words = "train nothing; write these photographs (files, folders) and what the weights of "
    words += "--init-from make of them, side by side, to build/reconstructions"
    add("--reconstruct", type=_path, nargs="+", metavar="FILE", help=words)
    words = "curves of the losses beside the checkpoints, by Accelerate"
    add("--log-with", choices=("tensorboard",), help=words)


# --- what argparse calls with a text ---


def _number(kind: type, low: float, high: float = math.inf) -> Callable[[str], float]:
    """A converter to an int or float from `low` on and below `high`."""

    def convert(text: str) -> float:
        try:
            if low <= kind(text) < high:
                return kind(text)
        except ValueError:
            pass
        what = "whole number" if kind is int else "number"
        limits = f"{low:g} or more" + (f" and below {high:g}" if high < math.inf else "")
        raise argparse.ArgumentTypeError(f"{text!r} is not a {what} of {limits}")

    return convert


def _name(text: str) -> str:
    if not PLAIN_NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a plain name (letters, digits, '_', '-' and '.')"
        )
    return text


def _source(text: str) -> Path | str:
    """A path, or the name of a model on Hugging Face: owner/name, where no folder is called so."""
    path = _path(text)
    is_name = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", text) and not path.parent.exists()
    return text if is_name else path


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("the name is empty: a variable in the command is not set?")
    return Path(text).expanduser()  # the shell leaves the ~ of --folder=~/photos alone
