"""What `make test` does: lint, pytest, nbval on the notebooks, and an unchanged tree after it.

    python -m tests.tools.run_tests [NOTEBOOK ...]

With SOLVED=1 every notebook is also executed with all solutions of its exercises put in.
Every stage runs, whatever became of the one before; the exit status is 1 if any failed.
"""

import os
import subprocess
import sys
import time

from helpers.env import scratch_folder, survive_terminal
from tests.tools import common

CELL_TIMEOUT = 300  # seconds; a cell of the quick profile takes a few, a busy machine is slow
PARALLEL = ["--dist", "loadscope", "--no-loadscope-reorder"]


def environment(jobs: int) -> dict[str, str]:
    """The quick profile; all is written under build/test, not over a learner's runs."""
    own = {
        "COURSE_RUNS",
        "COURSE_REPO",
        "COURSE_PUBLISH",
        "COURSE_STATIC",
        "PYTEST_ADDOPTS",
        "MPLBACKEND",
    }
    env = {k: v for k, v in os.environ.items() if k not in own}
    env |= {
        "COURSE_PROFILE": "quick",
        "COURSE_BUILD": str(common.ROOT / "build" / "test"),
        "TQDM_DISABLE": "1",
        "JUPYTER_PREFER_ENV_PATH": "1",
    }
    return env | common.threads(jobs)


def stages(words: list[str]) -> list[tuple[str, list[str], int]]:
    """Name, command and number of processes of each stage."""
    python, jobs = sys.executable, common.cores()
    pytest = [python, "-m", "pytest"]
    found = [
        ("lint", [python, "-m", "ruff", "check", "."], 1),
        ("format", [python, "-m", "ruff", "format", "--check", "helpers", "tests"], 1),
        ("tests", [*pytest, "-q", "-n", str(jobs), *PARALLEL], jobs),
    ]
    notebooks = [str(p.relative_to(common.ROOT)) for p in common.select(words)]
    if notebooks:
        side = min(jobs, len(notebooks))
        nbval = ["--nbval-lax", "--nbval-current-env", f"--nbval-cell-timeout={CELL_TIMEOUT}"]
        found.append(
            ("notebooks", [*pytest, "-q", *nbval, "-n", str(side), *PARALLEL, *notebooks], side)
        )
    if os.environ.get("SOLVED") == "1":
        found.append(("solved", [python, "-m", "tests.tools.solved", *words], jobs))
    return found


def main(words: list[str]) -> int:
    """Run the stages, compare the tree, print one line for each."""
    survive_terminal()
    before, summary = common.snapshot(), []
    build = common.ROOT / "build" / "test"
    for name, command, jobs in stages(words):
        print(f"\n=== {name}", flush=True)
        start = time.monotonic()
        with scratch_folder(build, "runs") as runs:  # fresh: finished ones would be loaded
            env = environment(jobs) | {"COURSE_RUNS": str(runs)}
            code = subprocess.run(command, cwd=common.ROOT, env=env).returncode
        summary.append((name, code == 0, f"{time.monotonic() - start:.0f} s"))
    differing = common.changes(before, common.snapshot())
    summary.append(("tree unchanged", not differing, "; ".join(differing[:8])))
    print()
    for name, passed, note in summary:
        print(f"{'passed' if passed else 'FAILED':8}{name:16}{note}")
    return 0 if all(passed for _, passed, _ in summary) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(" ".join(sys.argv[1:]).split()))
    except KeyboardInterrupt:
        sys.exit(130)
