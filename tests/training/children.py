"""What the processes of test_processes.py do: be killed, or train two at a time."""

import json
import locale
import os
import signal
import sys
from pathlib import Path
from unittest import mock

from skimage.metrics import structural_similarity  # noqa: F401 (imported once, not by each child)

from helpers import CourseError, train_vae
from helpers.data.augment import random_shift
from helpers.training import checkpoints, run_state
from helpers.training.history import History
from tests.training.small_training import DropoutVAE, small_fit, small_model, squares, vae_loss

# --- a training that kills itself at a chosen point ---

EPOCHS = 8

countdown: dict[str, int] = {}  # {point: how many times until the kill}; no part of a fingerprint


def pass_point(point: str) -> bool:
    """Count the point; True where the process is to die in it."""
    countdown[point] = countdown.get(point, 0) - 1
    return countdown[point] == 0


def die() -> None:
    """SIGKILL leaves no time to clean up, whoever sends it."""
    os.kill(os.getpid(), signal.SIGKILL)


def deadly_loss(model, batch, generator):
    """`vae_loss`, in which the process may die."""
    if model.training and pass_point("step"):
        die()
    return vae_loss(model, batch, generator)


def deadly_fsync(number: int) -> None:
    """Any file, of which only half is on the disk when the process dies."""
    if pass_point("half"):
        os.truncate(number, os.fstat(number).st_size // 2)
        die()


def deadly_replace(source, target, replace=os.replace):
    """Any file, whole, but without its name yet when the process dies."""
    if pass_point("replace"):
        die()
    replace(source, target)


def train(run: str) -> tuple[DropoutVAE, History]:
    """The training that is killed: dropout, an EMA, validation, a checkpoint after every step."""
    model = small_model(DropoutVAE, seed=3)
    options = {"epochs": EPOCHS, "ema": 0.9, "validation": squares(20, seed=1)}
    return model, small_fit(model, deadly_loss, run=run, checkpoint_seconds=0.0, **options)


def train_until(point: str, count: int) -> None:
    """Die where the training comes to `point` for the `count`-th time (0: never)."""
    countdown[point] = count
    fsync = mock.patch("os.fsync", deadly_fsync)
    with fsync, mock.patch("os.replace", deadly_replace):
        train("killed")


# --- a machine that knows no UTF-8 ---


def train_in_c_locale(photos: str) -> None:
    """The command, where files without a said encoding are ASCII and the terminal is Japanese."""
    locale.setlocale(locale.LC_ALL, "C")
    with open(os.devnull) as file:
        assert file.encoding in ("ascii", "ANSI_X3.4-1968", "US-ASCII"), file.encoding
    sys.stdout.reconfigure(encoding="cp932", errors="strict")
    words = "--resolution 16 --channels 8 16 --steps 1 --batch 4 --run mine --export mine"
    train_vae.main(["--folder", photos, *words.split()])


# --- two processes ---

# attention, crops, parts of a batch, averaged weights
COMMAND = "--resolution 16 --channels 8 16 --crop-from 1.5 --steps 10 --batch 8 --accumulate 2"
COMMAND += " --ema 0.9 --lr 0.001 --precision no --export tiny"


def share(folder: str) -> None:
    """What one of two processes, or one alone, does: call `fit`, then the command."""
    place = Path(folder)
    model = small_model()
    options = {"validation": squares(30, seed=2), "checkpoint_seconds": 0.0}
    rank = os.environ.get("RANK", "alone")
    spy = mock.patch.object(run_state, "write_tensors", wraps=run_state.write_tensors)
    # importing diffusers takes longer than all the rest
    library = mock.patch.dict(sys.modules, {"helpers.diffusers_bridge": mock.MagicMock()})
    with spy as write, library, mock.patch.object(train_vae, "write_by"):
        history = small_fit(model, augment=random_shift, run="fit", **options)
        train_vae.main([*COMMAND.split(), "--folder", str(place / "photos")])
    left = {"rows": history.rows, "writes": write.call_count}
    checkpoints.write_tensors(place / f"fit-{rank}.safetensors", model.state_dict(), left)


countdown_to_ctrl_c = {"steps": 8}


def stop_second(model, batch, generator):
    """`vae_loss`; ctrl-C reaches the second process alone."""
    if model.training:
        countdown_to_ctrl_c["steps"] -= 1
        if not countdown_to_ctrl_c["steps"] and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGINT)
    return vae_loss(model, batch, generator)


def share_and_fail(folder: str) -> None:
    """One of two processes: `share`, then a ctrl-C and a batch that cannot be shared."""
    share(folder)
    said = {}
    try:
        small_fit(small_model(), stop_second, run="stopped")
    except KeyboardInterrupt as stop:
        said["stop"] = str(stop)
    try:
        small_fit(small_model(), batch_size=15)
    except CourseError as error:
        said["error"] = str(error)
    Path(folder, f"said-{os.environ['RANK']}.json").write_text(json.dumps(said))
