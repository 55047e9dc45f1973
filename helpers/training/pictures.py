"""Pictures of what a VAE does: originals and reconstructions side by side, as PNG files."""

import io
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from helpers import CourseError
from helpers.data.image_file import image_or_reason, quiet
from helpers.data.image_folder import load_image_folder
from helpers.data.image_set import ImageSet
from helpers.env import build_dir, device, write_file
from helpers.metrics.images import psnr, reconstruct


def write_picture(pixels: torch.Tensor, path: Path) -> None:
    """Write one image (3, H, W) in [0, 1] as a PNG file, whole or not at all."""
    values = pixels.mul(255).round().byte().movedim(0, 2)  # (H, W, 3)
    file = io.BytesIO()
    Image.fromarray(values.numpy()).save(file, format="PNG")
    write_file(path, file.getvalue())


def load_pictures(path: Path, size: int) -> ImageSet:
    """A folder of images, or one image file, as an ImageSet of size × size; else CourseError."""
    if path.is_dir():
        return load_image_folder(path, size)
    with quiet():
        image = image_or_reason(path, size)
    if isinstance(image, str):
        raise CourseError(f"{path} cannot be read ({image}).")
    return ImageSet(image[None], None, path.name, (path.name,))


def write_pairs(vae: nn.Module, images: ImageSet, folder: Path) -> float:
    """Write each original with its reconstruction on the right of it; the mean PSNR in dB.

    The files are called like the images, with a slash as a minus sign: folder/more-a.jpg.png.
    """
    scores = []
    for start in range(0, len(images), 16):
        part = images[start : start + 16]
        originals = part.pixels()
        decoded = reconstruct(vae, part)
        scores.append(psnr(decoded, originals))
        for name, pair in zip(part.names, torch.cat([originals, decoded], dim=3)):
            write_picture(pair, folder / f"{name.replace('/', '-')}.png")
    return torch.cat(scores).mean().item()


def reconstruct_files(vae: nn.Module, paths: list[Path], size: int, name: str) -> None:
    """`write_pairs` of files and folders, to build/reconstructions/`name`/<their folder's name>."""
    vae.to(device())
    for path in paths:
        images = load_pictures(path, size)
        folder = path if path.is_dir() else path.parent
        where = build_dir() / "reconstructions" / name / folder.resolve().name
        quality = write_pairs(vae, images, where)
        print(f"{path.name:18}{len(images):,} × {quality:.2f} dB, in {where}")
