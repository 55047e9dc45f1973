"""Downloads from a server on this machine, good ones and all kinds of bad ones; MNIST and Imagewoof from there."""

import gzip
import hashlib
import http.server
import io
import os
import socket
import tarfile
import threading
import time
from pathlib import Path

import pytest
from PIL import Image
from torchvision.datasets import MNIST

from helpers import CourseError, downloads
from helpers.data import load_dogs, load_mnist
from tests.small_data import noise, one_sentence, refuse_network, write_mnist

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
    assert downloads.download(server + "good", tmp_path / "new" / "file", MD5) == tmp_path / "new" / "file"
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
    monkeypatch.setattr(downloads, "CONNECT_TIMEOUT", 0.3)
    start = time.monotonic()
    with pytest.raises(CourseError) as error:
        downloads.download(server + page, tmp_path / "file", md5)
    one_sentence(error, server + page, "try again", *words)
    assert time.monotonic() - start < 5
    assert list(tmp_path.iterdir()) == []


def test_a_refused_connection_says_so(tmp_path):
    with pytest.raises(CourseError) as error:
        downloads.download(f"http://127.0.0.1:{free_port()}/x", tmp_path / "file", MD5)
    one_sentence(error, "127.0.0.1", "refused", "check the connection")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_download_spares_the_file_that_was_there(server, tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(CourseError):
        downloads.download(server + "good", tmp_path / "file", "0" * 32)
    assert (tmp_path / "file").read_text() == "old"


def test_a_folder_that_cannot_be_made_is_one_sentence(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CourseError) as error:
        downloads.download(server + "good", tmp_path / "file" / "MNIST" / "x", MD5)
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


def test_mnist_files_put_there_by_hand_are_taken(mnist_server, monkeypatch):
    offline = refuse_network(monkeypatch)
    mnist_server.mkdir(parents=True)
    for name, body in Handler.files.items():
        (mnist_server / name[1:]).write_bytes(body)
    assert len(load_mnist()) == 12 and offline == []


def test_a_broken_file_put_there_by_hand_is_downloaded(mnist_server):
    mnist_server.mkdir(parents=True)
    (mnist_server / "train-images-idx3-ubyte.gz").write_bytes(b"half a file")
    assert len(load_mnist()) == 12


# --- Imagewoof ---

PHOTOS = [f"imagewoof2-160/{part}/n02086240/{i}.JPEG" for part in ("train", "val") for i in range(60)]


def archive(*extra: tarfile.TarInfo) -> bytes:
    """A small imagewoof2-160.tgz of photos 13×9, the same bytes at every call."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for i, name in enumerate(PHOTOS):
            photo = io.BytesIO()
            noise(13, 9, seed=i).save(photo, "JPEG")
            info = tarfile.TarInfo(name)
            info.size = len(photo.getvalue())
            tar.addfile(info, io.BytesIO(photo.getvalue()))
        for info in extra:
            tar.addfile(info)
    return gzip.compress(packed.getvalue(), mtime=0)


@pytest.fixture
def kennel(server, monkeypatch, tmp_path):
    """A server that has a small Imagewoof, called by both of its names; the folder where it should arrive."""
    serve(monkeypatch, archive())
    monkeypatch.setattr(downloads, "IMAGEWOOF", server)
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def serve(monkeypatch, packed: bytes) -> None:
    monkeypatch.setattr(Handler, "files", {f"/{name}.tgz": packed for name in downloads.IMAGEWOOF_MD5})
    digest = hashlib.md5(packed).hexdigest()
    monkeypatch.setattr(downloads, "IMAGEWOOF_MD5", dict.fromkeys(downloads.IMAGEWOOF_MD5, digest))


def test_imagewoof_is_downloaded_once_and_unpacked(kennel, monkeypatch, capsys):
    train = load_dogs(8)
    assert "Imagewoof-160, downloaded in COURSE_DATA" in train.source and f"{len(train)} photos" in train.source
    assert [path.name for path in kennel.iterdir()] == ["imagewoof2-160"]  # no archive, no scratch
    told = capsys.readouterr().out
    assert told.count("\n") == 1 and "imagewoof2-160.tgz" in told
    asked = refuse_network(monkeypatch)
    parts = [load_dogs(8, split) for split in ("train", "validation", "test")]
    assert "Imagewoof-160, found in COURSE_DATA" in parts[0].source and parts[0].images.equal(train.images)
    names = sorted(f"imagewoof2-160/{name}" for part in parts for name in part.names)
    assert names == sorted(PHOTOS) and asked == [] and capsys.readouterr().out == ""


def test_large_pictures_come_from_the_larger_imagewoof(kennel, monkeypatch):
    monkeypatch.setattr(downloads, "download", lambda url, path, md5: pytest.fail(url))
    for resolution, name in ((160, "imagewoof2-160.tgz"), (161, "imagewoof2-320.tgz"), (256, "imagewoof2-320.tgz")):
        with pytest.raises(pytest.fail.Exception, match=name):
            load_dogs(resolution)


def test_an_archive_put_there_by_hand_is_taken(kennel, monkeypatch, capsys):
    asked = refuse_network(monkeypatch)
    kennel.mkdir()
    (kennel / "imagewoof2-160.tgz").write_bytes(archive())
    assert "Imagewoof" in load_dogs(8).source and asked == [] and capsys.readouterr().out == ""
    assert [path.name for path in kennel.iterdir()] == ["imagewoof2-160"]


def test_half_an_archive_put_there_by_hand_is_downloaded_instead(kennel):
    kennel.mkdir()
    (kennel / "imagewoof2-160.tgz").write_bytes(archive()[:1000])
    assert "downloaded" in load_dogs(8).source


def test_photos_of_your_own_come_first(kennel, monkeypatch):
    asked = refuse_network(monkeypatch)
    (kennel / "dogs").mkdir(parents=True)
    for i in range(40):
        noise(10, 12, seed=i).save(kennel / "dogs" / f"{i}.png")
    assert load_dogs(8).source.endswith("photos of folder dogs (COURSE_DATA)") and asked == []


@pytest.mark.parametrize("fault", ["no network", "checksum", "no archive", "outside", "no folder"])
def test_imagewoof_that_cannot_be_had_is_one_sentence_and_leaves_nothing(kennel, monkeypatch, fault):
    outside = tarfile.TarInfo("../outside")
    serve(monkeypatch, {"no archive": b"no archive", "outside": archive(outside),
                        "no folder": gzip.compress(bytes(10240))}.get(fault, archive()))  # fmt: skip
    if fault == "no network":
        refuse_network(monkeypatch)
    elif fault == "checksum":
        monkeypatch.setattr(downloads, "IMAGEWOOF_MD5", dict.fromkeys(downloads.IMAGEWOOF_MD5, "0" * 32))
    with pytest.raises(CourseError) as error:
        load_dogs(8)
    one_sentence(error, "Imagewoof", "COURSE_DATA/dogs", "source='embedded'", "imagewoof2-160.tgz")
    assert fault not in ("no network", "checksum") or fault in str(error.value)
    assert list(kennel.iterdir()) == []


def test_a_kill_while_unpacking_leaves_no_half_folder(kennel, monkeypatch):
    def killed(*args, **kwargs):
        (scratch,) = kennel.iterdir()
        assert scratch.name.startswith("imagewoof2-160.") and scratch.suffix == ".part"
        (kennel / "imagewoof2-160.killed.part").mkdir()  # what SIGKILL would leave
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tarfile.TarFile, "extractall", killed)
        load_dogs(8)
    (left,) = kennel.iterdir()
    assert "downloaded" in load_dogs(8).source
    assert sorted(path.name for path in kennel.iterdir()) == ["imagewoof2-160", left.name]  # it may be at work still
    (kennel / "imagewoof2-160").rename(kennel / "gone")
    os.utime(left, (time.time() - 7200,) * 2)
    assert "downloaded" in load_dogs(8).source and not left.exists()


def test_another_process_may_be_faster(kennel, monkeypatch):
    def meanwhile(archive, path):
        (kennel / "imagewoof2-160" / "train").mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(kennel / "imagewoof2-160" / "train" / "1.png")
        (Path(path) / "imagewoof2-160" / "train").mkdir(parents=True)

    monkeypatch.setattr(tarfile.TarFile, "extractall", meanwhile)
    assert downloads.fetch_imagewoof(kennel / "imagewoof2-160") == "downloaded"
    assert [path.name for path in (kennel / "imagewoof2-160" / "train").iterdir()] == ["1.png"]
