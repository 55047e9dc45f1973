"""The photographs of a run of `helpers.train_vae`: which sizes work, and the splits."""

import argparse
import contextlib
import io

import torch
from accelerate import PartialState

from helpers import CourseError
from helpers.data.datasets import load_dogs
from helpers.data.image_folder import load_image_folder
from helpers.data.image_set import ImageSet
from helpers.env import device
from helpers.metrics.images import SSIM_WINDOW
from helpers.models.conv_vae import VAEConfig, check_size
from helpers.training.options import BATCH


def check_trainable(config: VAEConfig, size: int) -> None:
    """CourseError where images of size × size cannot be trained on and measured.

    It is raised before any of them is read.
    """
    check_size(torch.empty(1, 3, size, size, device="meta"), config.factor)
    if size < SSIM_WINDOW:
        raise CourseError(
            f"Images of {size} pixels are too small to be measured: take {SSIM_WINDOW} or more."
        )
    values = 3 * config.factor**2
    if config.latent_channels > values:
        raise CourseError(
            f"{config.latent_channels} latent channels compress nothing: a block of "
            f"{config.factor}×{config.factor} pixels has {values} values."
        )


def load_split(
    options: argparse.Namespace, size: int, split: str, quietly: bool = False
) -> ImageSet:
    """One split of the photographs in --folder, or of the course's dogs.

    quietly: the skipped files were named before.  Of several processes only the first names them.
    """
    quietly = quietly or not PartialState(cpu=device().type == "cpu").is_main_process
    with contextlib.redirect_stdout(io.StringIO()) if quietly else contextlib.nullcontext():
        if options.folder is None:
            return load_dogs(size, split)
        return load_image_folder(options.folder, size, split)


def batch_size(options: argparse.Namespace, count: int) -> int:
    """--batch; without it BATCH, or what can be shared of fewer images."""
    if options.batch or count >= BATCH:
        return options.batch or BATCH
    parts = PartialState().num_processes * options.accumulate
    return max(parts, count // parts * parts)
