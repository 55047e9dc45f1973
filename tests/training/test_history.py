"""The history of a run: columns, table, and the file."""

import csv

import pytest

from helpers.training.history import History

ROWS = [
    {"epoch": 1, "seconds": 1.5, "lr": 0.001, "loss": 0.1 + 0.2},
    {"epoch": 2, "seconds": 3.0, "lr": 1e-9, "loss": 123456.789},
]


def test_columns_and_seconds():
    history = History(ROWS)
    assert history["epoch"] == [1, 2] and history["loss"] == [0.1 + 0.2, 123456.789]
    assert history.seconds == 3.0 and History().seconds == 0.0
    with pytest.raises(KeyError):
        history["nothing"]


def test_the_table_is_aligned_and_shows_four_digits():
    lines = History(ROWS).table().splitlines()
    assert lines[0].split() == ["epoch", "seconds", "lr", "loss"]
    assert lines[1].split()[-1] == "0.3"
    assert lines[2].split() == ["2", "3", "1e-09", "1.235e+05"]
    assert len({len(line) for line in lines}) == 1
    assert History().table() == "(no epoch finished)"


def test_a_resumed_run_may_watch_more_than_before(tmp_path):
    history = History([*ROWS, ROWS[1] | {"psnr": 20.0}])
    assert history.table().splitlines()[0].split()[-1] == "psnr"
    history.save_csv(tmp_path / "history.csv")
    with open(tmp_path / "history.csv", newline="") as file:
        assert [row["psnr"] for row in csv.DictReader(file)] == ["", "", "20.0"]


def test_the_file_holds_the_rows_exactly(tmp_path):
    History(ROWS).save_csv(tmp_path / "history.csv")
    with open(tmp_path / "history.csv", newline="") as file:
        stored = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assert stored == ROWS
    assert [p.name for p in tmp_path.iterdir()] == ["history.csv"]
    History().save_csv(tmp_path / "history.csv")
    assert (tmp_path / "history.csv").read_text().strip() == "epoch"


def test_a_failed_write_spares_the_old_file(tmp_path):
    History(ROWS).save_csv(tmp_path / "history.csv")
    before = (tmp_path / "history.csv").read_text()
    broken = [ROWS[0], [("not", "a row")]]
    with pytest.raises(AttributeError):
        History(broken).save_csv(tmp_path / "history.csv")
    assert (tmp_path / "history.csv").read_text() == before
