"""Folders of images, and all that can be wrong with a file that is called an image."""

import hashlib
import io
import os
import random
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from helpers import CourseError, image_files
from helpers.data import load_image_folder
from helpers.image_files import split_of
from tests.small_data import noise, one_sentence, write_photos


def plane(mode: str, value) -> Image.Image:
    return Image.new(mode, (30, 20), value)


def palette(transparent: bool) -> tuple[Image.Image, dict]:
    """All pixels are colour 1, which is red; or, where colour 1 is transparent, nothing."""
    image = plane("P", 1)
    image.putpalette([0, 0, 255, 255, 0, 0])
    return image, {"transparency": 1} if transparent else {}


GOOD = {  # name: (the colour it must become, how it is saved)
    "01-rgb.png": ((10, 120, 240), lambda p: plane("RGB", (10, 120, 240)).save(p)),
    "02-grey.png": ((77, 77, 77), lambda p: plane("L", 77).save(p)),
    "03-palette.png": ((255, 0, 0), lambda p: palette(False)[0].save(p)),
    "04-palette-transparent.png": ((255, 255, 255), lambda p: palette(True)[0].save(p, **palette(True)[1])),
    "05-grey-alpha.png": ((155, 155, 155), lambda p: plane("LA", (55, 128)).save(p)),
    "06-alpha.png": ((255, 127, 127), lambda p: plane("RGBA", (255, 0, 0, 128)).save(p)),
    "07-invisible.png": ((255, 255, 255), lambda p: plane("RGBA", (0, 0, 0, 0)).save(p)),
    "08-cmyk.jpg": ((255, 128, 0), lambda p: plane("CMYK", (0, 127, 255, 0)).save(p, quality=95)),
    "09-deep-grey.png": ((156, 156, 156), lambda p: Image.fromarray(np.full((20, 30), 40_000, np.uint16)).save(p)),
    "10-deep-dark.png": ((1, 1, 1), lambda p: Image.fromarray(np.full((20, 30), 200, np.uint16)).save(p)),
    "11-deep.tif": ((128, 128, 128), lambda p: Image.fromarray(np.full((20, 30), 32_896, np.uint16)).save(p)),
    "12-animated.gif": (
        (255, 0, 0),
        lambda p: plane("RGB", (255, 0, 0)).save(p, save_all=True, append_images=[plane("RGB", (0, 255, 0))]),
    ),
    "13-black-and-white.png": ((255, 255, 255), lambda p: plane("1", 1).save(p)),
    "14-UPPER.JPEG": ((60, 60, 60), lambda p: plane("RGB", (60, 60, 60)).save(p, format="JPEG")),
    "sub/15-nested.webp": ((0, 0, 0), lambda p: plane("RGB", 0).save(p, lossless=True)),
}


@pytest.fixture(scope="module")
def menagerie(tmp_path_factory) -> Path:
    """A folder with every kind of image, and every kind of broken file."""
    folder = tmp_path_factory.mktemp("pictures") / "menagerie"
    (folder / "sub").mkdir(parents=True)
    for name, (_, save) in GOOD.items():
        save(folder / name)
    noise(60, 60).save(folder / "truncated.jpg")
    (folder / "truncated.jpg").write_bytes((folder / "truncated.jpg").read_bytes()[:2000])
    noise(60, 60).save(folder / "sub" / "cut.png")
    (folder / "sub" / "cut.png").write_bytes((folder / "sub" / "cut.png").read_bytes()[:2000])
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("this is no picture")
    (folder / "notes.txt").write_text("this is no picture either")
    (folder / "folder.png").mkdir()
    return folder


BROKEN = {"truncated.jpg", "sub/cut.png", "empty.png", "text.jpg"}


@pytest.mark.filterwarnings("error::UserWarning")
def test_readable_images_are_converted_and_the_others_skipped_and_listed_once(menagerie, capsys):
    loaded = load_image_folder(menagerie, 8)
    assert loaded.names == tuple(GOOD)
    assert loaded.images.shape == (len(GOOD), 3, 8, 8) and loaded.images.dtype == torch.uint8
    assert loaded.labels is None and "menagerie" in loaded.source
    for image, (name, (colour, _)) in zip(loaded.images, GOOD.items(), strict=True):
        far = (image.float() - torch.tensor(colour).view(3, 1, 1)).abs().max()
        assert far <= (6 if name.lower().endswith(("jpg", "jpeg")) else 1), (name, image[:, 0, 0].tolist())
    assert {name for name, _ in loaded.skipped} == BROKEN and all(reason for _, reason in loaded.skipped)
    told = capsys.readouterr().out
    assert told.count("\n") == 1 and f"{len(BROKEN)} of {len(GOOD) + len(BROKEN)} files skipped" in told
    assert all(told.count(name) == 1 for name in BROKEN)
    assert str(menagerie.parent) not in told + str(loaded.skipped) + loaded.source


def test_a_good_folder_says_nothing(tmp_path, capsys):
    noise(10, 12).save(tmp_path / "a.png")
    load_image_folder(tmp_path, 8)
    assert capsys.readouterr().out == ""


def test_a_bright_16_bit_gradient_does_not_saturate(tmp_path):
    ramp = np.linspace(0, 65_535, 256).astype(np.uint16)
    Image.fromarray(np.repeat(ramp[None], 256, axis=0)).save(tmp_path / "ramp.png")
    image = load_image_folder(tmp_path, 256).images[0]
    assert (image[:, 0].int() - torch.arange(256).int()).abs().max() <= 1


def test_a_photo_stands_upright_as_its_camera_noted(tmp_path):
    image = Image.new("RGB", (40, 20), "black")
    image.paste("white", (0, 0, 40, 10))  # the upper half, which turned by orientation 6 is the right one
    image.save(tmp_path / "a.jpg", exif=orientation(6), quality=95)
    loaded = load_image_folder(tmp_path, 10).images[0].float()
    assert loaded[:, :, :3].max() < 60 and loaded[:, :, 7:].min() > 200


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = value
    return exif


@pytest.mark.parametrize("size", [(90, 60), (60, 90)])
def test_a_circle_stays_a_circle(tmp_path, size):
    width, height = size
    y, x = np.mgrid[:height, :width]
    disc = (y - height / 2 + 0.5) ** 2 + (x - width / 2 + 0.5) ** 2 < 24**2
    Image.fromarray((disc * 255).astype(np.uint8)).save(tmp_path / "disc.png")
    inside = load_image_folder(tmp_path, 30).images[0, 0] > 127
    assert inside.any(0).sum() == inside.any(1).sum() == 24  # 48 of 60 pixels, halved
    assert inside.equal(inside.flip(0)) and inside.equal(inside.flip(1)) and inside.equal(inside.T)


def test_an_impossible_folder_is_one_sentence_with_the_path_and_what_was_expected(tmp_path):
    file, empty, bad = tmp_path / "file.png", tmp_path / "empty", tmp_path / "bad"
    noise(5, 5).save(file)
    empty.mkdir()
    bad.mkdir()
    (bad / "one.jpg").write_text("no")
    (bad / "two.jpg").write_text("no")
    for folder, word in ((tmp_path / "nowhere", "is not a folder"), (file, "is not a folder"), (empty, "no image files"),
                         (bad, "none of its 2")):  # fmt: skip
        with pytest.raises(CourseError) as error:
            load_image_folder(folder)
        one_sentence(error, str(folder), word, ".jpg", ".png")


# --- files with the same bytes, and splits ---


def test_the_same_bytes_are_one_image_under_the_first_name(tmp_path, capsys):
    names = write_photos(tmp_path, 6)
    for copy in ("more/zz.png", "aa.png", "more/000.jpg"):
        (tmp_path / copy).write_bytes((tmp_path / "000.png").read_bytes())
    loaded = load_image_folder(tmp_path, 8)
    assert loaded.duplicates == 3 and loaded.skipped == () and capsys.readouterr().out == ""
    assert loaded.names == tuple(sorted(names)) and len(loaded) == 6
    (tmp_path / "00.png").write_bytes((tmp_path / "000.png").read_bytes())
    assert load_image_folder(tmp_path, 8).names == ("00.png", *sorted(names)[1:])


def test_broken_files_with_the_same_bytes_are_all_listed(tmp_path, capsys):
    write_photos(tmp_path, 2)
    for name in ("a.jpg", "b.jpg", "c.gif"):
        (tmp_path / name).write_text("404 not found")
    loaded = load_image_folder(tmp_path, 8)
    assert [name for name, _ in loaded.skipped] == ["a.jpg", "b.jpg", "c.gif"] and loaded.duplicates == 0
    assert "3 of 5 files skipped: a.jpg (no known image format); b.jpg" in capsys.readouterr().out


def test_a_long_list_of_skipped_files_is_shortened(tmp_path, capsys):
    write_photos(tmp_path, 2)
    for i in range(200):
        (tmp_path / f"broken-{i:03}.jpg").write_text(str(i))
    assert len(load_image_folder(tmp_path, 8).skipped) == 200
    told = capsys.readouterr().out
    assert told.startswith("200 of 202 files skipped: broken-000.jpg (") and told.count(".jpg") == 10
    assert told.endswith("; … and 190 more\n") and told.count("\n") == 1


def test_the_name_alone_decides_on_the_split():
    golden = {"more/001.png": "train", "a.jpg": "train", "00000.jpg": "train"}
    assert {name: split_of(name) for name in golden} == golden
    names = [f"folder/{i:05}.jpg" for i in range(20_000)]
    parts = [split_of(name) for name in names]
    for part, share in (("train", 0.85), ("validation", 0.05), ("test", 0.1)):
        assert parts.count(part) / len(parts) == pytest.approx(share, abs=0.01)
    for name, part in zip(names[:200], parts):
        number = int(hashlib.md5(name.encode()).hexdigest()[:16], 16) / 16**16
        assert part == ("train" if number < 0.85 else "validation" if number < 0.9 else "test")


def test_names_are_written_in_one_way_on_every_system(tmp_path):
    noise(9, 9, seed=1).save(tmp_path / "cafe\u0301.png")  # macOS writes é as two letters
    assert load_image_folder(tmp_path, 8).names == ("caf\u00e9.png",)


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


# --- every kind of broken file ---


def pictures() -> dict[str, bytes]:
    """name → a small image file of every format and mode."""
    colours = noise(23, 31)
    grey = colours.convert("L")
    seen = {f"{mode}.png": colours.convert(mode) for mode in ("RGB", "RGBA", "LA", "L", "P", "1")}
    seen |= {"I;16.png": Image.fromarray(np.asarray(grey, np.uint16) * 257), "one.png": noise(1, 1)}
    seen |= {f"{mode}.jpg": colours.convert(mode) for mode in ("RGB", "L", "CMYK")}
    seen |= {"long.png": noise(1, 2000), "high.png": noise(2000, 1), "high.jpg": noise(2000, 1), "RGB.bmp": colours}
    seen |= {f"{mode}.tif": colours.convert(mode) for mode in ("RGB", "CMYK", "LAB")}
    seen |= {"float.tif": Image.fromarray(np.asarray(grey, np.float32) / 255), "RGBA.webp": colours.convert("RGBA")}
    files = {name: saved(image, name) for name, image in seen.items()}
    files["transparent.png"] = saved(colours.convert("P"), ".png", transparency=3)
    files["animated.gif"] = saved(colours, ".gif", save_all=True, append_images=[grey.convert("RGB"), colours])
    files["lzw.tiff"] = saved(colours, ".tif", compression="tiff_lzw")
    files["progressive.jpeg"] = saved(colours, ".jpg", progressive=True)
    files |= {f"turned-{i}.jpg": saved(colours, ".jpg", exif=orientation(i)) for i in range(10)}  # 0 and 9: none such
    if features.check("avif"):
        files["RGB.avif"] = saved(colours, ".avif")
    return files


def saved(image: Image.Image, name: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, Image.registered_extensions()[Path("x" + name).suffix], **options)
    return file.getvalue()


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` cut off, with bytes changed, with a piece left out, or with a piece twice."""
    place, other = sorted(rng.sample(range(len(data)), 2))
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3, 30))):
        changed[rng.randrange(len(data))] = rng.randrange(256)
    return rng.choice((data[:place], data[:other], bytes(changed), data[:place] + data[other:], data[:other] + data[place:]))


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Path:
    """The good pictures, and 200 files made of them by chance."""
    folder, rng, good = tmp_path_factory.mktemp("zoo"), random.Random(0), pictures()
    (folder / "mutated").mkdir()
    for name, data in good.items():
        (folder / name).write_bytes(data)
    for i in range(200):
        name = rng.choice(sorted(good))
        (folder / "mutated" / f"{i:03}-{name}").write_bytes(mutated(good[name], rng))
    return folder


@pytest.mark.parametrize("limit", [image_files.MEMORY_LIMIT, 0])
def test_each_of_200_mutated_files_is_converted_or_skipped_with_its_reason(zoo, monkeypatch, capfd, recwarn, limit):
    monkeypatch.setattr(image_files, "MEMORY_LIMIT", limit)
    loaded = load_image_folder(zoo, 16)
    told = capfd.readouterr()
    assert all("tempfile.tif" in line for line in told.err.splitlines())  # libtiff writes there past Python
    assert told.out.count("\n") == 1 and str(zoo) not in told.out
    assert not [warning for warning in recwarn if "PIL" in warning.filename]
    assert warnings.filters[0][:3] != ("ignore", None, Warning)  # warnings are heard again
    assert len(loaded) + len(loaded.skipped) + loaded.duplicates == 200 + len(pictures())
    assert set(pictures()) <= set(loaded.names)  # a copy in "mutated" comes later
    assert loaded.images.shape == (len(loaded), 3, 16, 16) and loaded.images[:].to("cpu").dtype == torch.uint8
    skipped = dict(loaded.skipped)
    assert len(skipped) == len(loaded.skipped) and not set(skipped) & set(loaded.names)
    for reason in skipped.values():
        assert reason.strip() and "\n" not in reason and str(zoo) not in reason and "0x" not in reason
    assert len(loaded.names) > 60 and len(skipped) > 60  # neither outcome is for all


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (2000, 1), (1, 2000), (3, 2000)])
def test_lopsided_and_tiny_images_show_their_middle(tmp_path, size):
    width, height = size
    y, x = np.mgrid[:height, :width]
    middle = (abs(2 * x + 1 - width) <= 20) & (abs(2 * y + 1 - height) <= 20)
    Image.fromarray(np.where(middle, 77, 255).astype(np.uint8)).save(tmp_path / "a.png")
    assert load_image_folder(tmp_path, 5).images.eq(77).all()


@pytest.mark.parametrize("value", range(1, 9))
def test_all_eight_orientations_give_the_same_picture(tmp_path, value):
    ramp = np.linspace(0, 255, 40)
    upright = np.stack([np.tile(ramp, (40, 1)), np.tile(ramp[:, None], (1, 40)), np.zeros((40, 40))], -1).astype(np.uint8)
    turns = {1: [], 2: ["FLIP_LEFT_RIGHT"], 3: ["ROTATE_180"], 4: ["FLIP_TOP_BOTTOM"], 5: ["TRANSPOSE"],
             6: ["ROTATE_90"], 7: ["TRANSVERSE"], 8: ["ROTATE_270"]}  # fmt: skip
    image = Image.fromarray(upright)
    for turn in turns[value]:
        image = image.transpose(Image.Transpose[turn])
    image.save(tmp_path / "a.jpg", exif=orientation(value), quality=100, subsampling=0)
    stored = load_image_folder(tmp_path, 40).images[0].movedim(0, 2).int()
    assert (stored - torch.from_numpy(upright).int()).abs().max() < 8


def test_a_wrong_suffix_does_not_matter(tmp_path):
    picture = noise(20, 20)
    for name, kind in (("a.jpg", "PNG"), ("b.png", "GIF"), ("c.tif", "WEBP"), ("d.gif", "BMP")):
        picture.save(tmp_path / name, kind)
    assert len(load_image_folder(tmp_path, 8)) == 4


def test_only_formats_of_images_are_opened(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(Image.OPEN["EPS"][0], "__init__", lambda *args: opened.append(args))
    (tmp_path / "a.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")  # a program
    noise(9, 9).save(tmp_path / "b.png")
    assert load_image_folder(tmp_path, 8).skipped == (("a.jpg", "no known image format"),) and opened == []


def bomb(width: int, height: int) -> bytes:
    """A PNG file of a hundred bytes that says it has so many pixels."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(1000))),
        (b"IEND", b""),
    ]
    body = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks]
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
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB (bytes on macOS, where it is less)


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


def test_a_file_and_a_folder_that_may_not_be_read_are_skipped(tmp_path, monkeypatch):
    names = write_photos(tmp_path, 6)
    real_open, real_scan = open, os.scandir

    def refuse(real, word):
        def opening(path, *mode):
            if word in str(path):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *mode)

        return opening

    monkeypatch.setattr(image_files, "open", refuse(real_open, "002.png"), raising=False)  # chmod means nothing to root
    monkeypatch.setattr(os, "scandir", refuse(real_scan, "more"))
    loaded = load_image_folder(tmp_path, 8)
    assert loaded.skipped == (("002.png", "Permission denied"), ("more", "Permission denied"))
    assert loaded.names == tuple(name for name in names if "more" not in name and name != "002.png")


def test_formats_that_pillow_cannot_read_are_counted_and_others_are_not(tmp_path, monkeypatch):
    noise(9, 9).save(tmp_path / "a.png")
    for name in ("b.heic", "c.SVG", "d.raw", "e.nef", "f.avif", "notes.txt", "film.mp4", ".DS_Store", "list.csv"):
        (tmp_path / name).write_bytes(name.encode())
    known = {k: v for k, v in Image.registered_extensions().items() if k not in (".heic", ".avif")}
    monkeypatch.setattr(Image, "registered_extensions", lambda: known)
    unread = ["b.heic", "c.SVG", "d.raw", "e.nef", "f.avif"]
    assert load_image_folder(tmp_path, 8).skipped == tuple((name, "unsupported format") for name in unread)
    monkeypatch.setattr(Image, "registered_extensions", lambda: known | {".heic": "PNG"})  # a plug-in, say
    (tmp_path / "b.heic").write_bytes(saved(noise(9, 9, seed=1), ".png"))
    assert load_image_folder(tmp_path, 8).names == ("a.png", "b.heic")


@pytest.mark.skipif(not features.check("avif"), reason="an older Pillow")
def test_avif_is_read_where_pillow_can(tmp_path):
    plane("RGB", (10, 120, 240)).save(tmp_path / "a.avif")
    far = load_image_folder(tmp_path, 8).images[0].float() - torch.tensor((10.0, 120, 240)).view(3, 1, 1)
    assert far.abs().max() < 6


@pytest.mark.parametrize("resolution", [0, -1, 1.5, "8", None])
def test_an_impossible_resolution_is_one_sentence(tmp_path, resolution):
    write_photos(tmp_path, 2)
    with pytest.raises(CourseError) as error:
        load_image_folder(tmp_path, resolution)
    one_sentence(error, "resolution", repr(resolution))


def test_a_large_photo_is_decoded_small_and_looks_the_same(tmp_path):
    y, x = np.mgrid[:600, :900]
    waves = np.stack([128 + 100 * np.sin(x / 40), 128 + 100 * np.cos(y / 50), 128 + 100 * np.sin((x + y) / 60)], -1)
    Image.fromarray(waves.astype(np.uint8)).save(tmp_path / "a.jpg", quality=95)
    Image.fromarray(waves.astype(np.uint8)).save(tmp_path / "a.png")
    draft, whole = load_image_folder(tmp_path, 40).images.int()
    assert (draft - whole).abs().max() <= 8
