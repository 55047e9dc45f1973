"""What the benchmarks share, and what runs them."""

import subprocess

import pytest
import torch

from helpers.data import Batch
from helpers.mlp import MLPVAE
from tests.benchmarks.common import beta_loss, side_by_side, take_shared
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


def test_the_kl_weighs_beta_times_as_much():
    torch.manual_seed(0)
    model, batch = MLPVAE(4, (16,)), Batch(torch.rand(8, 1, 28, 28), torch.zeros(8, dtype=torch.int64))
    plain, weighted = (beta_loss(model, batch, torch.Generator().manual_seed(0), beta) for beta in (1.0, 5.0))
    torch.testing.assert_close(weighted["loss"] - plain["loss"], 4 * plain["kl"], rtol=1e-3, atol=0)  # of large sums


@pytest.mark.parametrize("returncode", [0, 1])
def test_finished_runs_of_a_benchmark_go_and_all_others_stay(monkeypatch, tmp_path, returncode):
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: subprocess.CompletedProcess(args, returncode))
    names = {"bench_8_dogs-64-4-0", "bench_13_dog_kl-1", "bench_8_dogs_gpu", "dogs"}
    for name in names:
        (tmp_path / name).mkdir()
    assert run_benchmarks.main(["8_dogs"]) == returncode
    assert {path.name for path in tmp_path.iterdir()} == names - (set() if returncode else {"bench_8_dogs-64-4-0"})
