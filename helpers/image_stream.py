"""Images that stay in their files, for sets that memory cannot hold.

Importing this file imports torchvision, which takes seconds: `helpers.data` does so where such a set turns up.
"""

import gc
import multiprocessing
import shutil
import signal
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import VisionDataset

from helpers import CourseError
from helpers.image_files import CORES, ImageFile, image_or_reason, in_threads, quiet

WORKERS = min(4, CORES)  # processes that decode the next batches while the model trains; 0: none


class ImageFiles(VisionDataset):
    """N images that stay in their files, in place of the uint8 tensor (N, 3, R, R) of an ImageSet.

    `[i]` reads one, (3, R, R); a slice, a mask or a tensor of positions chooses files and reads nothing; `to(device)`
    reads all and returns the tensor.  CourseError names a file that can no longer be read.
    """

    def __init__(self, folder: Path, files: tuple[ImageFile, ...], resolution: int):
        super().__init__(folder)
        self.files, self.resolution = files, resolution

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shape(self) -> torch.Size:
        """(N, 3, R, R)."""
        return torch.Size((len(self), 3, self.resolution, self.resolution))

    def __getitem__(self, index) -> "torch.Tensor | ImageFiles":
        chosen = torch.arange(len(self))[index]
        if chosen.ndim:
            return ImageFiles(self.root, tuple(self.files[i] for i in chosen.tolist()), self.resolution)
        with quiet():
            return self._read(self.files[chosen])

    def to(self, device: torch.device | str) -> torch.Tensor:
        """All images as one uint8 tensor (N, 3, R, R) on `device`."""
        images = torch.empty(self.shape, dtype=torch.uint8)
        with quiet():
            for position, image in enumerate(in_threads(self._read, self.files)):
                images[position] = image
        return images.to(device)

    def _read(self, file: ImageFile) -> torch.Tensor:
        image = image_or_reason(file.path, self.resolution)
        if isinstance(image, str):
            raise CourseError(f"{file.name} can no longer be read ({image}): put it back, or load its folder again.")
        return image

    def stream(self, batch_size: int, pin: bool) -> "ImageStream":
        """Batches of these images; pin: in memory from which a GPU copies faster."""
        return ImageStream(self, batch_size, pin)


class ImageStream:
    """Batches of ImageFiles, decoded ahead by worker processes, which live as long as the stream."""

    def __init__(self, files: ImageFiles, batch_size: int, pin: bool):
        self.files, self.pin = files, pin
        self.workers = _workers(batch_size * 3 * files.resolution**2)
        self.loaders: list[DataLoader] = []
        self.idle: list[DataLoader] = []  # those between two epochs; epochs that go side by side have one each
        weakref.finalize(self, _end, self.loaders)

    def stacks(self, batches: list[torch.Tensor]) -> Iterator[torch.Tensor]:
        """The uint8 images (B, 3, R, R) at each of `batches`, tensors of positions."""
        loader = self.idle.pop() if self.idle else self._loader()
        loader.sampler[:] = [positions.tolist() for positions in batches]
        try:
            with _no_interrupt():  # the workers start here
                stacks = iter(loader)
            for images in stacks:
                if isinstance(images, CourseError):
                    raise images
                yield images
        except BaseException:  # an epoch that breaks off leaves its workers some batches ahead
            self.loaders.remove(loader)
            _end([loader])
            raise
        self.idle.append(loader)

    def _loader(self) -> DataLoader:
        loader = DataLoader(
            _Stacks(self.files),
            batch_size=None,  # a "sample" is a whole batch
            sampler=[],
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=self.pin,
            worker_init_fn=_begin_worker,
            generator=torch.Generator(),  # else it draws from the global one, and dropout would change
        )
        self.loaders.append(loader)
        return loader


def _end(loaders: list[DataLoader]) -> None:
    """End the workers now: torch offers no other way, and on garbage it waits five seconds for each worker."""
    for loader in loaders:
        if loader._iterator is not None:
            loader._iterator._shutdown_workers()


class _Stacks(Dataset):
    """What a worker does: positions → images, or the CourseError, which DataLoader would wrap in a stack trace."""

    def __init__(self, files: ImageFiles):
        self.files = files

    def __getitem__(self, positions: list[int]) -> torch.Tensor | CourseError:
        try:
            return self.files[positions].to("cpu")
        except CourseError as error:
            return error


@contextmanager
def _no_interrupt():
    """Processes that start inside never hear a ctrl-C, not even while they start; this one hears it at the end."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker(number: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is for the process that trains; it ends its workers
    if multiprocessing.get_start_method() == "fork":
        gc.freeze()  # garbage of that process is not to be collected here: it may hold the queues of other workers


def _workers(batch_bytes: int) -> int:
    """How many worker processes: each has up to three batches in shared memory, of which Docker gives 64 MB."""
    shared = Path("/dev/shm")
    return min(WORKERS, shutil.disk_usage(shared).free // (3 * batch_bytes)) if shared.is_dir() else WORKERS
