"""A set of images in memory, with its labels and where it comes from."""

from dataclasses import dataclass, replace

import torch

from helpers import CourseError
from helpers.rng import generator_for


@dataclass(frozen=True)
class ImageSet:
    """Images as uint8 (N, C, H, W), labels as int64 (N,) or None, and where they come from.

    images: a tensor, or the ImageFiles of a folder that memory cannot hold.
    names: file names, where there are files.
    skipped: (file name, reason) of those that could not be read.
    duplicates: how many more files there were with the bytes of one in the set.
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
        names = ()
        if self.names:
            names = tuple(self.names[i] for i in torch.arange(len(self))[index].tolist())
        labels = None if self.labels is None else self.labels[index]
        return replace(self, images=self.images[index], labels=labels, names=names)

    def tensors(self) -> dict[str, torch.Tensor]:
        """{"images", and "labels" where there are some}: what `Batches` and `fit` work on."""
        if self.labels is None:
            return {"images": self.images}
        return {"images": self.images, "labels": self.labels}

    def pixels(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """All images as float32 in [0, 1], (N, C, H, W)."""
        return to_pixels(self.images.to(device))

    def split(self, held_out: int, seed: int = 0) -> tuple["ImageSet", "ImageSet"]:
        """(the rest, `held_out` images): two sets drawn at random, the same for the same seed."""
        if not 0 < held_out < len(self):
            raise CourseError(f"Cannot hold out {held_out} of {len(self)} images.")
        order = torch.randperm(len(self), generator=generator_for("split", seed))
        return self[order[held_out:].sort().values], self[order[:held_out].sort().values]


def to_pixels(stored: torch.Tensor) -> torch.Tensor:
    """Stored bytes, uint8 from 0 to 255, as float32 in [0, 1]; other tensors as they are."""
    return stored.float() / 255 if stored.dtype == torch.uint8 else stored
