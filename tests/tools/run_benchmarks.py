"""Run the benchmarks, each after those that write what it needs; results go to data/results.

    python -m tests.tools.run_benchmarks [NAME ...]

Without names it runs all of them (about six hours).  To try one, whatever the profile, run
`python -m tests.benchmarks.bench_NAME`: its results go to build/.
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
    env = {"TQDM_DISABLE": "1", **os.environ, "COURSE_PUBLISH": "1"}
    env["COURSE_PROFILE"] = common.chosen_profile("cpu", publishing=True)
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
    common.chosen_profile("cpu", publishing=True)
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
