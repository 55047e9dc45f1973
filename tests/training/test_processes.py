"""`fit` in processes of its own: killed twenty times, and two of them train like one."""

import csv
import json
import random
import signal
import socket
import sys
from pathlib import Path

import pytest
import torch

from helpers.data.splits import split_of
from helpers.env import runs_dir
from helpers.training.checkpoints import read_tensors
from tests.data.small_data import noise
from tests.training import children
from tests.training.fork_server import ForkServer
from tests.training.small_training import STEPS_PER_EPOCH, equal, timeless

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has imported torch"),
]


@pytest.fixture(scope="module")
def server():
    """Runs the functions of `children`."""
    server = ForkServer("tests.training.children")
    yield server
    server.close()


# --- twenty times SIGKILL ---

KILLS = 20
POINTS = (
    "step",
    "half",
    "replace",
)  # in a step, in a half-written file, before a file has its name


def kill_points() -> list[tuple[str, int]]:
    """Where each start dies, and at the how many-th time it comes there."""
    moments = random.Random(0)
    return [(POINTS[number % len(POINTS)], moments.randint(2, 4)) for number in range(KILLS)]


def position(run: Path) -> int:
    """The steps that a run's checkpoint holds; its other files are whole, too."""
    for file in run.glob("*/best.safetensors"):
        read_tensors(file)
    found = list(run.glob("*/last.safetensors"))
    assert len(found) <= 1, "a resumed run started afresh"
    if not found:
        return 0
    _, header = read_tensors(found[0])
    return header["epoch"] * STEPS_PER_EPOCH + header["step"]


@pytest.fixture(scope="module")
def starts(server, tmp_path_factory):
    """(exit code, steps saved, files cut off) of each start; the last one is not killed."""
    runs = tmp_path_factory.mktemp("runs")
    found = []
    for point in [*kill_points(), ("", 0)]:
        before = set(runs.rglob("*.part"))
        job = {"function": "train_until", "arguments": point, "output": str(runs / "output")}
        (code,) = server.call(job | {"environment": {"COURSE_RUNS": str(runs)}})
        found.append((code, position(runs / "killed"), len(set(runs.rglob("*.part")) - before)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_RUNS", str(runs))
        yield found


def test_every_kill_leaves_whole_files_and_the_steps_before_it(starts):
    codes, positions, cut_off = zip(*starts, strict=True)
    assert codes == (*KILLS * [-signal.SIGKILL], 0)
    assert list(positions) == sorted(positions) and len(set(positions)) > KILLS / 2
    assert positions[-1] == children.EPOCHS * STEPS_PER_EPOCH > positions[-2]
    hit = [number for number, (point, _) in enumerate(kill_points()) if point != "step"]
    assert [number for number in range(KILLS) if cut_off[number]] == hit


def test_the_killed_run_ends_like_an_undisturbed_one(starts, capsys):
    truth, whole = children.train("undisturbed")
    model, history = children.train("killed")
    assert "finished and loaded" in capsys.readouterr().out, "another process knows the run again"
    assert timeless(history.rows) == timeless(whole.rows) and equal(model, truth)
    states = []
    for run in ("undisturbed", "killed"):
        (file,) = (runs_dir() / run).glob("*/last.safetensors")
        states.append(read_tensors(file)[0])
    one, other = states  # Adam's moments, the averages and the dropout's generator too
    assert set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


# --- a machine that knows no UTF-8 ---


def write_photos(folder: Path) -> None:
    """Photographs for every split, and a file that is none."""
    folder.mkdir()
    wanted = {"train": 32, "validation": 6, "test": 8, "none": 1}
    number = 0
    while any(wanted.values()):
        number += 1
        path = folder / f"{number}.png"
        split = split_of(path.name)
        if wanted[split]:
            noise(20, 24, seed=number).save(path)
        elif split == "train" and wanted["none"]:
            split = "none"
            path.write_bytes(b"no picture")
        wanted[split] = max(0, wanted[split] - 1)


def test_a_vae_is_trained_and_exported_where_nothing_is_utf_8(server, tmp_path):
    photos = tmp_path / "größe é"
    write_photos(photos)
    broken = next(photos.glob("*.png"))
    broken.write_bytes(b"no picture")
    broken.rename(photos / f"é {broken.name}")
    job = {"function": "train_in_c_locale", "arguments": [str(photos)]}
    job |= {"output": str(tmp_path / "output"), "environment": {"COURSE_BUILD": str(tmp_path)}}
    codes = server.call(job)
    said = (tmp_path / "output").read_text(encoding="cp932")
    assert codes == [0] and "skipped" in said and "folder gr??e ?" in said, said
    card = (tmp_path / "checkpoints" / "mine.md").read_text(encoding="utf-8")
    assert "16×16 pixels" in card and "größe é" in card
    assert len(list((tmp_path / "runs" / "mine").glob("*/fingerprint.json"))) == 1


# --- two CPU processes (gloo) ---


@pytest.fixture(scope="module")
def folder(server, tmp_path_factory):
    """Where two processes, and then one, have left what they trained and printed."""
    folder = tmp_path_factory.mktemp("pair")
    write_photos(folder / "photos")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])

    # as `accelerate launch` sets it
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    common |= {"MASTER_PORT": port, "COURSE_BUILD": str(folder / "pair")}
    pair = [
        {
            "function": "share_and_fail",
            "arguments": [str(folder)],
            "environment": common | {"RANK": rank, "LOCAL_RANK": rank},
            "output": str(folder / f"printed-{rank}"),
        }
        for rank in ("0", "1")
    ]
    alone = {
        "function": "share",
        "arguments": [str(folder)],
        "environment": {"COURSE_BUILD": str(folder / "alone")},
        "output": str(folder / "printed-alone"),
    }
    codes = server.call(*pair, alone)
    assert codes == [0, 0, 0], [path.read_text() for path in folder.glob("printed-*")]
    return folder


def same_rows(one: list[dict], other: list[dict]) -> bool:
    """Equal but for the seconds, and for sums that are added in another order."""
    pairs = zip(timeless(one), timeless(other), strict=True)
    return all(a == pytest.approx(b, rel=1e-5) for a, b in pairs)


def test_two_processes_give_the_losses_and_weights_of_one(folder):
    files = [read_tensors(folder / f"fit-{rank}.safetensors") for rank in ("0", "1", "alone")]
    (first, header), (second, second_header), (alone, expected) = files
    for name, weight in alone.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], weight, rtol=1e-5, atol=1e-5)
    assert same_rows(header["rows"], expected["rows"])
    assert same_rows(second_header["rows"], expected["rows"])


def test_the_command_in_two_processes_gives_the_weights_and_figures_of_one(folder):
    made = [folder / place / "checkpoints" / "tiny.safetensors" for place in ("pair", "alone")]
    (weights, header), (truth, expected) = map(read_tensors, made)
    for name, weight in truth.items():
        torch.testing.assert_close(weights[name], weight, rtol=2e-3, atol=2e-3)  # they are fp16
    assert header["figures"].pop("source") == expected["figures"].pop("source")
    assert header["figures"] == pytest.approx(expected["figures"], rel=1e-3)


def test_only_the_first_process_prints_and_nothing_twice(folder):
    first, second = ((folder / f"printed-{rank}").read_text() for rank in ("0", "1"))
    assert all(first.count(word) == 1 for word in ("skipped", "PSNR", "written")), first
    assert not any(word in first for word in ("Traceback", "afresh", "Warning")) and not second


@pytest.mark.parametrize("run", ["fit", "train_vae"])
def test_only_the_first_process_writes(folder, run):
    (table,) = (folder / "pair" / "runs" / run).glob("*/history.csv")
    names = sorted(path.name for path in table.parent.iterdir())
    assert names == ["best.safetensors", "fingerprint.json", "history.csv", "last.safetensors"]
    assert [int(row["epoch"]) for row in csv.DictReader(table.open())] == [1, 2, 3]
    headers = [read_tensors(folder / f"fit-{rank}.safetensors")[1] for rank in (0, 1)]
    assert headers[0]["writes"] > 0 == headers[1]["writes"]


def test_what_stops_one_process_stops_both(folder):
    one, other = (json.loads((folder / f"said-{rank}.json").read_text()) for rank in (0, 1))
    assert (
        one
        == other
        == {
            "stop": "stopped after 1 epochs and 2 steps; the weights are usable",
            "error": "A batch of 15 cannot be shared by 2 processes.",
        }
    )
    (last,) = (folder / "pair" / "runs" / "stopped").glob("*/last.safetensors")
    header = read_tensors(last)[1]
    assert (header["epoch"], header["step"]) == (1, 2)
