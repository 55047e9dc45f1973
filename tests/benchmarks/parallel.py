"""Jobs of a benchmark side by side, each on a core of its own."""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import torch

from helpers.env import device


def side_by_side(task: Callable, jobs: list) -> list:
    """task(job) of every job, in their order; each on one core with one thread.

    As many run at a time as there are cores; on a GPU they take turns.  Small networks gain little
    from a second thread, so this is how two cores do the most in an hour.
    """
    workers = min(len(jobs), torch.get_num_threads()) if device().type == "cpu" else 1
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, initializer=_one_thread) as pool:
        return list(pool.map(task, jobs))


def _one_thread() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
