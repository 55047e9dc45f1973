"""What the benchmarks share, and what runs them."""

import subprocess

import pytest
import torch

from tests.benchmarks.common import side_by_side, take_shared
from tests.tools import run_benchmarks


def threads_and(number: int) -> tuple[int, int]:
    return torch.get_num_threads(), number


def test_jobs_side_by_side_have_one_thread_each_and_keep_their_order(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # what a child would take
    assert side_by_side(threads_and, [3, 1, 2]) == [(1, 3), (1, 1), (1, 2)]


def test_what_rows_share_is_taken_out_of_them():
    rows = {"a": {"on": "x", "source": "y", "psnr": 1}, "b": {"on": "x", "source": "y", "psnr": 2}}
    assert take_shared(rows.values(), "source", "on") == ("y", "x")
    assert rows == {"a": {"psnr": 1}, "b": {"psnr": 2}}
    with pytest.raises(AssertionError, match="the rows differ"):
        take_shared([{"on": "x"}, {"on": "y"}], "on")


@pytest.mark.parametrize("returncode", [0, 1])
def test_finished_runs_of_a_benchmark_go_and_all_others_stay(monkeypatch, tmp_path, returncode):
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: subprocess.CompletedProcess(args, returncode))
    names = {"bench_8_dogs-64-4-0", "bench_13_dog_kl-1", "bench_8_dogs_gpu", "dogs"}
    for name in names:
        (tmp_path / name).mkdir()
    assert run_benchmarks.main(["8_dogs"]) == returncode
    assert {path.name for path in tmp_path.iterdir()} == names - (set() if returncode else {"bench_8_dogs-64-4-0"})
