"""Run the benchmarks, each after those that write what it needs; results go to data/results.

    python -m tests.tools.run_benchmarks [NAME ...]

Without names it runs all of them (about six hours).
"""

import os
import shutil
import subprocess
import sys

from helpers.env import runs_dir, survive_terminal
from tests.benchmarks import catalogue
from tests.tools import common


def pick(words: list[str]) -> list[str]:
    """The benchmarks that `words` name ("dogs", "bench_dogs.py"), in order; without words all."""
    every = catalogue.in_order()
    picked = {word.removesuffix(".py").removeprefix("bench_") for word in words} or set(every)
    unknown = sorted(picked - set(every))
    if unknown:
        known = ", ".join(sorted(every))
        common.fail(f"There is no benchmark {unknown[0]!r}; there are: {known}.")
    return [name for name in every if name in picked]


def run_one(name: str) -> bool:
    """Run a benchmark in a process of its own; False if it failed."""
    print(f"\n=== {name}", flush=True)
    env = {"COURSE_PROFILE": "cpu", "TQDM_DISABLE": "1", **os.environ, "COURSE_PUBLISH": "1"}
    env["PYTHONIOENCODING"] = f"{sys.stdout.encoding}:replace"
    command = [sys.executable, "-m", f"tests.benchmarks.bench_{name}"]
    if subprocess.run(command, cwd=common.ROOT, env=env).returncode:
        return False  # its runs stay: the next call goes on with them
    for run in runs_dir().glob(f"bench_{name}-*"):
        shutil.rmtree(run)  # finished runs would be loaded instead of measured again
    return True


def main(words: list[str]) -> int:
    """Run all benchmarks, or those that are named; 1 if any of them failed."""
    survive_terminal()
    if os.environ.get("COURSE_PROFILE") == "quick":
        common.fail(
            "The quick profile measures nothing worth publishing: unset COURSE_PROFILE, or try a "
            "benchmark with `python -m tests.benchmarks.bench_NAME`, whose results go to build/."
        )
    failed = []
    for name in pick(words):
        missing = sorted(catalogue.before(name) & set(failed))
        if missing:
            print(f"\n=== {name} is left out: it needs what {missing[0]} was to write")
        if missing or not run_one(name):
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(" ".join(sys.argv[1:]).split()))
    except KeyboardInterrupt:
        sys.exit(130)
