"""Sets of images: MNIST, scikit-learn's digits, dogs, any folder of images; and shuffled batches of them.

A set lives in one uint8 tensor on the device: a batch is an index, so no worker processes are needed.  Only a folder
that memory cannot hold stays in its files (`helpers.image_stream`), with the same batches.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F

from helpers import CourseError
from helpers.budget import data_dir, draw, generator_for, profile
from helpers.downloads import fetch_imagewoof, fetch_mnist
from helpers.image_files import check_resolution, read_folder

DRAWN_DOGS = {"train": 600, "validation": 100, "test": 100}  # as many as the quick profile has time for


@dataclass(frozen=True)
class ImageSet:
    """Images as uint8 (N, C, H, W), labels as int64 (N,) or None, and where they come from.

    images is a tensor, or the ImageFiles of a folder that memory cannot hold.  names: file names, where there are
    files; skipped: (file name, reason) of those that could not be read; duplicates: how many more files there were with
    the bytes of one in the set.
    """

    images: torch.Tensor
    labels: torch.Tensor | None
    source: str
    names: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    duplicates: int = 0

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
    """Shuffled batches of an ImageSet on the device; each epoch's order depends on (seed, epoch) alone.

    augment(images, generator) -> images works on the whole batch, on the device.  The last, smaller batch of an
    epoch is left out: its images come first or in the middle in another epoch.
    """

    def __init__(self, data: ImageSet, batch_size: int, *, seed: int = 0, device="cpu", augment: Callable | None = None):
        if not 0 < batch_size <= len(data):
            raise CourseError(f"A batch of {batch_size} images cannot be drawn from {len(data)}.")
        in_memory, pin = isinstance(data.images, torch.Tensor), torch.device(device).type == "cuda"
        self.images = data.images.to(device) if in_memory else data.images.stream(batch_size, pin)
        self.labels = None if data.labels is None else data.labels.to(device)
        self.count, self.batch_size, self.seed, self.device, self.augment = len(data), batch_size, seed, device, augment

    def __len__(self) -> int:
        return self.count // self.batch_size

    def epoch(self, number: int, start: int = 0, shard: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """The batches of epoch `number` from batch `start` on; shard = (index, count) gives one process its part."""
        order = torch.randperm(self.count, generator=generator_for(self.seed, number)).to(self.device)
        rows = self.batch_size // shard[1]
        begins = [step * self.batch_size + shard[0] * rows for step in range(start, len(self))]
        batches = [order[begin : begin + rows] for begin in begins]
        for stored, index, step in zip(self._stored(batches), batches, range(start, len(self))):  # to the end of the first
            images = stored.float() / 255
            if self.augment is not None:
                generator = generator_for("augment", self.seed, number, step, device=self.device, shard=shard)
                images = self.augment(images, generator)
            yield Batch(images, None if self.labels is None else self.labels[index])

    def _stored(self, batches: list[torch.Tensor]) -> Iterator[torch.Tensor]:
        """The uint8 images (B, C, H, W) at each of `batches`, tensors of positions."""
        if isinstance(self.images, torch.Tensor):
            return (self.images[index] for index in batches)
        return (images.to(self.device, non_blocking=True) for images in self.images.stacks(batches))


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


def random_crop(images: torch.Tensor, generator: torch.Generator, size: int) -> torch.Tensor:
    """A square of `size` pixels out of each image, at a place of its own: (B, C, H, W) → (B, C, size, size)."""
    b, c, h, w = images.shape
    if not 0 < size <= min(h, w):
        raise CourseError(f"A square of {size} pixels cannot be cut out of images of {h}×{w}: load larger ones.")
    places = draw(torch.rand, (b, 2), generator, device=images.device)
    within = torch.arange(size, device=images.device)
    rows = places[:, :1].mul(h - size + 1).long() + within  # (B, size)
    columns = places[:, 1:].mul(w - size + 1).long() + within  # (B, size)
    one, channel = (torch.arange(n, device=images.device) for n in (b, c))
    return images[one[:, None, None, None], channel[:, None, None], rows[:, None, :, None], columns[:, None, None, :]]


def crop_and_flip(images: torch.Tensor, generator: torch.Generator, size: int) -> torch.Tensor:
    """`random_crop` to `size` pixels, then `random_flip`."""
    return random_flip(random_crop(images, generator, size), generator)


def load_digits(split: str = "train") -> ImageSet:
    """scikit-learn's 1,797 handwritten 8×8 digits brought to 28×28: every fifth is a test image."""
    from sklearn.datasets import load_digits as sklearn_digits

    _check("split", split, "train", "test")
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
    _check("split", split, "train", "test")
    _check("source", source, "auto", "embedded")
    if source == "embedded" or profile() == "quick":
        return load_digits(split)
    from torchvision.datasets import MNIST

    where = fetch_mnist(data_dir() / "MNIST" / "raw")
    try:
        mnist = MNIST(data_dir(), train=split == "train")
    except Exception as error:  # a cut-off file fails in numpy, a foreign one in torchvision
        raise CourseError(
            f"The MNIST files in COURSE_DATA/MNIST/raw cannot be read ({error}): delete that folder, it is downloaded "
            "again; or load_mnist(source='embedded')."
        ) from error
    return ImageSet(mnist.data[:, None], mnist.targets.long(), f"MNIST, {where} in COURSE_DATA")


def load_dogs(resolution: int = 128, split: str = "train", source: str = "auto") -> ImageSet:
    """Photos of dogs as RGB, (N, 3, resolution, resolution); split: "train" (85 %), "validation" (5 %) or "test" (10 %).

    Looks in $COURSE_DATA/dogs, where any images may be, then for Imagewoof, which it downloads (10 breeds out of
    ImageNet, short side 160 pixels: 93 MB; resolution > 160 takes those of 320).  source="embedded", and the quick
    profile, give drawn dogs instead.  A file's name decides on its split; images are read as by `load_image_folder`.
    """
    _check("split", split, *DRAWN_DOGS)
    _check("source", source, "auto", "embedded")
    check_resolution(resolution)
    if source == "embedded" or profile() == "quick":
        from helpers.drawn_dogs import load_drawn_dogs

        return load_drawn_dogs(DRAWN_DOGS[split], resolution, split)
    folder, what = data_dir() / "dogs", "folder dogs (COURSE_DATA)"
    if not folder.exists():
        size = 320 if resolution > 160 else 160
        folder = data_dir() / f"imagewoof2-{size}"
        what = f"Imagewoof-{size}, {fetch_imagewoof(folder)} in COURSE_DATA"
    dogs = _read_set(folder, resolution, split)
    return replace(dogs, source=f"{len(dogs):,} photos of {what}")


def load_image_folder(folder: str | Path, resolution: int = 128, split: str | None = None) -> ImageSet:
    """All images below `folder`, as RGB (N, 3, resolution, resolution), sorted by name, each content once.

    split: "train", "validation" or "test" for a part of them, by the rule of `load_dogs`.
    The short side is resized (bilinear, antialiased, as by torchvision) and the middle cropped, never squashed.  Grey,
    palette, alpha (on white), CMYK, 16-bit and animated (first frame) images are converted; what cannot be read is
    skipped and listed once.
    """
    check_resolution(resolution)
    _check("split", split, None, *DRAWN_DOGS)
    return _read_set(Path(folder), resolution, split)


def _read_set(folder: Path, resolution: int, split: str | None = None) -> ImageSet:
    found = read_folder(folder, resolution, split)
    images = found.images
    if images is None:
        from helpers.image_stream import ImageFiles

        images = ImageFiles(folder, found.files, resolution)
    names = tuple(file.name for file in found.files)
    return ImageSet(images, None, f"folder {folder.resolve().name}", names, found.skipped, found.duplicates)


def _check(name: str, value: str | None, *known: str | None) -> None:
    if value not in known:
        raise CourseError(f"{name} is {value!r}; it can be {', '.join(map(repr, known))}.")
