"""Images in memory: MNIST, scikit-learn's digits, any folder of images; batches that slice one tensor.

Small data sets live in one uint8 tensor on the device: a batch is an index, so no worker processes are needed.
"""

import gzip
import hashlib
import http.client
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

from helpers import CourseError
from helpers.budget import data_dir, draw, generator_for, profile

CONNECT_TIMEOUT = 15.0  # seconds
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True)
class ImageSet:
    """Images as uint8 (N, C, H, W), labels as int64 (N,) or None, and where they come from.

    names: file names, where there are files; skipped: (file name, reason) of those that could not be read.
    """

    images: torch.Tensor
    labels: torch.Tensor | None
    source: str
    names: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index) -> "ImageSet":
        """The images at a slice, or at a tensor of positions."""
        names = tuple(self.names[i] for i in torch.arange(len(self))[index].tolist()) if self.names else ()
        labels = None if self.labels is None else self.labels[index]
        return replace(self, images=self.images[index], labels=labels, names=names)

    def pixels(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """All images as float32 in [0, 1], (N, C, H, W)."""
        return self.images.to(device).float() / 255

    def split(self, held_out: int, seed: int = 0) -> tuple["ImageSet", "ImageSet"]:
        """(the rest, `held_out` images): two sets drawn at random, the same for the same seed."""
        if not 0 < held_out < len(self):
            raise CourseError(f"Cannot hold out {held_out} of {len(self)} images.")
        order = torch.randperm(len(self), generator=generator_for("split", seed))
        return self[order[held_out:].sort().values], self[order[:held_out].sort().values]


class Batch(NamedTuple):
    """images: float32 (B, C, H, W) in [0, 1]; labels: int64 (B,) or None."""

    images: torch.Tensor
    labels: torch.Tensor | None


class Batches:
    """Shuffled batches of an ImageSet that lives on the device; each epoch's order depends on (seed, epoch) alone.

    augment(images, generator) -> images works on the whole batch, on the device.  The last, smaller batch of an
    epoch is left out: its images come first or in the middle in another epoch.
    """

    def __init__(self, data: ImageSet, batch_size: int, *, seed: int = 0, device="cpu", augment: Callable | None = None):
        if not 0 < batch_size <= len(data):
            raise CourseError(f"A batch of {batch_size} images cannot be drawn from {len(data)}.")
        self.images = data.images.to(device)
        self.labels = None if data.labels is None else data.labels.to(device)
        self.batch_size, self.seed, self.device, self.augment = batch_size, seed, device, augment

    def __len__(self) -> int:
        return len(self.images) // self.batch_size

    def epoch(self, number: int, start: int = 0, shard: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """The batches of epoch `number` from batch `start` on; shard = (index, count) gives one process its part."""
        order = torch.randperm(len(self.images), generator=generator_for(self.seed, number)).to(self.device)
        rows = self.batch_size // shard[1]
        for step in range(start, len(self)):
            begin = step * self.batch_size + shard[0] * rows
            index = order[begin : begin + rows]
            images = self.images[index].float() / 255
            if self.augment is not None:
                generator = generator_for("augment", self.seed, number, step, device=self.device, shard=shard)
                images = self.augment(images, generator)
            yield Batch(images, None if self.labels is None else self.labels[index])


def random_flip(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirror each image left-right with probability 1/2."""
    mirrored = draw(torch.rand, (len(images), 1, 1, 1), generator, device=images.device) < 0.5
    return torch.where(mirrored, images.flip(3), images)


def random_shift(images: torch.Tensor, generator: torch.Generator, pixels: int = 2) -> torch.Tensor:
    """Move each image by up to `pixels` in both directions; what comes in is black."""
    b, _, h, w = images.shape
    shift = draw(torch.rand, (b, 2), generator, device=images.device).mul(2 * pixels + 1).long()  # 0 … 2·pixels
    rows = shift[:, :1] + torch.arange(h, device=images.device)  # (B, H)
    columns = shift[:, 1:] + torch.arange(w, device=images.device)  # (B, W)
    padded = F.pad(images, (pixels,) * 4).movedim(1, 3)  # (B, H+2p, W+2p, C)
    picked = padded[torch.arange(b, device=images.device)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return picked.movedim(3, 1)  # (B, C, H, W)


def load_digits(split: str = "train") -> ImageSet:
    """scikit-learn's 1,797 handwritten 8×8 digits brought to 28×28: every fifth is a test image."""
    from sklearn.datasets import load_digits as sklearn_digits

    _check_split(split)
    bunch = sklearn_digits()
    small = torch.from_numpy(bunch.images).float()[:, None] / 16  # (N, 1, 8, 8) in [0, 1]
    large = F.interpolate(small, size=(20, 20), mode="bicubic", antialias=True).clamp(0, 1)
    images = F.pad(large * 255, (4, 4, 4, 4)).round().to(torch.uint8)  # MNIST's own margin: 20 of 28 pixels
    test = torch.arange(len(images)) % 5 == 0
    keep = test if split == "test" else ~test
    return ImageSet(images[keep], torch.from_numpy(bunch.target).long()[keep], "scikit-learn's digits, embedded")


def load_mnist(split: str = "train", source: str = "auto") -> ImageSet:
    """MNIST, (N, 1, 28, 28): 60,000 images for split="train", 10,000 for "test".

    Looks in $COURSE_DATA/MNIST/raw, then downloads (11 MB, checksums).  source="embedded", and the quick profile,
    give `load_digits` instead.  LeCun, Cortes & Burges, CC BY-SA 3.0.
    """
    _check_split(split)
    if source not in ("auto", "embedded"):
        raise CourseError(f"load_mnist: source is {source!r}; it can be 'auto' or 'embedded'.")
    if source == "embedded" or profile() == "quick":
        return load_digits(split)
    from torchvision.datasets import MNIST

    where = "found" if _mnist_ready(data_dir() / "MNIST" / "raw") else "downloaded"
    if where == "downloaded":
        _download_mnist(data_dir() / "MNIST" / "raw")
    try:
        mnist = MNIST(data_dir(), train=split == "train")
    except Exception as error:  # a cut-off file fails in numpy, a foreign one in torchvision
        raise CourseError(
            f"The MNIST files in COURSE_DATA/MNIST/raw cannot be read ({error}): delete that folder, it is downloaded "
            "again; or load_mnist(source='embedded')."
        ) from error
    return ImageSet(mnist.data[:, None], mnist.targets.long(), f"MNIST, {where} in COURSE_DATA")


def _check_split(split: str) -> None:
    if split not in ("train", "test"):
        raise CourseError(f"split is {split!r}; it can be 'train' or 'test'.")


def _mnist_files() -> list[tuple[str, str]]:
    from torchvision.datasets import MNIST

    return MNIST.resources  # (name.gz, md5) of the four files


def _mnist_ready(folder: Path) -> bool:
    return all((folder / name.removesuffix(".gz")).exists() for name, _ in _mnist_files())


def _download_mnist(folder: Path) -> None:
    """Fetch and unpack what is missing; a .gz that was put there by hand is taken."""
    for name, md5 in _mnist_files():
        target, packed = folder / name.removesuffix(".gz"), folder / name
        if target.exists():
            continue
        if not packed.exists() or hashlib.md5(packed.read_bytes()).hexdigest() != md5:
            _download_from_mirrors(packed, md5)
        partial = target.with_name(f"{target.name}.part")
        try:
            partial.write_bytes(gzip.decompress(packed.read_bytes()))
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        packed.unlink()


def _download_from_mirrors(packed: Path, md5: str) -> None:
    from torchvision.datasets import MNIST

    failures = []
    for mirror in MNIST.mirrors:
        try:
            download(mirror + packed.name, packed, md5)
            return
        except CourseError as error:
            failures.append(str(error))
    raise CourseError(
        " ".join(failures) + " Put the four MNIST files into COURSE_DATA/MNIST/raw by hand, "
        "or call load_mnist(source='embedded') for scikit-learn's small digits."
    )


def download(url: str, path: Path, md5: str) -> Path:
    """Fetch `url` to `path` with a checksum; CourseError with what to do where it fails, and no half file."""
    partial, digest = path.with_name(path.name + ".part"), hashlib.md5()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=CONNECT_TIMEOUT) as answer, open(partial, "wb") as file:
            while block := answer.read(1 << 20):
                digest.update(block)
                file.write(block)
        if digest.hexdigest() != md5:
            raise CourseError(f"{url} has checksum {digest.hexdigest()} and not {md5}: try again later.")
        partial.replace(path)
    except (OSError, http.client.HTTPException) as error:
        raise CourseError(f"{url} could not be downloaded ({error}): check the connection and try again.") from error
    finally:
        if partial.exists():
            partial.unlink()
    return path


def load_image_folder(folder: str | Path, resolution: int = 128) -> ImageSet:
    """All images below `folder`, as RGB (N, 3, resolution, resolution), sorted by name.

    The short side is resized and the middle cropped, never squashed.  Grey, palette, alpha (on white), CMYK, 16-bit
    and animated (first frame) images are converted; what cannot be read is skipped and listed once.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CourseError(f"{folder} is not a folder; one with images was expected ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    images, names, skipped = [], [], []
    for file in files:
        name = str(file.relative_to(folder))
        try:
            images.append(_read_image(file, resolution))
            names.append(name)
        except Exception as error:  # Pillow's readers fail on broken files in many ways, TypeError among them
            skipped.append((name, " ".join(str(error).replace(str(file), "the file").split())))
    if not images:
        found = f"none of its {len(files)} image files can be read" if files else "it holds no image files"
        reason = f" (the first: {skipped[0][0]}: {skipped[0][1]})" if skipped else ""
        raise CourseError(f"{folder}: {found}{reason}; expected {', '.join(sorted(IMAGE_SUFFIXES))}.")
    if skipped:
        print(f"{len(skipped)} of {len(files)} files skipped: " + "; ".join(f"{n} ({why})" for n, why in skipped))
    return ImageSet(torch.stack(images), None, f"folder {folder.resolve().name}", tuple(names), tuple(skipped))


def _read_image(file: Path, resolution: int) -> torch.Tensor:
    """One file as uint8 (3, resolution, resolution)."""
    import numpy as np

    with warnings.catch_warnings(), Image.open(file) as image:
        warnings.simplefilter("ignore")  # broken EXIF blocks and the like; the picture is what counts
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I") or image.mode == "F":  # 16 bits and more: Pillow would cut at 255
            values = np.asarray(image, dtype=np.float32)
            top = 65535.0 if image.mode.startswith("I;16") or values.max() > 255 else 255.0
            image = Image.fromarray((values.clip(0, top) * (255 / top)).round().astype(np.uint8))
        if "A" in image.getbands() or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = ImageOps.fit(image.convert("RGB"), (resolution, resolution), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(image)).movedim(2, 0)  # (H, W, 3) → (3, H, W)
