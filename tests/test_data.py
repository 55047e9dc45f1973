"""Image sets, batches, folders full of faulty files, MNIST, and downloads that fail."""

import gzip
import hashlib
import http.server
import socket
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import MNIST

from helpers import CourseError, data
from helpers.budget import generator_for
from helpers.data import Batches, ImageSet, load_digits, load_image_folder, load_mnist, random_flip, random_shift


def numbered(count: int = 10, height: int = 2, width: int = 3) -> ImageSet:
    """Image i has the value i everywhere, the label i, and the name "i"."""
    values = torch.arange(count)
    images = values.to(torch.uint8)[:, None, None, None].expand(count, 1, height, width).contiguous()
    return ImageSet(images, values, "numbered", tuple(str(i) for i in range(count)))


def one_sentence(error: pytest.ExceptionInfo, *words: str) -> None:
    text = str(error.value)
    assert "\n" not in text and all(word in text for word in words), text


# --- image sets and batches ---


def test_split_is_deterministic_disjoint_and_keeps_what_belongs_together():
    rest, held = numbered(50).split(20)
    assert (len(rest), len(held)) == (30, 20)
    assert sorted(rest.labels.tolist() + held.labels.tolist()) == list(range(50))
    for part in (rest, held):
        assert part.images[:, 0, 0, 0].tolist() == part.labels.tolist() == [int(name) for name in part.names]
        assert part.source == "numbered"
    assert torch.equal(numbered(50).split(20)[1].labels, held.labels)
    assert not torch.equal(numbered(50).split(20, seed=1)[1].labels, held.labels)
    assert held.labels.tolist() != list(range(20)) and held.labels.tolist() != list(range(30, 50))


@pytest.mark.parametrize("size", [0, 10, -1, 11])
def test_an_impossible_split_is_one_sentence(size):
    with pytest.raises(CourseError) as error:
        numbered(10).split(size)
    one_sentence(error, f"{size} of 10")


def test_slices_and_masks():
    some = numbered(10)
    assert some[2:4].names == ("2", "3") and some[2:4].labels.tolist() == [2, 3]
    assert some[some.labels > 7].names == ("8", "9")
    assert some[torch.tensor([5, 1])].images[:, 0, 0, 0].tolist() == [5, 1]
    without = ImageSet(some.images, None, "x")[:3]
    assert len(without) == 3 and without.labels is None and without.names == ()


def test_pixels_are_between_0_and_1():
    pixels = ImageSet(torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1), None, "x").pixels()
    assert pixels.dtype == torch.float32
    torch.testing.assert_close(pixels.flatten(), torch.tensor([0, 0.2, 1]))


def order(batches: Batches, epoch: int, **options) -> list[list[int]]:
    return [batch.labels.tolist() for batch in batches.epoch(epoch, **options)]


def test_an_epoch_shows_each_image_once_in_an_order_of_its_own():
    batches = Batches(numbered(12), 4, seed=3)
    first = order(batches, 0)
    assert len(batches) == 3 and [len(batch) for batch in first] == [4, 4, 4]
    assert sorted(sum(first, [])) == list(range(12)) and sum(first, []) != list(range(12))
    assert order(batches, 1) != first
    assert order(Batches(numbered(12), 4, seed=4), 0) != first
    torch.manual_seed(99)
    assert order(Batches(numbered(12), 4, seed=3), 0) == first


def test_batches_pair_images_with_their_labels():
    for batch in Batches(numbered(12), 5).epoch(0):
        assert batch.images.shape == (5, 1, 2, 3) and batch.images.dtype == torch.float32
        torch.testing.assert_close(batch.images[:, 0, 0, 0] * 255, batch.labels.float())
    unlabelled = ImageSet(numbered(12).images, None, "x")
    assert next(Batches(unlabelled, 5).epoch(0)).labels is None


def test_the_last_smaller_batch_is_left_out():
    batches = Batches(numbered(11), 4)
    assert len(batches) == 2 and [len(batch) for batch in order(batches, 0)] == [4, 4]
    assert len(set(sum((sum(order(batches, epoch), []) for epoch in range(9)), []))) == 11  # not the same three


def test_an_epoch_can_be_entered_in_the_middle():
    def shift(images, generator):
        return images + torch.rand(len(images), 1, 1, 1, generator=generator)

    batches = Batches(numbered(12), 4, augment=shift)
    whole, rest = list(batches.epoch(2)), list(batches.epoch(2, start=1))
    assert len(rest) == 2
    for batch, again in zip(whole[1:], rest, strict=True):
        assert torch.equal(batch.images, again.images) and torch.equal(batch.labels, again.labels)
    assert list(batches.epoch(2, start=3)) == []


def test_processes_share_a_batch_row_by_row():
    images = torch.randint(0, 255, (12, 1, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batches = Batches(ImageSet(images, torch.arange(12), "noise"), 6, augment=random_flip)
    whole = list(batches.epoch(1))
    for count in (2, 3):
        parts = [list(batches.epoch(1, shard=(i, count))) for i in range(count)]
        for step, batch in enumerate(whole):
            assert torch.equal(torch.cat([part[step].images for part in parts]), batch.images)
            assert torch.equal(torch.cat([part[step].labels for part in parts]), batch.labels)


@pytest.mark.parametrize("size", [11, 0])
def test_an_impossible_batch_is_one_sentence(size):
    with pytest.raises(CourseError) as error:
        Batches(numbered(10), size)
    one_sentence(error, str(size), "10")


def distinct(count: int = 400) -> torch.Tensor:
    """Images (count, 2, 5, 7) in which every pixel has a value of its own, and none is 0."""
    return torch.arange(1, 71).float().view(1, 2, 5, 7).repeat(count, 1, 1, 1)


def test_random_flip_mirrors_half_of_the_images_left_to_right():
    images = distinct()
    flipped = random_flip(images, generator_for("flip"))
    mirrored = (flipped == images.flip(3)).all((1, 2, 3))
    same = (flipped == images).all((1, 2, 3))
    assert (mirrored ^ same).all() and 150 < mirrored.sum() < 250
    assert torch.equal(flipped, random_flip(images, generator_for("flip")))


@pytest.mark.parametrize("pixels", [1, 2])
def test_random_shift_moves_whole_images_in_both_directions(pixels):
    images = distinct()
    shifted = random_shift(images, generator_for("shift"), pixels)
    candidates = {}
    for down in range(-pixels, pixels + 1):
        for right in range(-pixels, pixels + 1):
            moved = torch.zeros(2, 5, 7)
            moved[:, max(down, 0) : 5 + min(down, 0), max(right, 0) : 7 + min(right, 0)] = images[
                0, :, max(-down, 0) : 5 - max(down, 0), max(-right, 0) : 7 - max(right, 0)
            ]
            candidates[down, right] = moved
    seen = [next((k for k, v in candidates.items() if torch.equal(v, image)), None) for image in shifted]
    assert None not in seen and set(seen) == set(candidates)  # every shift occurs
    assert images.equal(distinct())
    assert torch.equal(shifted, random_shift(images, generator_for("shift"), pixels))


# --- a folder of images ---


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


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


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


BROKEN = {"truncated.jpg", str(Path("sub/cut.png")), "empty.png", "text.jpg"}


@pytest.mark.filterwarnings("error::UserWarning")
def test_readable_images_are_converted_and_the_others_skipped_and_listed_once(menagerie, capsys):
    loaded = load_image_folder(menagerie, 8)
    assert loaded.names == tuple(str(Path(name)) for name in GOOD)
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


# --- digits and MNIST ---


def test_digits_are_shaped_like_mnist_and_their_splits_share_nothing():
    train, test = load_digits("train"), load_digits("test")
    assert len(train) + len(test) == 1797 and len(test) == 360
    for part in (train, test):
        assert part.images.shape[1:] == (1, 28, 28) and part.images.dtype == torch.uint8
        assert part.labels.dtype == torch.int64 and set(part.labels.tolist()) == set(range(10))
        assert part.images.max() > 240 and part.images[:, :, :4].max() == 0
    as_bytes = [{bytes(image.flatten().tolist()) for image in part.images} for part in (train, test)]
    assert not as_bytes[0] & as_bytes[1]
    assert "scikit-learn" in train.source


@pytest.fixture
def offline(monkeypatch):
    """No network: whoever asks for it is noted and refused."""
    asked = []

    def refuse(url, *args, **kwargs):
        asked.append(url)
        raise urllib.request.URLError("no network here")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return asked


def write_mnist(folder: Path, train: int = 12, test: int = 5) -> None:
    """MNIST's four files with made-up images: image i is filled with i, and its label is i modulo 10."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", train), ("t10k", test)):
        values = np.arange(count, dtype=np.uint8)
        images = np.repeat(values, 28 * 28).tobytes()
        header = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (count, 28, 28))
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + images)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(
            b"\0\0\x08\x01" + count.to_bytes(4, "big") + (values % 10).tobytes()
        )


def test_the_quick_profile_uses_no_network_and_no_files(monkeypatch, tmp_path, offline):
    write_mnist(tmp_path / "MNIST" / "raw")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    loaded = load_mnist("test")
    assert torch.equal(loaded.images, load_digits("test").images) and "embedded" in loaded.source
    assert offline == []


def test_mnist_is_found_where_course_data_says(monkeypatch, tmp_path, offline):
    write_mnist(tmp_path / "MNIST" / "raw")
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    train, test = load_mnist("train"), load_mnist("test")
    assert train.images.shape == (12, 1, 28, 28) and test.images.shape == (5, 1, 28, 28)
    assert train.images[:, 0, 3, 4].tolist() == list(range(12)) and test.labels.tolist() == list(range(5))
    assert train.labels.dtype == torch.int64 and train.images.dtype == torch.uint8
    assert "MNIST" in train.source and str(tmp_path) not in train.source
    assert torch.equal(load_mnist("train", source="embedded").images, load_digits().images)
    assert offline == []


def test_mnist_that_cannot_be_had_is_one_sentence_and_never_something_else(monkeypatch, tmp_path, offline):
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    with pytest.raises(CourseError) as error:
        load_mnist()
    one_sentence(error, "no network here", "train-images-idx3-ubyte.gz", "source='embedded'", "COURSE_DATA")
    assert offline and not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("keep", [0, 10, 5000])
def test_a_truncated_mnist_file_is_one_sentence(monkeypatch, tmp_path, offline, keep):
    write_mnist(tmp_path / "MNIST" / "raw")
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:keep])
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    with pytest.raises(CourseError) as error:
        load_mnist("train")
    one_sentence(error, "MNIST/raw", "delete", "embedded")
    assert len(load_mnist("test")) == 5


@pytest.mark.parametrize("wrong", [{"split": "valid"}, {"source": "digits"}])
def test_a_wrong_argument_is_one_sentence(wrong):
    with pytest.raises(CourseError) as error:
        load_mnist(**wrong)
    one_sentence(error, next(iter(wrong)), next(iter(wrong.values())))


# --- downloads, from a server on this machine ---

BODY = b"course data " * 50_000
MD5 = hashlib.md5(BODY).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """/good gives the file; /cut half of it; /hang nothing; /stall half of it and then nothing."""

    released = threading.Event()
    files: dict[str, bytes] = {}

    def do_GET(self):
        if self.path == "/hang":
            self.released.wait(10)
            return
        body = self.files.get(self.path, BODY)
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path in ("/cut", "/stall") else body)
        if self.path == "/stall":
            self.wfile.flush()
            self.released.wait(10)

    def log_message(self, *args):
        pass


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    """A proxy that the environment names does not know the servers of these tests."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server():
    """The address of a running server."""
    Handler.released.clear()
    Handler.files = {}
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}/"
    Handler.released.set()
    running.shutdown()
    thread.join()
    running.server_close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_good_download(server, tmp_path):
    assert data.download(server + "good", tmp_path / "new" / "file", MD5) == tmp_path / "new" / "file"
    assert (tmp_path / "new" / "file").read_bytes() == BODY
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("page", "md5", "words"),
    [
        ("good", "0" * 32, ("checksum", "0" * 32)),
        ("cut", MD5, ()),
        ("missing", MD5, ("404",)),
        ("hang", MD5, ("timed out",)),
        ("stall", MD5, ("timed out",)),
    ],
)
def test_a_failed_download_says_what_and_leaves_nothing(server, tmp_path, monkeypatch, page, md5, words):
    monkeypatch.setattr(data, "CONNECT_TIMEOUT", 0.3)
    start = time.monotonic()
    with pytest.raises(CourseError) as error:
        data.download(server + page, tmp_path / "file", md5)
    one_sentence(error, server + page, "try again", *words)
    assert time.monotonic() - start < 5
    assert list(tmp_path.iterdir()) == []


def test_a_refused_connection_says_so(tmp_path):
    with pytest.raises(CourseError) as error:
        data.download(f"http://127.0.0.1:{free_port()}/x", tmp_path / "file", MD5)
    one_sentence(error, "127.0.0.1", "refused", "check the connection")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_download_spares_the_file_that_was_there(server, tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(CourseError):
        data.download(server + "good", tmp_path / "file", "0" * 32)
    assert (tmp_path / "file").read_text() == "old"


def test_a_folder_that_cannot_be_made_is_one_sentence(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CourseError) as error:
        data.download(server + "good", tmp_path / "file" / "MNIST" / "x", MD5)
    one_sentence(error, server + "good")


@pytest.fixture
def mnist_server(server, monkeypatch, tmp_path):
    """A server that has a small MNIST; the folder where it should arrive."""
    write_mnist(tmp_path / "origin")
    packed = {f"/{p.name}.gz": gzip.compress(p.read_bytes()) for p in (tmp_path / "origin").iterdir()}
    monkeypatch.setattr(Handler, "files", packed)
    monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{free_port()}/", server])
    monkeypatch.setattr(MNIST, "resources", [(k[1:], hashlib.md5(v).hexdigest()) for k, v in sorted(packed.items())])
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "data"))
    return tmp_path / "data" / "MNIST" / "raw"


def test_mnist_is_downloaded_from_the_mirror_that_works(mnist_server):
    loaded = load_mnist()
    assert loaded.images[:, 0, 0, 0].tolist() == list(range(12)) and "downloaded" in loaded.source
    assert sorted(path.suffix for path in mnist_server.iterdir()) == [""] * 4
    assert "found" in load_mnist("test").source


def test_mnist_files_put_there_by_hand_are_taken(mnist_server, offline):
    mnist_server.mkdir(parents=True)
    for name, body in Handler.files.items():
        (mnist_server / name[1:]).write_bytes(body)
    assert len(load_mnist()) == 12 and offline == []


def test_a_broken_file_put_there_by_hand_is_downloaded(mnist_server):
    mnist_server.mkdir(parents=True)
    (mnist_server / "train-images-idx3-ubyte.gz").write_bytes(b"half a file")
    assert len(load_mnist()) == 12
