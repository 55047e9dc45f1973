"""One image file: all kinds of them become RGB of the wanted size."""

import io
import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, features

from helpers.data import image_file
from helpers.data.image_folder import load_image_folder
from tests.data.small_data import animated, noise, orientation, saved


def plane(mode: str, value) -> Image.Image:
    return Image.new(mode, (30, 20), value)


def deep(value: int) -> Image.Image:
    return Image.fromarray(np.full((20, 30), value, np.uint16))


def reds() -> Image.Image:
    """A palette image: all pixels are colour 1, which is red."""
    image = plane("P", 1)
    image.putpalette([0, 0, 255, 255, 0, 0])
    return image


RED = plane("RGB", (255, 0, 0))
GOOD = {  # name: (the colour that it must become, the file)
    "01-rgb.png": ((10, 120, 240), saved(plane("RGB", (10, 120, 240)), ".png")),
    "02-grey.png": ((77, 77, 77), saved(plane("L", 77), ".png")),
    "03-palette.png": ((255, 0, 0), saved(reds(), ".png")),
    "04-palette-transparent.png": ((255, 255, 255), saved(reds(), ".png", transparency=1)),
    "05-grey-alpha.png": ((155, 155, 155), saved(plane("LA", (55, 128)), ".png")),
    "06-alpha.png": ((255, 127, 127), saved(plane("RGBA", (255, 0, 0, 128)), ".png")),
    "07-invisible.png": ((255, 255, 255), saved(plane("RGBA", (0, 0, 0, 0)), ".png")),
    "08-cmyk.jpg": ((255, 128, 0), saved(plane("CMYK", (0, 127, 255, 0)), ".jpg", quality=95)),
    "09-deep-grey.png": ((156, 156, 156), saved(deep(40_000), ".png")),
    "10-deep-dark.png": ((1, 1, 1), saved(deep(200), ".png")),
    "11-deep.tif": ((128, 128, 128), saved(deep(32_896), ".tif")),
    "12-animated.gif": ((255, 0, 0), animated(RED, plane("RGB", (0, 255, 0)))),
    "13-black-and-white.png": ((255, 255, 255), saved(plane("1", 1), ".png")),
    "14-UPPER.JPEG": ((60, 60, 60), saved(plane("RGB", (60, 60, 60)), ".JPEG")),
    "sub/15-nested.webp": ((0, 0, 0), saved(plane("RGB", 0), ".webp", lossless=True)),
}
BROKEN = {
    "truncated.jpg": saved(noise(60, 60), ".jpg")[:2000],
    "sub/cut.png": saved(noise(60, 60), ".png")[:2000],
    "empty.png": b"",
    "text.jpg": b"this is no picture",
}


@pytest.mark.filterwarnings("error::UserWarning")
def test_readable_images_are_converted_and_the_others_skipped_and_listed_once(tmp_path, capsys):
    folder = tmp_path / "menagerie"
    (folder / "sub").mkdir(parents=True)
    for name, data in BROKEN.items() | {name: data for name, (_, data) in GOOD.items()}.items():
        (folder / name).write_bytes(data)
    (folder / "notes.txt").write_text("this is no picture either")

    loaded = load_image_folder(folder, 8)
    assert loaded.names == tuple(GOOD)
    assert loaded.images.shape == (len(GOOD), 3, 8, 8) and loaded.images.dtype == torch.uint8
    assert loaded.labels is None and loaded.source == "folder menagerie"
    for image, (name, (colour, _)) in zip(loaded.images, GOOD.items(), strict=True):
        far = (image.float() - torch.tensor(colour).view(3, 1, 1)).abs().max()
        assert far <= (6 if "jp" in name.lower() else 1), (name, image[:, 0, 0].tolist())

    assert {name for name, _ in loaded.skipped} == BROKEN.keys()
    assert all(reason for _, reason in loaded.skipped)
    told = capsys.readouterr().out
    assert told.startswith("4 of 19 files skipped: ") and told.count("\n") == 1
    assert all(told.count(name) == 1 for name in BROKEN)
    assert str(tmp_path) not in told + str(loaded.skipped)


# --- what a good one becomes ---


def test_a_bright_16_bit_gradient_does_not_saturate(tmp_path):
    ramp = np.linspace(0, 65_535, 256).astype(np.uint16)
    Image.fromarray(np.repeat(ramp[None], 256, axis=0)).save(tmp_path / "ramp.png")
    image = load_image_folder(tmp_path, 256).images[0]
    assert (image[:, 0].int() - torch.arange(256).int()).abs().max() <= 1


@pytest.mark.parametrize("value", range(1, 9))
def test_all_eight_orientations_give_the_same_picture(tmp_path, value):
    ramp = np.linspace(0, 255, 40)
    colours = [np.tile(ramp, (40, 1)), np.tile(ramp[:, None], (1, 40)), np.zeros((40, 40))]
    upright = np.stack(colours, -1).astype(np.uint8)
    turn = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"}
    turn |= {6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}
    image = Image.fromarray(upright)
    if value in turn:
        image = image.transpose(Image.Transpose[turn[value]])
    image.save(tmp_path / "a.jpg", exif=orientation(value), quality=100, subsampling=0)
    stored = load_image_folder(tmp_path, 40).images[0].movedim(0, 2).int()
    assert (stored - torch.from_numpy(upright).int()).abs().max() < 8


@pytest.mark.parametrize(("width", "height"), [(90, 60), (60, 90)])
def test_a_circle_stays_a_circle(tmp_path, width, height):
    y, x = np.mgrid[:height, :width]
    disc = (y - height / 2 + 0.5) ** 2 + (x - width / 2 + 0.5) ** 2 < 24**2
    Image.fromarray((disc * 255).astype(np.uint8)).save(tmp_path / "disc.png")
    inside = load_image_folder(tmp_path, 30).images[0, 0] > 127
    assert inside.any(0).sum() == inside.any(1).sum() == 24  # 48 of 60 pixels, halved
    assert inside.equal(inside.flip(0)) and inside.equal(inside.flip(1)) and inside.equal(inside.T)


@pytest.mark.parametrize(("width", "height"), [(2, 2), (2, 3), (2000, 2), (2, 2000), (3, 2000)])
def test_lopsided_and_tiny_images_show_their_middle(tmp_path, width, height):
    y, x = np.mgrid[:height, :width]
    middle = (abs(2 * x + 1 - width) <= 20) & (abs(2 * y + 1 - height) <= 20)
    Image.fromarray(np.where(middle, 77, 255).astype(np.uint8)).save(tmp_path / "a.png")
    assert load_image_folder(tmp_path, 5).images.eq(77).all()


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 40), (40, 1)])
def test_a_picture_of_one_pixel_in_width_or_height_is_skipped(tmp_path, width, height):
    noise(height, width).save(tmp_path / "a.png")
    noise(9, 9).save(tmp_path / "b.png")
    reason = f"only {width}×{height} pixels"
    assert load_image_folder(tmp_path, 8).skipped == (("a.png", reason),)


def fractions(top: float) -> np.ndarray:
    """A ramp from 0 to `top`, and what should be no number at all."""
    values = np.repeat(np.linspace(0, top, 40, dtype=np.float32)[None], 40, axis=0)
    values[0, :3] = np.nan, np.inf, -np.inf
    return values


@pytest.mark.parametrize("top", [1, 255, 65_535])
def test_a_float_tiff_is_as_bright_as_its_largest_value_says(tmp_path, top):
    Image.fromarray(fractions(top)).save(tmp_path / "a.tif")
    image = load_image_folder(tmp_path, 40).images[0].float()
    assert (image[:, 1:] - torch.linspace(0, 255, 40)).abs().max() <= 0.51
    assert image[0, 0, :3].tolist() == [0, 255, 0]


def test_exif_with_impossible_numbers_is_no_reason_to_skip_a_good_photo(tmp_path):
    """A resolution of -2,147,483,648 dots makes Pillow fail where it turns the picture."""
    turned = struct.pack(">HHIHxx", 274, 3, 1, 6)
    impossible = struct.pack(">HHII", 282, 10, 1, 38)
    block = b"MM\0*\0\0\0\x08\0\2" + turned + impossible + bytes(4)
    exif = b"Exif\0\0" + block + struct.pack(">ii", -(2**31), 1)
    data = saved(noise(20, 30), ".jpg", exif=exif)
    with pytest.raises(struct.error):
        ImageOps.exif_transpose(Image.open(io.BytesIO(data)), in_place=True)
    (tmp_path / "a.jpg").write_bytes(data)
    assert load_image_folder(tmp_path, 8).skipped == ()

    (tmp_path / "a.jpg").write_bytes(data[:-300])  # the picture itself is broken
    noise(9, 9).save(tmp_path / "b.png")
    assert [name for name, _ in load_image_folder(tmp_path, 8).skipped] == ["a.jpg"]


def test_a_108_megapixel_jpeg_is_decoded_small(tmp_path):
    """As phones make them; one file is a few hundred kB, and at 1/8 it is 1,500×1,125."""
    plane = Image.new("L", (12_000, 9_000), 77)
    plane.save(tmp_path / "phone.jpg")
    plane.save(tmp_path / "unpacked.jpg", progressive=True)
    loaded = load_image_folder(tmp_path, 8)
    assert loaded.names == ("phone.jpg",) and loaded.images.eq(77).all()
    assert "108000000 pixels" in loaded.skipped[0][1]


def test_a_large_photo_is_decoded_small_and_looks_the_same(tmp_path):
    y, x = np.mgrid[:600, :900]
    waves = [np.sin(x / 40), np.cos(y / 50), np.sin((x + y) / 60)]
    image = Image.fromarray((128 + 100 * np.stack(waves, -1)).astype(np.uint8))
    image.save(tmp_path / "a.jpg", quality=95)
    image.save(tmp_path / "a.png")
    draft, whole = load_image_folder(tmp_path, 40).images.int()
    assert (draft - whole).abs().max() <= 8


@pytest.mark.skipif(not features.check("avif"), reason="an older Pillow")
def test_avif_is_read_where_pillow_can(tmp_path):
    plane("RGB", (10, 120, 240)).save(tmp_path / "a.avif")
    image = load_image_folder(tmp_path, 8).images[0].float()
    assert (image - torch.tensor((10.0, 120, 240)).view(3, 1, 1)).abs().max() < 6


# --- files that are not what they seem ---


def test_a_wrong_suffix_does_not_matter(tmp_path):
    for name, kind in (("a.jpg", "PNG"), ("b.png", "GIF"), ("c.tif", "WEBP"), ("d.gif", "BMP")):
        noise(20, 20).save(tmp_path / name, kind)
    assert len(load_image_folder(tmp_path, 8)) == 4


def test_only_formats_of_images_are_opened(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(Image.OPEN["EPS"][0], "__init__", lambda *args: opened.append(args))
    program = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    (tmp_path / "a.jpg").write_text(program)
    noise(9, 9).save(tmp_path / "b.png")
    loaded = load_image_folder(tmp_path, 8)
    assert loaded.skipped == (("a.jpg", "no known image format"),) and opened == []


def test_formats_that_pillow_cannot_read_are_counted_and_others_are_not(tmp_path, monkeypatch):
    noise(9, 9).save(tmp_path / "a.png")
    unread = ["b.heic", "c.SVG", "d.raw", "e.nef", "f.avif"]
    for name in (*unread, "notes.txt", "film.mp4", ".DS_Store", "list.csv"):
        (tmp_path / name).write_bytes(name.encode())
    known = {k: v for k, v in Image.registered_extensions().items() if k not in (".heic", ".avif")}
    monkeypatch.setattr(Image, "registered_extensions", lambda: known)
    skipped = load_image_folder(tmp_path, 8).skipped
    reasons = ["unsupported format: pip install pillow-heif"] + 4 * ["unsupported format"]
    assert skipped == tuple(zip(unread, reasons))

    with_plugin = known | {".heic": "PNG"}
    monkeypatch.setattr(Image, "registered_extensions", lambda: with_plugin)
    noise(9, 9, seed=1).save(tmp_path / "b.heic", "PNG")
    assert load_image_folder(tmp_path, 8).names == ("a.png", "b.heic")


def test_the_plugin_for_heic_is_used_where_it_is_installed(tmp_path, monkeypatch):
    def register():
        known = Image.registered_extensions() | {".heic": "PNG"}
        monkeypatch.setattr(Image, "registered_extensions", lambda: known)

    plugin = SimpleNamespace(register_heif_opener=register)
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    image_file._register_plugins.cache_clear()
    noise(9, 9).save(tmp_path / "a.heic", "PNG")
    assert load_image_folder(tmp_path, 8).names == ("a.heic",)
