"""Train a convolutional VAE on photographs, for minutes or days, on a laptop or on many GPUs.

twenty minutes with the dogs of the course:
  python -m helpers.train_dogs --resolution 64 --factor 4 --minutes 20

a day with your own photographs on all GPUs of this machine, and the result as a file:
  accelerate launch -m helpers.train_dogs --folder my_photos --resolution 256 \\
      --batch 32 --minutes 1440 --export my_vae

the figures of that file once more:
  python -m helpers.train_dogs --evaluate --folder my_photos \\
      --start build/checkpoints/my_vae.safetensors

At the end it prints how well images come back that it never saw.  A file's name decides
whether an image is trained on (85 %), watched during training (5 %) or held out (10 %).
A run that was stopped or killed goes on when the same command comes again.
"""

import argparse
import contextlib
import functools
import io
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import PartialState

from helpers import CourseError
from helpers.adversarial import Contest, PatchDiscriminator, contest_loss, load_perceptual_distance
from helpers.budget import device, seed_everything
from helpers.checkpoints import load_weights, read_tensors, save_model
from helpers.conv_vae import ConvVAE, VAEConfig, check_size, image_loss
from helpers.data import ImageSet, crop_and_flip, load_dogs, load_image_folder
from helpers.filmstrip import Filmstrip
from helpers.image_metrics import SSIM_WINDOW, measure
from helpers.results import describe_device
from helpers.train_options import LOSSES, parse, typed
from helpers.training import fit


def build(options: argparse.Namespace) -> tuple[ConvVAE, int]:
    """(the model of the options, or that of --start with its weights; the resolution)."""
    if options.start is None:
        config = VAEConfig.course(options.factor or 8, options.latent_channels or 4)
        return ConvVAE(replace(config, channels=tuple(options.widths or config.channels))), options.resolution or 128
    if not options.start.exists():
        raise CourseError(f"--start: there is no file {options.start}.")
    _, header = read_tensors(options.start)
    if header.get("class") != ConvVAE.__name__:
        raise CourseError(f"--start: {options.start.name} holds no ConvVAE; a file that --export wrote is wanted.")
    try:
        model = ConvVAE(**header["config"])
    except (KeyError, TypeError) as error:
        raise CourseError(f"--start: {options.start.name} is of another version ({error}); export it again.") from error
    load_weights(model, options.start)
    return model, options.resolution or header.get("resolution", 128)


def check(model: ConvVAE, size: int) -> None:
    """CourseError where images of size × size cannot be trained on and measured: before any of them is read."""
    f, numbers = model.settings.factor, model.settings.latent_channels
    check_size(torch.empty(1, 3, size, size, device="meta"), f)
    if size < SSIM_WINDOW:
        raise CourseError(f"Images of {size} pixels are too small to be measured: take {SSIM_WINDOW} or more.")
    if numbers > 3 * f**2:
        raise CourseError(f"{numbers} latent channels compress nothing: a block of {f}×{f} pixels has {3 * f**2} values.")


def load(options: argparse.Namespace, size: int, split: str, listed: bool = False) -> ImageSet:
    """One split of the dogs, or of the images of --folder; listed: its skipped files were named before."""
    listed = listed or not PartialState(cpu=device().type == "cpu").is_main_process
    with contextlib.redirect_stdout(io.StringIO()) if listed else contextlib.nullcontext():
        return load_dogs(size, split) if options.folder is None else load_image_folder(options.folder, size, split)


def train(options: argparse.Namespace, model: ConvVAE, size: int, training: ImageSet, validation: ImageSet) -> str:
    """Run `fit` as the options say: the VAE is trained in place.  Returns what was done, in words."""
    if options.compile:  # in place; sampling between the two stays as it is
        model.encoder.compile()
        model.decoder.compile()
    trainee, loss, objective = contest(options, model, size) if options.adversarial else plain(options, model)
    names = ("minutes", "steps", "epochs", "accumulate", "lr", "ema", "seed", "precision", "run")
    settings = {name: getattr(options, name) for name in names} | {"batch_size": options.batch}
    if options.adversarial:
        settings |= {"betas": (0.5, 0.9), "clip": None}  # as published
    strip = Filmstrip(options.run, validation[:12])
    augment = functools.partial(crop_and_flip, size=size)
    history = fit(
        trainee, loss, training, validation=validation, augment=augment, watch=lambda _, row: strip(model, row), **settings
    )
    minutes, epochs = history.seconds / 60, len(history.rows)
    return f"{minutes:.1f} minutes on {describe_device()}, epochs: {epochs}, {objective}, {training.source}"


def plain(options: argparse.Namespace, model: ConvVAE) -> tuple:
    """(what is trained, its loss, the loss in words)."""
    name, beta = options.loss or "calibrated", 0.1 if options.beta is None else options.beta
    return model, functools.partial(image_loss, nll=LOSSES[name], beta=beta), f"{name} loss, beta {beta:g}"


def contest(options: argparse.Namespace, model: ConvVAE, size: int) -> tuple:
    """The same for --adversarial; where VGG16 cannot be had, without it."""
    beta, distance, objective = 1e-6 if options.beta is None else options.beta, None, "L1 and discriminator"
    try:
        if not options.no_perceptual:
            distance, objective = load_perceptual_distance(), "L1, VGG16 and discriminator"
    except CourseError as error:
        objective += ", VGG16 could not be had"
        PartialState().print(f"{error} This run goes on without it.")
    trainee = Contest(model, PatchDiscriminator(layers=3 if size >= 128 else 2), distance)
    return trainee, functools.partial(contest_loss, beta=beta), f"{objective}, beta {beta:g}"


def report(figures: dict) -> str:
    """The figures as lines of text."""
    return (
        f"held out          {figures['source']}\n"
        f"PSNR              {figures['psnr']:.2f} dB (block PCA of equal rate: {figures['block_pca_psnr']:.2f} dB)\n"
        f"SSIM              {figures['ssim']:.3f}\n"
        f"sharpness         {figures['sharpness']:.2f} (the originals: 1)\n"
        f"KL                {figures['kl']:.0f} nats per image, in {figures['numbers']} latent numbers\n"
        f"noise             {figures['noise']:.2f} (posterior standard deviation / that of the means)\n"
        f"active            {figures['active']} of {figures['numbers']} numbers\n"
        f"scaling factor    {figures['scaling_factor']:.4f}"
    )


def export(options: argparse.Namespace, model: ConvVAE, size: int, figures: dict, done: str) -> Path:
    """Write the weights in fp16 and a model card beside them; the measured scaling factor goes into the configuration."""
    model.settings = replace(model.settings, scaling_factor=figures["scaling_factor"])
    path = save_model(options.export, model, half=True, resolution=size, figures=figures)
    card = f"""# {options.export}

A convolutional VAE for images of {size}×{size} pixels.

- made by: `python -m helpers.train_dogs {typed(options)}`
- training: {done}
- configuration: `{model.config}`

```python
from helpers.checkpoints import load_weights, read_tensors
from helpers.conv_vae import ConvVAE

model = ConvVAE(**read_tensors("{path.name}")[1]["config"]).eval()
load_weights(model, "{path.name}")
```

What it does to images that it never saw:

```
{report(figures)}
```

Latents are not scaled: multiply them by the scaling factor before a diffusion model sees them, and divide before decoding.
The file holds weights and no images; who made the images may limit what it is used for.
"""
    path.with_suffix(".md").write_text(card, encoding="utf-8")
    return path


def run(options: argparse.Namespace) -> dict | None:
    """Train, unless --evaluate; then the first process measures, prints, exports and returns the figures."""
    seed_everything(options.seed)
    model, size = build(options)
    check(model, size)
    training, test = load(options, size, "train"), load(options, size, "test")  # if one is empty, that shows before training
    if len(test) < 2:
        raise CourseError("Only one image is held out, and the figures need two or more: add images to the folder.")
    done = ""
    if not options.evaluate:
        zoomed = training if options.zoom == 1 else load(options, round(options.zoom * size), "train", listed=True)
        done = train(options, model.recompute(options.recompute), size, zoomed, load(options, size, "validation"))
    if not PartialState().is_main_process:
        return None
    if options.export:
        model.half().float()  # the figures are those of the file
    figures = measure(model.to(device()), training, test) | {"source": f"{len(test):,} images; {test.source}"}
    print(report(figures))
    if options.export:
        print(f"written           {export(options, model, size, figures, done)} and its model card")
    return figures


def main(arguments: Sequence[str] | None = None) -> dict | None:
    """What the command does; from Python, main(["--steps", "4"]) returns the figures of the report."""
    options = parse(arguments, __doc__)
    try:
        return run(options)
    except CourseError as error:
        sys.exit(f"train_dogs: {error}")
    except KeyboardInterrupt as stop:
        sys.exit(f"train_dogs: {str(stop) or 'stopped'}; the same command goes on")
    except torch.OutOfMemoryError:
        sys.exit("train_dogs: the GPU's memory is full: try a smaller --batch, --accumulate or --recompute.")


if __name__ == "__main__":
    main()
