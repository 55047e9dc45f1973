"""Execute notebooks side by side and write the gallery build/index.html; or execute in place.

    python -m tests.tools.run_notebooks [--in-place] [--timeout SECONDS] [NOTEBOOK ...]

NOTEBOOK is a number (02) or a name; without one, all. COURSE_PROFILE is quick unless set (cpu with
--in-place). A notebook that fails is reported and the others still run; the exit status is then 1.
"""

import argparse
import contextlib
import os
import re
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from helpers.env import build_dir, scratch_folder, survive_terminal, write_file
from tests.tools import common, gallery
from tests.tools.board import Board

TIMEOUTS = {"quick": 300, "cpu": 3600, "gpu": 3600}  # seconds for one cell
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
LEFT_OUT = ("COURSE_PUBLISH", "COURSE_STATIC", "MPLBACKEND", "PYTHONPATH", "JUPYTER_PATH")
running: set[AsyncKernelManager] = set()


@dataclass
class Result:
    """What became of one notebook: the executed notebook, its time, and an error in a few lines."""

    path: Path
    notebook: nbformat.NotebookNode
    seconds: float = 0.0
    error: str = ""
    stderr: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.error


def kernel_environment(in_place: bool, jobs: int) -> dict[str, str]:
    """The environment of every kernel: no progress bars, pictures for widgets, fair threads."""
    env = {k: v for k, v in os.environ.items() if k not in LEFT_OUT}
    env["COURSE_PROFILE"] = common.chosen_profile("cpu" if in_place else "quick", in_place)
    env |= {"COURSE_STATIC": "1", "TQDM_DISABLE": "1"}
    return (
        env
        | ({"COURSE_PUBLISH": "1"} if in_place else {})
        | (common.threads(jobs) if jobs > 1 else {})
    )


def explain(fault: Exception, notebook, index: int) -> str:
    """A failure in a few lines: which cell, how it begins, and the error."""
    if isinstance(fault, CellExecutionError):
        said = f"{fault.ename}: {COLOUR.sub('', fault.evalue)}".splitlines()[:4]
    elif isinstance(fault, CellTimeoutError):
        said = ["the cell ran into the timeout"]
    elif isinstance(fault, DeadKernelError):
        said = ["the kernel died (out of memory?)"]
    else:
        said = f"{type(fault).__name__}: {fault}".splitlines()[:4]
    source = common.text(notebook.cells[index]).strip().splitlines() or [""]
    return "\n".join([f"cell {index}, which begins: {source[0][:100]}", *said])


def stderr_of(notebook) -> list[str]:
    """The first line of everything that was written to stderr, with its cell."""
    found = []
    for index, cell in enumerate(notebook.cells):
        for out in cell.get("outputs", []):
            if out.output_type == "stream" and out.name == "stderr":
                found.append(f"cell {index}: {(out.text.strip().splitlines() or [''])[0][:160]}")
    return found


def client_for(notebook, folder: Path, timeout: float, **more) -> NotebookClient:
    """What runs a notebook: no timing, no widget state, and the streams of a cell in one piece."""
    return NotebookClient(
        notebook,
        timeout=timeout,
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.log_level=50"],  # its remarks about ports are for servers
        resources={"metadata": {"path": str(folder)}},
        **more,
    )


def execute(path: Path, board: Board, env: dict[str, str], timeout: float) -> Result:
    """Run one notebook from top to bottom in a fresh kernel whose folder is the notebook's."""
    notebook = nbformat.read(path, as_version=4)
    order = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    manager = AsyncKernelManager(kernel_name="python3")
    start, at = time.monotonic(), [0]

    def on_start(cell, cell_index) -> None:
        at[0] = cell_index
        if cell_index in order:
            seconds = time.monotonic() - start
            board.update(
                path.stem, f"cell {order.index(cell_index) + 1}/{len(order)}  {seconds:.0f} s"
            )

    client = client_for(notebook, path.parent, timeout, km=manager, on_cell_start=on_start)
    result = Result(path, notebook)
    running.add(manager)
    try:
        client.execute(env=env, cleanup_kc=True)
    except Exception as fault:  # whatever a notebook does, the others go on
        result.error = explain(fault, notebook, at[0])
    finally:
        running.discard(manager)
    result.seconds, result.stderr = time.monotonic() - start, stderr_of(notebook)
    return result


def tidy(result: Result) -> None:
    """Leave in the executed notebook nothing that differs from run to run or machine to machine."""
    before = nbformat.read(result.path, as_version=4)
    metadata = {
        **before.metadata,
        "language_info": before.metadata.get("language_info", {"name": "python"}),
    }
    metadata.pop("widgets", None)
    result.notebook.metadata = nbformat.from_dict(metadata)
    for cell in result.notebook.cells:
        cell.metadata.pop("execution", None)


def stop_kernels() -> None:
    """Kill every kernel that still runs, with its children."""
    for manager in list(running):
        process = getattr(manager.provisioner, "process", None)
        if process is None or process.poll() is not None:
            continue
        with contextlib.suppress(ProcessLookupError):  # it may end between the look and the kill
            if hasattr(os, "killpg"):
                os.killpg(os.getpgid(process.pid), signal.SIGKILL)
            else:
                process.kill()


def finish(result: Result, board: Board, in_place: bool) -> Result:
    """Judge one result, store it where it belongs, and show its final line."""
    if in_place and result.passed and result.stderr:
        said = [
            "a cell that wrote to stderr, which a stored notebook must not hold:",
            *result.stderr[:3],
        ]
        result.error = "\n".join(said)
    if in_place and result.passed:
        tidy(result)
        write_file(result.path, nbformat.writes(result.notebook) + "\n")
    word = "passed" if result.passed else "FAILED"
    board.update(result.path.stem, f"{word}  {result.seconds:.1f} s", final=True)
    return result


def run(
    paths: list[Path], in_place: bool = False, timeout: float | None = None, jobs: int | None = None
):
    """Execute `paths` on `jobs` kernels at a time; a list of Result in the same order."""
    jobs = min(jobs or common.cores(), max(1, len(paths)))
    env = kernel_environment(in_place, jobs)
    timeout = timeout or TIMEOUTS[env["COURSE_PROFILE"]]
    os.environ["JUPYTER_PREFER_ENV_PATH"] = (
        "1"  # a kernel installed for the user must not take over
    )
    board = Board([path.stem for path in paths])
    pool = ThreadPoolExecutor(jobs)
    with scratch_folder(build_dir(), "runs") as runs:
        env["COURSE_RUNS"] = str(runs)  # fresh: a finished run would be loaded, not trained
        try:
            work = pool.map(
                lambda path: finish(execute(path, board, env, timeout), board, in_place), paths
            )
            return list(work)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop_kernels()
            raise


def report(results: list[Result]) -> int:
    """Print what failed and where; the exit status."""
    for result in results:
        if not result.passed:
            print(f"\n{result.path.name} failed in {result.error}")
        elif result.stderr:
            print(f"\n{result.path.name} passed, but wrote to stderr in {result.stderr[0]}")
    return 0 if all(result.passed for result in results) else 1


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    survive_terminal()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK")
    parser.add_argument(
        "--in-place", action="store_true", help="store the outputs in the notebooks themselves"
    )
    parser.add_argument("--timeout", type=float, help="seconds that one cell may take")
    parser.add_argument("--folder", type=Path, default=common.NOTEBOOKS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    paths = common.select(" ".join(options.notebooks).split(), options.folder)
    if not paths:
        common.fail(f"There are no notebooks in {options.folder}.")
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # a shell starts background jobs with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    try:
        results = run(paths, options.in_place, options.timeout)
    except KeyboardInterrupt:
        stop_kernels()
        print("\nstopped", file=sys.stderr)
        sys.stderr.flush()
        os._exit(130)  # threads that wait for a killed kernel would hold the exit up
    if not options.in_place:
        print(f"\ngallery: {gallery.write(results, build_dir(), options.folder)}")
    return report(results)


if __name__ == "__main__":
    sys.exit(main())
