"""What the benchmarks share, and what runs them."""

import importlib
import os
import subprocess

import pytest
import torch

from helpers.models.mlp_vae import MLPVAE
from tests.benchmarks import catalogue, parallel
from tests.benchmarks.common import beta_loss, mean_sd, publish, take_shared
from tests.benchmarks.recipe_code import fingerprint
from tests.tools import run_benchmarks, run_notebooks


@pytest.mark.parametrize("name", catalogue.benchmarks())
def test_a_benchmark_imports_in_the_quick_profile(name):
    module = importlib.import_module(f"tests.benchmarks.bench_{name}")
    assert callable(module.main) and module.__doc__


class PoolHere:
    """Stands for ProcessPoolExecutor: its children would load torch, this works here."""

    made: list = []

    def __init__(self, workers, context, initializer):
        self.made.append((workers, context.get_start_method()))
        initializer()

    def __enter__(self):
        return self

    def __exit__(self, *fault):
        pass

    map = staticmethod(map)


def test_jobs_side_by_side_have_one_thread_each_and_keep_their_order(monkeypatch):
    monkeypatch.setattr(parallel, "ProcessPoolExecutor", PoolHere)
    monkeypatch.setattr(parallel, "device", lambda: torch.device("cpu"))
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # what a child would take
    torch.set_num_threads(2)
    try:
        found = parallel.side_by_side(lambda n: (torch.get_num_threads(), n), [3, 1, 2])
        assert found == [(1, 3), (1, 1), (1, 2)]
        assert os.environ["OMP_NUM_THREADS"] == "1"
        assert PoolHere.made == [(2, "spawn")]  # as many as there were threads
    finally:
        torch.set_num_threads(1)


def test_what_rows_share_is_taken_out_of_them():
    rows = {"a": {"on": "x", "source": "y", "psnr": 1}, "b": {"on": "x", "source": "y", "psnr": 2}}
    assert take_shared(rows.values(), "source", "on") == ("y", "x")
    assert rows == {"a": {"psnr": 1}, "b": {"psnr": 2}}
    with pytest.raises(AssertionError, match="the rows differ"):
        take_shared([{"on": "x"}, {"on": "y"}], "on")


def test_a_single_seed_has_no_spread():
    assert mean_sd([1.0, 3.0]) == {"mean": 2.0, "sd": pytest.approx(2**0.5), "each": [1.0, 3.0]}
    assert mean_sd([1.5]) == {"mean": 1.5, "each": [1.5]}


def test_the_kl_weighs_beta_times_as_much():
    torch.manual_seed(0)
    model = MLPVAE(4, (16,))
    batch = {"images": torch.rand(8, 1, 28, 28)}
    plain, weighted = (
        beta_loss(model, batch, torch.Generator().manual_seed(0), beta) for beta in (1.0, 5.0)
    )
    difference = weighted["loss"] - plain["loss"]
    torch.testing.assert_close(difference, 4 * plain["kl"], rtol=1e-3, atol=0)  # of large sums


def test_a_published_result_carries_the_fingerprint_of_its_benchmark():
    record = publish("beta_sweep", {"rows": {}}, seeds=[0], data="digits")
    assert record["code"] == fingerprint("beta", "quick")
    with pytest.raises(KeyError, match="results/never_declared"):
        publish("never_declared", {}, seeds=[0], data="digits")


@pytest.fixture
def runner(monkeypatch, tmp_path):
    """run(*words, failing=…): (exit status, the modules that were started)."""
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path))
    monkeypatch.setenv("COURSE_PROFILE", "cpu")

    def run(*words, failing=()):
        started = []

        def start(command, cwd, env):
            name = command[-1].removeprefix("tests.benchmarks.bench_")
            started.append(name)
            assert env["COURSE_PUBLISH"] == "1"
            return subprocess.CompletedProcess(command, int(name in failing))

        monkeypatch.setattr(subprocess, "run", start)
        return run_benchmarks.main(list(words)), started

    return run


def test_the_benchmarks_run_in_the_order_of_what_they_need(runner):
    assert runner() == (0, catalogue.in_order())
    assert runner("dog_losses", "bench_dogs.py") == (0, ["dogs", "dog_losses"])


def test_what_needs_a_failed_benchmark_is_left_out(runner, capsys):
    code, started = runner("dogs", "dog_losses", "beta", failing=["dogs"])
    assert (code, started) == (1, ["beta", "dogs"])
    assert "dog_losses is left out: it needs what dogs was to write" in capsys.readouterr().out


@pytest.mark.parametrize("failing", [(), ("dogs",)])
def test_finished_runs_of_a_benchmark_go_and_all_others_stay(runner, tmp_path, failing):
    names = {"bench_dogs-64-4-0", "bench_dog_kl-1", "bench_dogs_gpu", "dogs"}
    for name in names:
        (tmp_path / name).mkdir()
    assert runner("dogs", failing=failing)[0] == len(failing)
    gone = set() if failing else {"bench_dogs-64-4-0"}
    assert {path.name for path in tmp_path.iterdir()} == names - gone


def test_a_name_that_is_not_there_is_one_sentence(runner, capsys):
    with pytest.raises(SystemExit):
        runner("cats")
    assert "There is no benchmark 'cats'; there are: anomaly, " in capsys.readouterr().err


PROFILES = {"quick": "The quick profile makes nothing worth publishing", "GPU": "it can be quick,"}


@pytest.mark.parametrize("profile", PROFILES)
def test_benchmarks_and_notebooks_are_not_published_in_such_a_profile(
    runner, monkeypatch, capsys, profile
):
    monkeypatch.setenv("COURSE_PROFILE", profile)
    for start in (lambda: runner("beta"), lambda: run_notebooks.run([], in_place=True)):
        with pytest.raises(SystemExit):
            start()
        said = capsys.readouterr().err
        assert PROFILES[profile] in said and said.count("\n") == 1
