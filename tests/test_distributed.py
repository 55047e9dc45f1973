"""Two CPU processes (gloo) train like one: `python -m tests.test_distributed FOLDER` is one of them."""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import pytest
import torch

from helpers import CourseError, trainer
from helpers.checkpoints import read_tensors, write_tensors
from helpers.conv_vae import ConvVAE, VAEConfig, image_loss
from helpers.data import ImageSet, crop_and_flip, random_shift
from tests.small_training import small_fit, small_model, squares, vae_loss
from tests.tools.common import ROOT

pytestmark = pytest.mark.slow

CASES = {
    "plain": {},
    "augmented": {"augment": random_shift},
    "conv": {"augment": partial(crop_and_flip, size=24), "accumulate": 2, "ema": 0.9, "lr": 1e-3},
}


def colour(data: ImageSet) -> ImageSet:
    return replace(data, images=data.images.repeat(1, 3, 1, 1))


def train(case: str, folder: Path, rank: int) -> None:
    """Train, and leave weights and losses as files of this process."""
    model, data, loss = small_model(), squares(), vae_loss
    options = {"validation": squares(30, seed=2), "run": f"{case}-run", "checkpoint_seconds": 0.0}
    if case == "conv":
        torch.manual_seed(1)
        model, loss = ConvVAE(VAEConfig((8, 8), latent_channels=2, blocks=1, groups=2)), image_loss
        data, options["validation"] = (colour(squares(count, seed)) for count, seed in ((100, 0), (30, 2)))
    history = small_fit(model, loss, data, **options, **CASES[case])
    write_tensors(folder / f"{case}-{rank}.safetensors", model.state_dict(), {"rows": history.rows})


left = {"steps": 0}  # before the ctrl-C; a dict is no part of a run's fingerprint


def stop_second(model, batch, generator):
    """`vae_loss`; ctrl-C reaches the second process alone."""
    if model.training:
        left["steps"] -= 1
        if not left["steps"] and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGINT)
    return vae_loss(model, batch, generator)


def process(folder: Path) -> None:
    """What each of the processes does."""
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    with mock.patch.object(trainer, "write_tensors", wraps=trainer.write_tensors) as write:
        for case in CASES:
            train(case, folder, rank)
    (folder / f"writes-{rank}").write_text(str(write.call_count))
    left["steps"] = 8
    try:
        small_fit(small_model(), stop_second, run="stopped")
    except KeyboardInterrupt as stop:
        (folder / f"stopped-{rank}").write_text(str(stop))
    try:
        small_fit(small_model(), batch_size=15)
    except CourseError as error:
        (folder / f"error-{rank}").write_text(str(error))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder in which two processes, and then one, have left what they trained; and what the two printed."""
    folder = tmp_path_factory.mktemp("distributed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
              "COURSE_RUNS": str(folder / "runs"), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}  # fmt: skip
    pair = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.test_distributed", str(folder)],
            cwd=ROOT,
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        for rank in (0, 1)
    ]
    try:
        printed = [process.communicate(timeout=100)[0] for process in pair]
    finally:
        for process in pair:
            process.kill()
    assert [process.returncode for process in pair] == [0, 0], "\n".join(printed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_RUNS", str(folder / "alone"))
        for case in CASES:
            train(case, folder, 9)
    return folder, printed


@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_the_losses_and_weights_of_one(trained, case):
    folder, _ = trained
    first, second, alone = (read_tensors(folder / f"{case}-{rank}.safetensors") for rank in (0, 1, 9))
    for name, weight in alone[0].items():
        assert torch.equal(first[0][name], second[0][name])
        torch.testing.assert_close(first[0][name], weight, rtol=1e-5, atol=1e-5)
    for rows in (first[1]["rows"], second[1]["rows"]):
        for row, truth in zip(rows, alone[1]["rows"], strict=True):
            assert {k: v for k, v in row.items() if k != "seconds"} == pytest.approx(
                {k: v for k, v in truth.items() if k != "seconds"}, rel=1e-5
            )


def test_the_cases_differ(trained):
    folder, _ = trained
    plain, augmented = (read_tensors(folder / f"{case}-0.safetensors")[0] for case in ("plain", "augmented"))
    assert not torch.equal(plain["encoder.0.weight"], augmented["encoder.0.weight"])


@pytest.mark.parametrize("case", CASES)
def test_only_the_first_process_writes(trained, case):
    folder, _ = trained
    (run,) = (folder / "runs" / f"{case}-run").iterdir()
    names = sorted(path.name for path in run.iterdir())
    assert names == ["best.safetensors", "fingerprint.json", "history.csv", "last.safetensors"]
    assert len((run / "history.csv").read_text().splitlines()) == 4
    assert int((folder / "writes-0").read_text()) > 0 == int((folder / "writes-1").read_text())
    assert set(json.loads((run / "fingerprint.json").read_text())) == {"configuration", "code", "data"}


def test_a_batch_that_cannot_be_shared_is_one_sentence_in_each_process(trained):
    folder, _ = trained
    texts = {(folder / f"error-{rank}").read_text() for rank in (0, 1)}
    assert texts == {"A batch of 15 cannot be shared by 2 processes."}


def test_a_ctrl_c_in_one_process_stops_both_at_the_same_step(trained):
    folder, _ = trained
    texts = {(folder / f"stopped-{rank}").read_text() for rank in (0, 1)}
    assert texts == {"stopped after 1 epochs and 2 steps; the weights are usable"}
    (last,) = (folder / "runs" / "stopped").glob("*/last.safetensors")
    header = read_tensors(last)[1]
    assert (header["epoch"], header["step"]) == (1, 2)


def test_the_processes_say_nothing_twice(trained):
    _, printed = trained
    assert "Traceback" not in "".join(printed) and "afresh" not in "".join(printed)


if __name__ == "__main__":
    process(Path(sys.argv[1]))
