"""Run the scripts tests/benchmarks/bench_*.py one after the other; their results go to data/results.

python -m tests.tools.run_benchmarks [NAME ...]
"""

import os
import shutil
import subprocess
import sys

from helpers.budget import runs_dir
from tests.tools import common

BENCHMARKS = common.ROOT / "tests" / "benchmarks"


def main(words: list[str]) -> int:
    """Run all benchmarks, or those that are named; 1 if any of them failed."""
    every = [path.stem for path in sorted(BENCHMARKS.glob("bench_*.py"))]
    picked = ["bench_" + word.removesuffix(".py").removeprefix("bench_") for word in words] or every
    unknown = [name for name in picked if name not in every]
    if unknown:
        known = ", ".join(name.removeprefix("bench_") for name in every) or "none yet"
        common.fail(f"There is no benchmark {unknown[0].removeprefix('bench_')!r}; there are: {known}.")
    env = {"COURSE_PROFILE": "cpu", "TQDM_DISABLE": "1", **os.environ, "COURSE_PUBLISH": "1"}
    failed = []
    for name in picked:
        print(f"\n=== {name.removeprefix('bench_')}", flush=True)
        command = [sys.executable, "-m", f"tests.benchmarks.{name}"]
        if subprocess.run(command, cwd=common.ROOT, env=env).returncode:
            failed.append(name)  # its runs stay: the next call goes on with them
        else:
            for run in runs_dir().glob(f"{name}-*"):  # finished runs would be loaded instead of measured again
                shutil.rmtree(run)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(" ".join(sys.argv[1:]).split()))
    except KeyboardInterrupt:
        sys.exit(130)
