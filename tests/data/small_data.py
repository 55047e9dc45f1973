"""For the tests of data: small data sets on disk, and no network."""

import hashlib
import io
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.data import downloads
from helpers.data.image_set import ImageSet


def one_sentence(error: pytest.ExceptionInfo, *words: str) -> None:
    """A CourseError's text is one line, and holds these words."""
    text = str(error.value)
    assert "\n" not in text and all(word in text for word in words), text


def refuse_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No network: whoever asks for a page is refused, and the page is noted in this list."""
    asked = []

    def refuse(page, *args, **kwargs):
        asked.append(getattr(page, "full_url", page))
        raise urllib.request.URLError("no network here")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return asked


def numbered(count: int = 10) -> ImageSet:
    """Images (1, 2, 3): number i is filled with i, its label is i and its name "i"."""
    values = torch.arange(count)
    images = values.to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, 2, 3)
    return ImageSet(images, values, "numbered", tuple(str(i) for i in range(count)))


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    """An RGB image of random pixels."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))


def saved(image: Image.Image, name: str, **options) -> bytes:
    """The image as a file of that name."""
    file = io.BytesIO()
    image.save(file, Image.registered_extensions()[Path("x" + name).suffix.lower()], **options)
    return file.getvalue()


def animated(first: Image.Image, *more: Image.Image) -> bytes:
    return saved(first, ".gif", save_all=True, append_images=list(more))


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = value
    return exif


def write_photos(folder: Path, count: int, size: tuple[int, int] = (12, 16)) -> list[str]:
    """`count` different images, half of them in a sub-folder; their names, sorted."""
    (folder / "more").mkdir(parents=True, exist_ok=True)
    names = sorted(f"more/{i:03}.png" if i % 2 else f"{i:03}.png" for i in range(count))
    for name in names:
        noise(*size, seed=int(name[-7:-4])).save(folder / name)
    return names


def write_mnist(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MNIST's four files, made up: 12 and 5 images, of which number i is filled with i, its label.

    From now on they count as the real ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = {}
    for part, count in (("train", 12), ("t10k", 5)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = np.repeat(np.arange(count, dtype=np.uint8), 28 * 28).reshape(count, 28, 28)
        for name, values in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
            content = idx(values)
            (folder / f"{part}-{name}").write_bytes(content)
            known[f"{part}-{name}"] = (values.shape, hashlib.md5(content).hexdigest())
    monkeypatch.setattr(downloads, "MNIST_FILES", known)


def idx(values: np.ndarray, order: str = "big") -> bytes:
    """Bytes in the format of MNIST's files, whose numbers are big-endian."""
    header = (2048 + values.ndim, *values.shape)
    return b"".join(number.to_bytes(4, order) for number in header) + values.tobytes()
