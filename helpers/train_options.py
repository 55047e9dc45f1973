"""The options of `python -m helpers.train_dogs`."""

import argparse
import functools
import math
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from helpers.conv_vae import VAEConfig
from helpers.losses import calibrated_gaussian_nll, gaussian_nll, laplace_nll

LOSSES = {
    "calibrated": calibrated_gaussian_nll,
    "mse": functools.partial(gaussian_nll, sigma=0.05),  # about what is left at 26 dB
    "l1": functools.partial(laplace_nll, scale=0.05),
}
GROUPS = VAEConfig.course(4).groups  # f8 has fewer


def parse(arguments: Sequence[str] | None = None, description: str = "") -> argparse.Namespace:
    """The options of a command line; a wrong one ends the program with a sentence and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers.train_dogs",
        usage="%(prog)s [options]",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for add_group in (_add_images, _add_network, _add_length, _add_recipe, _add_resources, _add_result):
        add_group(parser)
    options = parser.parse_args(arguments)
    if options.minutes is options.steps is options.epochs is None:
        options.minutes = 20.0
    fault = _contradiction(options)
    if fault:
        parser.error(fault)
    return options


def _contradiction(options: argparse.Namespace) -> str | None:
    widths = options.widths or []
    if options.evaluate and options.start is None:
        return "--evaluate needs --start, the weights to measure"
    if options.evaluate and options.export:
        return "--evaluate trains nothing: leave out --export"
    if options.start and (options.factor or options.latent_channels or widths):
        return "--start brings its network along: leave out --factor, --latent-channels and --widths"
    if any(width % GROUPS for width in widths):
        return f"--widths must be multiples of {GROUPS}"
    if widths and options.factor and options.factor != 2 ** (len(widths) - 1):
        return f"--factor {options.factor} and {len(widths)} --widths disagree: factor 4 has three widths, factor 8 four"
    if options.adversarial and options.loss:
        return "--adversarial has a loss of its own: leave out --loss"
    if options.no_perceptual and not options.adversarial:
        return "--no-perceptual leaves something out of --adversarial, which is not there"
    if options.batch % options.accumulate:
        return f"--accumulate {options.accumulate} does not divide --batch {options.batch}"
    return None


def typed(options: argparse.Namespace) -> str:
    """The options that are not at their default, as a command line; of a path its last part only."""
    usual, words = vars(parse([])), []
    for option, value in vars(options).items():
        if value not in (usual[option], None):
            words.append("--" + option.replace("_", "-"))
            values = value if isinstance(value, list) else [] if value is True else [value]
            words += [v.name if isinstance(v, Path) else f"{v:.10g}" if isinstance(v, float) else str(v) for v in values]
    return shlex.join(words)


def _add_images(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("images").add_argument
    add("--folder", type=_path, help="of your own images; default: dogs, out of COURSE_DATA or downloaded to it (Imagewoof)")
    add("--resolution", type=_number(int, 1), metavar="PIXELS", help="height and width (default 128, or that of --start)")
    words = "load images X times larger and train on random squares of them (default 1: on whole images)"
    add("--zoom", type=_number(float, 1), default=1.0, metavar="X", help=words)


def _add_network(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("network").add_argument
    add("--factor", type=int, choices=(4, 8), help="how many times smaller the latent is along each side (default 8)")
    add("--latent-channels", type=_number(int, 1), metavar="N", help="numbers at each position of the latent (default 4)")
    small, large = (" ".join(map(str, VAEConfig.course(factor).channels)) for factor in (4, 8))
    words = f"channels of each level from full resolution down, multiples of {GROUPS} (default {small}, or for 8 {large})"
    add("--widths", type=_number(int, 1), nargs="+", metavar="N", help=words)
    add("--start", type=_path, metavar="FILE", help="begin with the network and weights that an --export wrote")


def _add_length(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how long (one of these; default 20 minutes)")
    add = group.add_mutually_exclusive_group().add_argument
    add("--minutes", type=_number(float, 0.001), metavar="X", help="by the clock; a resumed run has what is left of them")
    add("--steps", type=_number(int, 1), metavar="N", help="so many batches")
    add("--epochs", type=_number(int, 1), metavar="N", help="so many times through all training images")


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("recipe").add_argument
    add("--batch", type=_number(int, 1), default=8, metavar="N", help="images per step, over all processes (default 8)")
    add("--lr", type=_number(float, 1e-8), default=3e-3, metavar="X", help="largest learning rate (default 0.003)")
    add("--ema", type=_number(float, 0, 1), metavar="X", help="keep averaged weights, with this decay, such as 0.999")
    words = "the error: squared, its weight found alone (calibrated, default) or sigma 0.05 (mse); absolute, scale 0.05 (l1)"
    add("--loss", choices=LOSSES, help=words)
    add("--beta", type=_number(float, 0), metavar="X", help="weight of the KL (default 0.1; with --adversarial 1e-6)")
    words = "Stable Diffusion's recipe: L1, a discriminator, VGG16 (528 MB, downloaded); best with --start and --lr 1e-4"
    add("--adversarial", action="store_true", help=words)
    add("--no-perceptual", action="store_true", help="with --adversarial: without VGG16")
    words = "of the first weights, the order and the noise (default 0)"
    add("--seed", type=_number(int, 0, 2**63), default=0, metavar="N", help=words)


def _add_resources(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("memory and speed").add_argument
    words = "arithmetic; fp16 is for NVIDIA GPUs, no is 32 bit (default auto: the fastest safe one)"
    add("--precision", choices=("auto", "bf16", "fp16", "no"), default="auto", help=words)
    words = "compute a batch in N parts: less memory, the same numbers (with --adversarial nearly the same)"
    add("--accumulate", type=_number(int, 1), default=1, metavar="N", help=words)
    add("--recompute", action="store_true", help="gradient checkpointing: less memory, about a third more time")
    add("--compile", action="store_true", help="torch.compile: the start takes minutes, then a GPU is faster")


def _add_result(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("result").add_argument
    words = "checkpoints and pictures go to the folder NAME in COURSE_RUNS, by default build/runs (default train_dogs)"
    add("--run", type=_name, default="train_dogs", metavar="NAME", help=words)
    words = "write weights (fp16) and a model card to build/checkpoints/NAME.safetensors and NAME.md"
    add("--export", type=_name, metavar="NAME", help=words)
    add("--evaluate", action="store_true", help="train nothing; print the figures of the weights of --start")


def _number(kind: type, low: float, high: float = math.inf) -> Callable[[str], float]:
    """What argparse calls with a text: an int or float from `low` on and below `high`."""

    def convert(text: str) -> float:
        try:
            if low <= kind(text) < high:
                return kind(text)
        except ValueError:
            pass
        limits = f"{low:g} or more" + (f" and below {high:g}" if high < math.inf else "")
        raise argparse.ArgumentTypeError(f"{text!r} is not a {'whole ' if kind is int else ''}number of {limits}")

    return convert


def _name(text: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a plain name (letters, digits, '_', '-' and '.')")
    return text


def _path(text: str) -> Path:
    return Path(text).expanduser()  # the shell leaves the ~ of --folder=~/photos alone
