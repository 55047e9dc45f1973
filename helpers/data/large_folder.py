"""A folder of images that memory cannot hold: they stay in their files until a batch needs them."""

import signal
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from helpers import CourseError
from helpers.data.image_file import CORES, ImageFile, image_or_reason, in_threads, quiet

WORKERS = min(4, CORES)  # processes that decode the next batches while the model trains; 0: none


class ImageFiles(Dataset):
    """N images in files, in place of the uint8 tensor (N, 3, R, R) of an ImageSet.

    A slice, a mask or a tensor of positions chooses files and reads nothing; a number reads one
    image, (3, R, R).  CourseError names a file that can no longer be read.
    """

    def __init__(self, files: tuple[ImageFile, ...], resolution: int):
        self.files = files
        self.resolution = resolution

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shape(self) -> torch.Size:
        """(N, 3, R, R)."""
        return torch.Size((len(self), 3, self.resolution, self.resolution))

    def __getitem__(self, index) -> "torch.Tensor | ImageFiles":
        chosen = torch.arange(len(self))[index]
        if chosen.ndim:
            return ImageFiles(tuple(self.files[i] for i in chosen.tolist()), self.resolution)
        return self[chosen[None]].to("cpu")[0]

    def to(self, device: torch.device | str) -> torch.Tensor:
        """All images, read now: uint8 (N, 3, R, R) on `device`."""
        with quiet():
            return torch.stack(list(in_threads(self._read, self.files))).to(device)

    def read_ahead(
        self, positions: list[torch.Tensor], device: torch.device | str
    ) -> Iterator[torch.Tensor]:
        """The images (B, 3, R, R) at each of `positions`, which worker processes read ahead."""
        loader = DataLoader(
            self.files,
            batch_sampler=[batch.tolist() for batch in positions],
            collate_fn=self._stack,
            num_workers=WORKERS,
            worker_init_fn=_ignore_ctrl_c,
            generator=torch.Generator(),  # else it draws from the global one, and dropout changes
        )
        for images in _start(loader):
            if isinstance(images, CourseError):
                raise images
            yield torch.from_numpy(images).to(device)

    def _stack(self, files: list[ImageFile]) -> np.ndarray | CourseError:
        """What a worker does.

        It hands an error back, since DataLoader would wrap it in a stack trace; and an array, since
        a tensor would take shared memory, of which Docker gives 64 MB.
        """
        try:
            with quiet():
                return np.stack([self._read(file) for file in files])
        except CourseError as error:
            return error

    def _read(self, file: ImageFile) -> torch.Tensor:
        image = image_or_reason(file.path, self.resolution)
        if isinstance(image, str):
            raise CourseError(
                f"{file.name} can no longer be read ({image}): put it back, or load its folder "
                "again."
            )
        return image


def _start(loader: DataLoader) -> Iterator:
    """`iter(loader)` with workers that hear no ctrl-C from their first moment on.

    It is for the process that trains, which hears it at the end.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        return iter(loader)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # processes inherit it
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ignore_ctrl_c(worker: int) -> None:
    """The same where the mask does not reach: on Windows, and where a server starts processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
