"""Twenty times SIGKILL: no broken checkpoint, and in the end the weights of an undisturbed run.

A server process imports torch once and forks a child for each start of the training, so that a start takes
milliseconds: `python -m tests.test_kill` is that server.  The child may go only a few steps further than the test
has seen, so that a busy machine cannot let it slip past its kill.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from helpers import checkpoints
from tests.small_training import STEPS_PER_EPOCH, DropoutVAE, small_fit, small_model, squares, vae_loss
from tests.tools.common import ROOT

EPOCHS, KILLS = 20, 20
STEPS = EPOCHS * STEPS_PER_EPOCH
SPACING, SLACK = 5, 3  # steps from one kill to the next; how far the child may go while the test looks away

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has imported torch"),
]


def telling_loss(model, batch, generator):
    """`vae_loss` that waits for leave before each training step, and writes a line for it."""
    if model.training:
        os.read(0, 1)
        os.write(1, b"step\n")
    return vae_loss(model, batch, generator)


def train(run: str):
    """The training that is killed: dropout, validation, and a checkpoint after every step."""
    model = small_model(DropoutVAE)
    torch.manual_seed(3)
    data, held_out = squares(), squares(20, seed=1)
    small_fit(model, telling_loss, data, epochs=EPOCHS, validation=held_out, run=run, checkpoint_seconds=0.0)
    return model


def serve() -> None:
    """For each run named on standard input: fork, train, and say how it ended."""
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # the first optimizer imports much more: not in each child
    for line in sys.stdin:
        if not line.strip():
            continue  # leave that a killed child did not take
        pid = os.fork()
        if pid == 0:
            torch.set_num_threads(1)
            code = 1
            try:
                train(line.strip())
                code = 0
            finally:
                os._exit(code)
        os.write(1, f"started {pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        os.write(1, f"ended {os.waitstatus_to_exitcode(status)}\n".encode())


class Server:
    """The fork server, seen from the test."""

    def __init__(self, runs: Path):
        self.runs = runs
        env = {**os.environ, "COURSE_RUNS": str(runs), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
        command = [sys.executable, "-m", "tests.test_kill"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, text=True, bufsize=1)
        self.watchdog = threading.Timer(120, self.process.kill)  # a test that hangs helps nobody
        self.watchdog.start()

    def start(self, run: str, steps: int) -> int:
        """Start the training, with leave for so many steps; its process number."""
        print(run, file=self.process.stdin, flush=True)
        pid = int(self.wait("started").split()[1])
        self.process.stdin.write("\n" * steps)
        self.process.stdin.flush()
        return pid

    def wait(self, word: str) -> str:
        """The next line that begins with `word`."""
        for line in self.process.stdout:
            if line.startswith(word):
                return line
            assert not line.startswith("ended"), f"the child {line.strip()} while the test waited for {word!r}"
        raise AssertionError("the server is gone")

    def close(self) -> None:
        self.watchdog.cancel()
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("runs"))
    yield server
    server.close()


def last_file(run: Path) -> Path | None:
    """The run's checkpoint, where there is one."""
    found = list(run.glob("*/last.safetensors"))
    assert len(found) <= 1, "a resumed run started afresh"
    return found[0] if found else None


def position(file: Path | None) -> int:
    """Steps that a checkpoint holds; CourseError where it cannot be read."""
    if file is None:
        return 0
    _, header = checkpoints.read_tensors(file)
    return header["epoch"] * STEPS_PER_EPOCH + header["step"]


def wait_for_write(run: Path, pid: int) -> None:
    """Return when the process has begun to write its next checkpoint, or after a moment without one."""
    end = time.monotonic() + 0.2
    while not any(run.glob(f"*/last.safetensors.{pid}.part")) and time.monotonic() < end:
        pass


def test_a_run_that_is_killed_twenty_times_ends_like_an_undisturbed_one(server):
    folder = server.runs / "killed"
    server.start("undisturbed", STEPS)
    server.wait("step")
    begin = time.monotonic()
    assert server.wait("ended") == "ended 0\n"
    step_seconds = (time.monotonic() - begin) / STEPS

    moments, positions, cut_off = random.Random(0), [0], 0
    for number in range(KILLS):
        point = number * SPACING + moments.randint(1, SPACING)  # killed in about this step
        steps = max(2, point - positions[-1])
        pid = server.start("killed", steps + SLACK)
        for _ in range(steps):
            server.wait("step")
        if number % 4:
            time.sleep(moments.uniform(0, 1.5 * step_seconds))
        else:
            wait_for_write(folder, pid)
        os.kill(pid, signal.SIGKILL)
        assert server.wait("ended") == f"ended {-signal.SIGKILL}\n"  # it was training, and the signal hit it
        positions.append(position(last_file(folder)))  # what is there can be read
        cut_off += any(folder.glob(f"*/*.{pid}.part"))
        assert all(checkpoints.read_tensors(file)[1]["epoch"] >= 1 for file in folder.glob("*/best.safetensors"))

    assert len(positions) == 1 + KILLS and positions == sorted(set(positions)), "a start made no progress"
    assert positions[1] < STEPS / 4 and 0.7 * STEPS < positions[-1] < STEPS, positions
    assert cut_off > 0, "no kill hit a checkpoint while it was written"

    server.start("killed", STEPS)
    assert server.wait("ended") == "ended 0\n"
    (tensors, header), (truth, whole) = (
        checkpoints.read_tensors(last_file(server.runs / run)) for run in ("killed", "undisturbed")
    )
    assert position(last_file(folder)) == STEPS and set(tensors) == set(truth)
    assert all(torch.equal(tensors[name], truth[name]) for name in truth)  # Adam's state and the dropout's too
    timeless = [[{k: v for k, v in row.items() if k != "seconds"} for row in h["history"]] for h in (header, whole)]
    assert timeless[0] == timeless[1]


def test_another_process_knows_the_run_again(server, monkeypatch, capsys):
    server.start("known", STEPS)
    server.wait("ended")
    monkeypatch.setenv("COURSE_RUNS", str(server.runs))
    model = train("known")
    assert "finished and loaded" in capsys.readouterr().out
    tensors, _ = checkpoints.read_tensors(last_file(server.runs / "known"))
    assert all(torch.equal(v, tensors[f"model.{k}"]) for k, v in model.state_dict().items())


if __name__ == "__main__":
    serve()
