"""Files that are called images and are not: each is skipped with its reason."""

import os
import random
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from helpers.data.image_folder import load_image_folder
from tests.data.small_data import animated, noise, orientation, saved


def bomb(width: int, height: int) -> bytes:
    """A PNG file of a hundred bytes that says it has so many pixels."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(1000))),
        (b"IEND", b""),
    ]
    body = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def test_decompression_bombs_are_skipped_and_not_unpacked(tmp_path):
    resource = pytest.importorskip("resource")
    noise(9, 9).save(tmp_path / "good.png")
    (tmp_path / "alarm.png").write_bytes(bomb(10_000, 10_000))  # Pillow warns
    (tmp_path / "error.png").write_bytes(bomb(60_000, 60_000))  # Pillow raises
    jpeg = bytearray(saved(noise(8, 8), ".jpg"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 65_000, 65_000)
    (tmp_path / "frame.jpg").write_bytes(jpeg)
    gif = bytearray(saved(noise(8, 8), ".gif"))
    gif[6:10] = struct.pack("<HH", 65_000, 65_000)
    (tmp_path / "screen.gif").write_bytes(gif)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    skipped = dict(load_image_folder(tmp_path, 8).skipped)
    assert list(skipped) == ["alarm.png", "error.png", "frame.jpg", "screen.gif"]
    assert all("decompression bomb" in reason for reason in skipped.values())
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert more < 100_000  # KiB (bytes on macOS, where it is less)


# --- files that are broken by chance ---


def pictures() -> dict[str, bytes]:
    """Name → a small image file, of every format and mode."""
    colours = noise(23, 31)
    grey = colours.convert("L")
    seen = {f"{mode}.png": colours.convert(mode) for mode in ("RGB", "RGBA", "LA", "L", "P", "1")}
    seen |= {f"{mode}.jpg": colours.convert(mode) for mode in ("RGB", "L", "CMYK")}
    seen |= {f"{mode}.tif": colours.convert(mode) for mode in ("RGB", "CMYK", "LAB")}
    seen |= {
        "I;16.png": Image.fromarray(np.asarray(grey, np.uint16) * 257),
        "float.tif": Image.fromarray(np.asarray(grey, np.float32) / 255),
        "RGB.bmp": colours,
        "RGB.ppm": colours,
        "L.pgm": grey,
        "RGBA.webp": colours.convert("RGBA"),
        "one.png": noise(1, 1),
        "long.png": noise(1, 2000),
        "high.png": noise(2000, 1),
        "high.jpg": noise(2000, 1),
    }
    files = {name: saved(image, name) for name, image in seen.items()}
    files |= {
        "transparent.png": saved(colours.convert("P"), ".png", transparency=3),
        "animated.gif": animated(colours, grey.convert("RGB"), colours),
        "lzw.tiff": saved(colours, ".tif", compression="tiff_lzw"),
        "progressive.jpeg": saved(colours, ".jpg", progressive=True),
    }
    for value in range(10):  # 0 and 9: there are none such
        files[f"turned-{value}.jpg"] = saved(colours, ".jpg", exif=orientation(value))
    if features.check("avif"):
        files["RGB.avif"] = saved(colours, ".avif")
    return files


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` cut off, with bytes changed, with a piece left out, or with a piece twice."""
    place, other = sorted(rng.sample(range(len(data)), 2))
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3, 30))):
        changed[rng.randrange(len(data))] = rng.randrange(256)
    without = data[:place] + data[other:]
    twice = data[:other] + data[place:]
    return rng.choice((data[:place], data[:other], bytes(changed), without, twice))


def test_each_of_200_mutated_files_is_converted_or_skipped_with_its_reason(
    tmp_path, capfd, recwarn
):
    rng = random.Random(0)
    good = pictures()
    (tmp_path / "mutated").mkdir()
    for name, data in good.items():
        (tmp_path / name).write_bytes(data)
    for i in range(200):
        name = rng.choice(sorted(good))
        (tmp_path / "mutated" / f"{i:03}-{name}").write_bytes(mutated(good[name], rng))

    loaded = load_image_folder(tmp_path, 16)
    told = capfd.readouterr()
    of_libtiff = ("tempfile.tif", "LZWDecode")
    assert all(any(word in line for word in of_libtiff) for line in told.err.splitlines())
    assert told.out.count("\n") == 1 and str(tmp_path) not in told.out
    assert not [warning for warning in recwarn if "PIL" in warning.filename]
    assert warnings.filters[0][:3] != ("ignore", None, Warning)  # warnings are heard again

    assert len(loaded) + len(loaded.skipped) + loaded.duplicates == 200 + len(good)
    narrow = {"one.png", "long.png", "high.png", "high.jpg"}
    assert good.keys() - narrow <= set(loaded.names)  # a copy in "mutated" comes later
    assert loaded.images.shape == (len(loaded), 3, 16, 16)
    skipped = dict(loaded.skipped)
    assert narrow <= {name for name, reason in skipped.items() if reason.startswith("only ")}
    assert len(skipped) == len(loaded.skipped) and not set(skipped) & set(loaded.names)
    for reason in skipped.values():
        assert reason.strip() and "\n" not in reason and "0x" not in reason
        assert str(tmp_path) not in reason
    assert len(loaded.names) > 60 and len(skipped) > 60  # neither outcome is for all


# --- what cannot be opened ---


def test_what_is_no_file_is_skipped_and_a_folder_called_like_an_image_is_a_folder(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    noise(9, 9).save(tmp_path / "folder.jpg" / "inside.png")
    wanted = {}
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        wanted["pipe.png"] = "no regular file"
    if os.name != "nt":
        (tmp_path / "broken.jpg").symlink_to(tmp_path / "gone.jpg")
        (tmp_path / "link.jpg").symlink_to(tmp_path / "folder.jpg" / "inside.png")
        wanted["broken.jpg"] = "No such file or directory"
    loaded = load_image_folder(tmp_path, 8)
    assert dict(loaded.skipped) == wanted and loaded.names == ("folder.jpg/inside.png",)
    assert loaded.duplicates == (os.name != "nt")  # the link


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_a_name_that_is_no_text_can_be_read_and_printed(tmp_path, capsys):
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(b"broken")
    except OSError:
        pytest.skip("this file system takes text only")
    noise(9, 9).save(tmp_path / "good.png")
    noise(9, 9, seed=1).save(os.fsdecode(os.fsencode(tmp_path) + b"/\xfe.png"))
    loaded = load_image_folder(tmp_path, 8)
    assert loaded.names == ("good.png", "\ufffd.png") and loaded.skipped[0][0] == "\ufffd.png"
    "".join(loaded.names).encode()
    assert "no known image format" in capsys.readouterr().out
