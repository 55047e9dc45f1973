"""Train a convolutional VAE on photographs, for minutes or days, on a laptop or on many GPUs.

twenty minutes with the course's photographs of dogs:
  python -m helpers.train_vae --resolution 64 --factor 4 --minutes 20

a day with your own photographs on all GPUs of this machine, and the result as a file:
  accelerate launch -m helpers.train_vae --folder my_photos --resolution 256 \\
      --batch 32 --minutes 1440 --export my_vae

the figures of that file once more, and what it makes of a few photographs:
  python -m helpers.train_vae --evaluate --folder my_photos \\
      --init-from build/checkpoints/my_vae.safetensors
  python -m helpers.train_vae --reconstruct holiday.jpg my_photos \\
      --init-from build/checkpoints/my_vae.safetensors

the same layers as Stable Diffusion's, so that diffusers loads the folder without the course:
  python -m helpers.train_vae --plain --folder my_photos --minutes 600 --export my_vae

a new decoder for the latents of Stable Diffusion, and a folder that diffusers loads:
  python -m helpers.train_vae --folder my_photos --resolution 256 --freeze encoder \\
      --init-from stabilityai/sd-vae-ft-mse --lr 1e-4 --export my_decoder

At the end it prints how well images come back that it never saw.  A file's name decides
whether an image is trained on (85 %), watched during training (5 %) or held out (10 %);
four photographs are enough.

A run that was stopped or killed goes on when the same command comes again.  Stopped for
good, its weights are used with --init-from and written with --evaluate --export.  After
it has finished, --continue trains it for longer.  Where photographs were added or taken
away the same command starts afresh, beside the old run, since all figures would mix two
sets of held-out images; --init-from begins with the old run's weights.
"""

import argparse
import functools
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import PartialState

from helpers import CourseError
from helpers.data.augment import crop_and_flip
from helpers.data.image_set import ImageSet
from helpers.env import (
    build_dir,
    device,
    profile,
    published_dir,
    runs_dir,
    survive_terminal,
    write_by,
)
from helpers.metrics.images import BlockPCA, measure_reconstructions
from helpers.metrics.latents import LatentStatistics, latent_statistics
from helpers.models.conv_vae import ConvVAE, is_autoencoder_kl
from helpers.results import describe_device
from helpers.rng import seed_everything
from helpers.training.filmstrip import Filmstrip
from helpers.training.loop import fit
from helpers.training.model_card import export_vae, report
from helpers.training.objectives import freeze_encoder, vae_gan_objective, vae_objective
from helpers.training.options import as_typed, network_of, parse
from helpers.training.photographs import batch_size, check_trainable, load_split
from helpers.training.pictures import reconstruct_files
from helpers.training.progress import EpochLines, TensorBoard
from helpers.training.run_state import finished_weights, newest_weights
from helpers.training.schedules import Length
from helpers.training.starting_point import load_vae

# --- the parts of a run ---


def build_model(options: argparse.Namespace) -> tuple[ConvVAE, int, dict]:
    """(the model of the options, or that of --init-from and its weights; resolution; header)."""
    begin = options.init_from
    if options.continue_:
        begin = finished_weights(options.run)
        if begin is None:
            raise CourseError(
                f"--continue: there is no finished run {options.run}; the same command without "
                "--continue begins it, or goes on where it was stopped."
            )
        PartialState(cpu=device().type == "cpu").print(f"{'continuing':18}{begin}")
    if begin is None:
        return ConvVAE(network_of(options)), options.resolution or 128, {}

    is_file = isinstance(begin, Path) and not begin.is_dir()
    vae, header = load_vae(begin) if is_file else load_from_diffusers(begin)
    return vae, options.resolution or header.get("resolution", 128), header


def load_from_diffusers(source: Path | str) -> tuple[ConvVAE, dict]:
    """(the AutoencoderKL of a folder or of Hugging Face as a ConvVAE, its "resolution" and so on).

    source: the VAE alone, or a pipeline that has one in vae/.  A pickle is never loaded.
    """
    from diffusers import AutoencoderKL

    from helpers.diffusers_bridge import from_diffusers

    try:
        part = {"subfolder": "vae"} if _is_pipeline(source) else {}
        kind = AutoencoderKL.load_config(source, **part)["_class_name"]
        if kind != AutoencoderKL.__name__:
            raise CourseError(f"--init-from: {source} holds a {kind} and no AutoencoderKL.")
        options = {"use_safetensors": True, "output_loading_info": True}
        autoencoder, told = AutoencoderKL.from_pretrained(source, **part, **options)
    except CourseError:
        raise
    except Exception as error:  # the libraries for files and for the network have many kinds
        reason = " ".join(str(error).split())
        raise CourseError(
            f"--init-from: no AutoencoderKL of diffusers could be had from {source} ({reason})."
        ) from error
    if told["missing_keys"]:
        raise CourseError(f"--init-from: {source} lacks {told['missing_keys'][0]}.")
    header = {"resolution": autoencoder.config.sample_size}
    # until it is trained, its latents and their scaling factor are those that others know
    return from_diffusers(autoencoder).float(), header | {"freeze": "encoder"}


def _is_pipeline(source: Path | str) -> bool:
    """Whether the VAE lies in vae/; of a name on Hugging Face that is asked there."""
    if isinstance(source, Path):
        return not (source / "config.json").exists() and (source / "vae").is_dir()
    from huggingface_hub import file_exists

    return file_exists(source, "model_index.json")


def train(
    options: argparse.Namespace,
    vae: ConvVAE,
    size: int,
    training: ImageSet,
    validation: ImageSet,
) -> str:
    """Run `fit` as the options say: `vae` is trained in place.  Returns what was done, in words."""
    vae.set_gradient_checkpointing(options.gradient_checkpointing)
    if options.freeze:
        freeze_encoder(vae)
    if options.compile:  # in place; sampling between the two stays as it is
        vae.encoder.compile()
        vae.decoder.compile()

    names = ("minutes", "steps", "epochs", "accumulate", "lr", "seed", "precision", "run")
    settings = {name: getattr(options, name) for name in names}
    settings |= {"batch_size": batch_size(options, len(training)), "ema": options.ema or None}
    if options.adversarial:
        objective = vae_gan_objective(options, vae, size)
        settings |= {"betas": (0.5, 0.9), "clip": None}  # as published
    else:
        objective = vae_objective(options, vae)

    strip = Filmstrip(options.run, validation[:12])
    PartialState().print(f"{'pictures':18}{strip.folder}")
    length = Length(options.epochs, options.steps, options.minutes)
    watchers = [EpochLines(length, len(training) // settings["batch_size"])]
    if options.log_with:
        watchers.append(TensorBoard(runs_dir() / options.run / "tensorboard"))

    def after_epoch(_, row: dict) -> None:
        strip(vae, row)
        for watch in watchers:
            watch(row)

    history = fit(
        objective.model,
        objective.loss,
        training,
        validation=validation,
        augment=functools.partial(crop_and_flip, size=size),
        callback=after_epoch,
        note={
            "class": type(objective.model).__name__,
            "config": asdict(vae.config),
            "resolution": size,
            "command": as_typed(options),
            "freeze": options.freeze,
        },
        **settings,
    )
    time = f"{history.seconds / 60:.1f} minutes on {describe_device()}"
    return f"{time}, epochs: {len(history.rows)}, {objective.words}, {training.source}"


def export(
    name: str, vae: ConvVAE, size: int, figures: dict, latents: LatentStatistics, told: dict
) -> None:
    """`export_vae`, and a folder for pipelines of diffusers; prints where.

    told: "command", "done" and "frozen" for the model card.
    """
    place = published_dir("checkpoints")
    library = place == build_dir() / "checkpoints"  # the course itself ships the file alone
    path = export_vae(name, vae, size, figures, latents, library=library, **told)
    print(f"{'written':18}{path} and its model card")
    if library:
        from helpers.diffusers_bridge import DiffusersVAE, to_diffusers

        alone = is_autoencoder_kl(vae.config)
        autoencoder = to_diffusers(vae, size) if alone else DiffusersVAE.of(vae, size)
        if not told["frozen"]:
            autoencoder.half()
        write_by(autoencoder.save_pretrained, place / name)
        print(f"{'for diffusers':18}{place / name}")


def _told_by(header: dict, options: argparse.Namespace) -> dict:
    """What `export` tells of the weights that --evaluate measures."""
    return {
        "command": header.get("command", as_typed(options)),
        "done": f"up to epoch {header['epoch']} of a run" if "epoch" in header else "earlier",
        "frozen": header.get("freeze") is not None,
    }


# --- the command ---


def run(options: argparse.Namespace) -> dict | None:
    """Train, unless --evaluate; then measure, print, export and return the figures.

    Of several processes the first one measures; the others return None.
    """
    seed_everything(options.seed)
    vae, size, header = build_model(options)
    check_trainable(vae.config, size)
    if options.reconstruct:
        if PartialState(cpu=device().type == "cpu").is_main_process:
            name = Path(options.init_from).name.removesuffix(".safetensors")
            reconstruct_files(vae, options.reconstruct, size, name)
        return None

    training = load_split(options, size, "train")
    test = load_split(options, size, "test")  # now: if it is empty, that shows before training
    done = ""
    if not options.evaluate:
        if vae.linear and not header:
            pca = BlockPCA(training, vae.config.factor, vae.config.latent_channels)
            vae.linear.start_as(pca)
        larger = training
        if options.crop_from > 1:
            larger = load_split(options, round(options.crop_from * size), "train", quietly=True)
        done = train(options, vae, size, larger, load_split(options, size, "validation"))
    if not PartialState().is_main_process:
        return None

    told = {"command": as_typed(options), "done": done, "frozen": options.freeze is not None}
    if options.evaluate:
        told = _told_by(header, options)
    if options.export and not told["frozen"]:
        vae.half().float()  # the figures are those of the file
    figures = measure_reconstructions(vae.to(device()), training, test)
    if told["frozen"]:
        figures["scaling_factor"] = vae.config.scaling_factor
    figures["source"] = f"{len(test):,} images; {test.source}"
    print(report(figures))
    if options.export:
        export(options.export, vae, size, figures, latent_statistics(vae, test), told)
    return figures


def main(arguments: Sequence[str] | None = None) -> dict | None:
    """The command; from Python, main(["--steps", "4"]) returns the figures of the report."""
    survive_terminal()
    options = parse(arguments, __doc__)
    try:
        profile()  # of a wrong one it is told now, not after the training
        return run(options)
    except CourseError as error:
        sys.exit(f"train_vae: {error}")
    except KeyboardInterrupt as stop:
        weights = newest_weights(options.run) if str(stop) else None
        usable = f" (--init-from {weights})" if weights else ""
        sys.exit(f"train_vae: {str(stop) or 'stopped'}{usable}; the same command goes on")
    except torch.OutOfMemoryError:
        sys.exit(
            "train_vae: the GPU's memory is full: try a smaller --batch, --accumulate or "
            "--gradient-checkpointing."
        )


if __name__ == "__main__":
    main()
