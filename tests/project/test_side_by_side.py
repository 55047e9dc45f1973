"""Jobs side by side.  A file of its own: the children import it, and so it imports little."""

import torch

from tests.benchmarks.parallel import side_by_side


def threads_and(number: int) -> tuple[int, int]:
    return torch.get_num_threads(), number


def test_jobs_side_by_side_have_one_thread_each_and_keep_their_order(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # what a child would take
    assert side_by_side(threads_and, [3, 1, 2]) == [(1, 3), (1, 1), (1, 2)]
