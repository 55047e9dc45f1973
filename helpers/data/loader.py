"""Batches of a data set: shuffled ones for training, and all of it in order, in chunks.

A data set is an ImageSet, or any dict of equally long tensors (latents, tokens, sequences …).  It
lives on the device, so a batch is an index and no worker processes are needed; only a folder of
images that memory cannot hold is read from its files.  A batch is a dict with the same names; uint8
tensors are pixels and come as float32 in [0, 1].
"""

from collections.abc import Callable, Iterator, Mapping

import torch

from helpers import CourseError
from helpers.data.image_set import ImageSet, to_pixels
from helpers.rng import generator_for

DataSet = ImageSet | Mapping[str, torch.Tensor]


def tensors_of(data: DataSet) -> dict[str, torch.Tensor]:
    """The tensors of a data set by name; CourseError unless they are equally long."""
    tensors = data.tensors() if isinstance(data, ImageSet) else dict(data)
    lengths = {name: len(tensor) for name, tensor in tensors.items()}
    if len(set(lengths.values())) != 1:
        raise CourseError(f"A data set is tensors of equal length, and these have {lengths}.")
    return tensors


class Batches:
    """Shuffled batches of a data set; each epoch's order depends on (seed, epoch) alone.

    augment(images, generator) -> images works on the whole batch, on the device.  The last, smaller
    batch of an epoch is left out: its rows come first or in the middle in another epoch.
    """

    def __init__(
        self,
        data: DataSet,
        batch_size: int,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        augment: Callable | None = None,
    ):
        tensors = tensors_of(data)
        self.count = len(next(iter(tensors.values())))
        if not 0 < batch_size <= self.count:
            raise CourseError(f"A batch of {batch_size} cannot be drawn from {self.count}.")
        self.tensors = {
            name: tensor.to(device) if isinstance(tensor, torch.Tensor) else tensor
            for name, tensor in tensors.items()
        }
        self.batch_size = batch_size
        self.seed = seed
        self.device = torch.device(device)
        self.augment = augment

    def __len__(self) -> int:
        return self.count // self.batch_size

    def epoch(
        self, number: int, start: int = 0, shard: tuple[int, int] = (0, 1)
    ) -> Iterator[dict[str, torch.Tensor]]:
        """The batches of epoch `number` from batch `start` on.

        shard = (index, count) gives one process its part of each batch.
        """
        order = torch.randperm(self.count, generator=generator_for(self.seed, number))
        order = order.to(self.device)
        rows = self.batch_size // shard[1]
        begins = [step * self.batch_size + shard[0] * rows for step in range(start, len(self))]
        positions = [order[begin : begin + rows] for begin in begins]

        stored = {name: self._rows(name, positions) for name in self.tensors}
        for step in range(start, len(self)):
            batch = {name: to_pixels(next(rows)) for name, rows in stored.items()}
            if self.augment is not None:
                key = ("augment", self.seed, number, step)
                generator = generator_for(*key, device=self.device, shard=shard)
                batch["images"] = self.augment(batch["images"], generator)
            yield batch

    def _rows(self, name: str, positions: list[torch.Tensor]) -> Iterator[torch.Tensor]:
        """The rows of one tensor at each of `positions`, as they are stored."""
        tensor = self.tensors[name]
        if isinstance(tensor, torch.Tensor):
            return (tensor[index] for index in positions)
        return tensor.read_ahead(positions, self.device)


def in_chunks(
    data: DataSet, device: torch.device | str = "cpu"
) -> Iterator[dict[str, torch.Tensor]]:
    """All rows in order, as batches on the device.

    A chunk is about a million pixels and at most 1,000 rows.
    """
    tensors = tensors_of(data)
    pixels = max(tensor.shape[2:].numel() for tensor in tensors.values())
    size = max(1, min(1000, 1_000_000 // pixels))
    for start in range(0, len(next(iter(tensors.values()))), size):
        rows = slice(start, start + size)
        yield {name: to_pixels(tensor[rows].to(device)) for name, tensor in tensors.items()}
