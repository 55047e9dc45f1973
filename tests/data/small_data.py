"""For the tests of data: small data sets on disk, and no network."""

import io
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

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


def write_mnist(folder: Path, train: int = 12, test: int = 5) -> None:
    """MNIST's four files, made up: image i is filled with i, and its label is i modulo 10."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", train), ("t10k", test)):
        values = np.arange(count, dtype=np.uint8)
        images = np.repeat(values, 28 * 28).tobytes()
        header = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (count, 28, 28))
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + images)
        header = b"\0\0\x08\x01" + count.to_bytes(4, "big")
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(header + (values % 10).tobytes())
