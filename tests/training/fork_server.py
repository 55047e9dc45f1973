"""A process that has imported torch, and forks a child for each job: importing takes the longest.

The tests' own process cannot be forked: torch's autograd refuses to work in such a child.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable

import torch

from tests.tools.common import ROOT


class ForkServer:
    """The process, seen from a test."""

    def __init__(self, module: str):
        command = [sys.executable, "-m", "tests.training.fork_server", module]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
        env = os.environ | {"PYTHONUTF8": "0"}  # a child may have a locale of its own
        self.process = subprocess.Popen(command, cwd=ROOT, env=env, **pipes)

    def call(self, *jobs: dict) -> list[int]:
        """Run the jobs side by side, each in a child of its own; their exit codes.

        A job is {"function": its name in `module`, "arguments", "environment", "output": a file for
        what it prints}.  The code of one that was killed is minus the signal.
        """
        print(json.dumps(jobs), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.kill()  # torch takes seconds to leave in good order
        self.process.communicate()


def serve(module: str) -> None:
    """Answer each line of jobs with a line of exit codes."""
    functions = vars(importlib.import_module(module))
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # the first one imports much
    for line in sys.stdin:
        children = [fork(functions[job.pop("function")], **job) for job in json.loads(line)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        print(json.dumps(codes), flush=True)


def fork(function: Callable, arguments: list, environment: dict[str, str], output: str) -> int:
    """Call the function in a child; its process number."""
    pid = os.fork()
    if pid:
        return pid

    code = 1
    signal.alarm(600)  # processes that wait for each other would never end
    try:
        file = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.environ.update(environment)
        torch.set_num_threads(1)
        function(*arguments)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # without the server's own clean-up


if __name__ == "__main__":
    serve(sys.argv[1])
