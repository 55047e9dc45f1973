"""MNIST and Imagewoof from a server on this machine, with all that can go wrong on the way."""

import functools
import gzip
import hashlib
import http.server
import io
import multiprocessing
import os
import shutil
import socket
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest
from torchvision.datasets import MNIST, utils

from helpers import CourseError, env
from helpers.data import downloads
from helpers.data.datasets import load_dogs, load_mnist
from tests.data.small_data import noise, one_sentence, refuse_network, write_mnist


class Server(http.server.ThreadingHTTPServer):
    """Gives `files`, or does what `fault` says."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.fault = ""
        self.released = threading.Event()
        self.address = f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, request, client_address):
        """A client that leaves early is no news."""


class Handler(http.server.BaseHTTPRequestHandler):
    """cut: half of the file.  hang: nothing.  stall: half of the file and then nothing."""

    server: Server

    def do_GET(self):
        if self.server.fault == "hang":
            self.server.released.wait(10)
            return
        body = self.server.files.get(self.path[1:])
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        half = self.server.fault in ("cut", "stall")
        self.wfile.write(body[: len(body) // 2] if half else body)
        if self.server.fault == "stall":
            self.wfile.flush()
            self.server.released.wait(10)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A running server with a small MNIST and a small Imagewoof, and an empty COURSE_DATA."""
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")  # no proxy of this machine knows the server
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "data"))
    serve_mnist(running, monkeypatch, tmp_path)
    serve_imagewoof(running, monkeypatch, archive())
    yield running
    running.released.set()
    running.shutdown()
    thread.join()
    running.server_close()


def serve_mnist(server: Server, monkeypatch, tmp_path: Path) -> None:
    write_mnist(tmp_path / "origin", monkeypatch)
    for path in (tmp_path / "origin").iterdir():
        server.files[f"{path.name}.gz"] = gzip.compress(path.read_bytes())
    checksums = [(name, hashlib.md5(body).hexdigest()) for name, body in server.files.items()]
    monkeypatch.setattr(MNIST, "resources", checksums)
    monkeypatch.setattr(MNIST, "mirrors", [closed_port(), server.address])


def closed_port() -> str:
    """An address where nobody answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"


PHOTOS = [
    f"imagewoof2-160/{part}/n02086240/{i}.JPEG" for part in ("train", "val") for i in range(60)
]


@functools.cache
def archive() -> bytes:
    """A small imagewoof2-160.tgz of photos 13×9."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for i, name in enumerate(PHOTOS):
            photo = io.BytesIO()
            noise(13, 9, seed=i).save(photo, "JPEG")
            info = tarfile.TarInfo(name)
            info.size = len(photo.getvalue())
            tar.addfile(info, io.BytesIO(photo.getvalue()))
    return gzip.compress(packed.getvalue())


def serve_imagewoof(server: Server, monkeypatch, packed: bytes) -> None:
    digest = hashlib.md5(packed).hexdigest()
    server.files |= {f"{name}.tgz": packed for name in downloads.IMAGEWOOF_MD5}
    monkeypatch.setattr(downloads, "IMAGEWOOF", server.address)
    monkeypatch.setattr(downloads, "IMAGEWOOF_MD5", dict.fromkeys(downloads.IMAGEWOOF_MD5, digest))


@pytest.fixture
def raw(server, tmp_path) -> Path:
    """Where MNIST arrives."""
    return tmp_path / "data" / "MNIST" / "raw"


@pytest.fixture
def kennel(server, tmp_path) -> Path:
    """Where Imagewoof arrives."""
    return tmp_path / "data"


# --- MNIST ---


def test_mnist_is_downloaded_once_from_the_mirror_that_works(raw, monkeypatch):
    loaded = load_mnist()
    assert loaded.images[:, 0, 0, 0].tolist() == list(range(12)) and "downloaded" in loaded.source
    names = [path.name for path in raw.iterdir()]
    assert sorted(names) == sorted(name.removesuffix(".gz") for name, _ in MNIST.resources)

    asked = refuse_network(monkeypatch)
    assert "found" in load_mnist("test").source and asked == []


def test_mnist_files_put_there_by_hand_are_taken(server, raw, monkeypatch):
    asked = refuse_network(monkeypatch)
    raw.mkdir(parents=True)
    for name, _ in MNIST.resources:
        (raw / name).write_bytes(server.files[name])
    assert len(load_mnist()) == 12 and asked == []
    assert not list(raw.glob("*.gz"))


def test_a_broken_file_put_there_by_hand_is_downloaded(raw):
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte.gz").write_bytes(b"half a file")
    assert len(load_mnist()) == 12 and len(list(raw.iterdir())) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a fork may fail")
def test_notebooks_that_start_together_all_get_mnist_and_dogs(server, raw, kennel, tmp_path):
    fork = multiprocessing.get_context("fork")
    together = fork.Barrier(3)
    results = fork.SimpleQueue()

    def start() -> None:
        together.wait(20)
        try:
            results.put((len(load_mnist()), len(load_mnist("test")), len(load_dogs(8).names) > 0))
        except BaseException as error:
            results.put(repr(error))

    children = [fork.Process(target=start) for _ in range(3)]
    for child in children:
        child.start()
    got = [results.get() for _ in children]
    for child in children:
        child.join(20)
    assert got == [(12, 5, True)] * 3
    assert len(list(raw.iterdir())) == 4
    assert sorted(path.name for path in kennel.iterdir()) == ["MNIST", "imagewoof2-160"]


def test_what_another_notebook_brought_while_this_one_failed_is_found(server, raw, monkeypatch):
    real = MNIST.download
    calls = []

    def download(mnist):
        calls.append(mnist)
        if len(calls) == 1:
            assert downloads.fetch_mnist(raw.parents[1]) == "downloaded"  # the other one
            raise OSError("the connection broke")
        real(mnist)

    monkeypatch.setattr(MNIST, "download", download)
    assert len(load_mnist()) == 12 and len(calls) == 2 and len(list(raw.iterdir())) == 4


def test_files_put_there_by_hand_may_be_taken_by_another_notebook(server, raw, monkeypatch):
    asked = refuse_network(monkeypatch)
    raw.mkdir(parents=True)
    for name, _ in MNIST.resources:
        (raw / name).write_bytes(server.files[name])
    real = shutil.copy

    def copy(source, target):
        monkeypatch.setattr(shutil, "copy", real)
        assert downloads.fetch_mnist(raw.parents[1]) == "downloaded"  # the other one
        return real(source, target)

    monkeypatch.setattr(shutil, "copy", copy)
    assert len(load_mnist()) == 12 and len(list(raw.iterdir())) == 4
    assert len(asked) <= 2  # of this one, which finds no archive any more; one for each mirror


# --- Imagewoof ---


def test_imagewoof_is_downloaded_once_and_unpacked(kennel, monkeypatch, capsys):
    train = load_dogs(8)
    assert train.source == f"{len(train)} photos of Imagewoof-160, downloaded in COURSE_DATA"
    assert [path.name for path in kennel.iterdir()] == ["imagewoof2-160"]  # no archive, no scratch
    told = capsys.readouterr().out
    assert told.count("\n") == 1 and "imagewoof2-160.tgz" in told

    asked = refuse_network(monkeypatch)
    parts = [load_dogs(8, split) for split in ("train", "validation", "test")]
    assert "Imagewoof-160, found in COURSE_DATA" in parts[0].source
    assert parts[0].images.equal(train.images)
    names = sorted(f"imagewoof2-160/{name}" for part in parts for name in part.names)
    assert names == sorted(PHOTOS) and asked == [] and capsys.readouterr().out == ""


def test_large_pictures_come_from_the_larger_imagewoof(kennel, monkeypatch):
    asked = refuse_network(monkeypatch)
    for resolution in (160, 161):
        with pytest.raises(CourseError):
            load_dogs(resolution)
    assert [page[-7:] for page in asked] == ["160.tgz", "320.tgz"]


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


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        ("refused", "refused"),
        ("missing", "404"),
        ("cut", "corrupted"),
        ("checksum", "corrupted"),
        ("hang", "timed out"),
        ("stall", "timed out"),
        ("no folder", "imagewoof2-160"),
    ],
)
def test_imagewoof_that_cannot_be_had_is_one_sentence_and_leaves_nothing(
    server, kennel, monkeypatch, fault, word
):
    server.fault = fault
    if fault == "refused":
        monkeypatch.setattr(downloads, "IMAGEWOOF", closed_port())
    if fault == "missing":
        server.files.clear()
    if fault == "checksum":
        server.files["imagewoof2-160.tgz"] = b"something else"
    if fault == "no folder":
        serve_imagewoof(server, monkeypatch, gzip.compress(bytes(10240)))
    if fault in ("hang", "stall"):
        monkeypatch.setattr(env, "CONNECT_TIMEOUT", 0.2)

    with pytest.raises(CourseError) as error:
        load_dogs(8)
    advice = ("COURSE_DATA/dogs", "imagewoof2-160.tgz", "source='embedded'")
    one_sentence(error, "Imagewoof could not be downloaded", word, *advice)
    assert list(kennel.iterdir()) == []
    assert socket.getdefaulttimeout() is None  # as it was


def test_a_folder_that_cannot_be_made_is_one_sentence(kennel):
    kennel.write_text("in the way")
    for load in (load_dogs, load_mnist):
        with pytest.raises(CourseError) as error:
            load()
        one_sentence(error, "source='embedded'")


def test_a_kill_while_unpacking_leaves_no_half_folder(kennel, monkeypatch):
    def killed(*args, **kwargs):
        (scratch,) = kennel.iterdir()
        assert scratch.name.startswith("download.") and scratch.suffix == ".part"
        (kennel / "download.killed__.part").mkdir()  # what SIGKILL would leave
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(utils, "extract_archive", killed)
        load_dogs(8)
    (left,) = kennel.iterdir()
    assert left.name == "download.killed__.part"

    target = kennel / "imagewoof2-160"
    assert downloads.fetch_imagewoof(target) == "downloaded"
    assert left.exists()  # that process may be at work still
    target.rename(kennel / "elsewhere")
    os.utime(left, (time.time() - 90_000,) * 2)  # more than a day ago
    assert downloads.fetch_imagewoof(target) == "downloaded" and not left.exists()


def test_another_process_may_be_faster(kennel, monkeypatch):
    target = kennel / "imagewoof2-160"

    def meanwhile(packed, scratch):
        target.mkdir()
        (target / "theirs").touch()
        (scratch / target.name).mkdir()
        (scratch / target.name / "ours").touch()

    monkeypatch.setattr(utils, "extract_archive", meanwhile)
    assert downloads.fetch_imagewoof(target) == "downloaded"
    assert [path.name for path in target.iterdir()] == ["theirs"]
    assert [path.name for path in kennel.iterdir()] == [target.name]
