"""Result files: where a number comes from, and who may write among the published ones."""

import json
import platform
import sys

import pytest
import torch

from helpers import CourseError, env, results

RESULTS = env.ROOT / "data" / "results"


@pytest.fixture
def course(tmp_path, monkeypatch):
    """An empty course folder beside an empty build folder."""
    monkeypatch.setattr(env, "ROOT", tmp_path / "course")
    monkeypatch.setattr(results, "ROOT", tmp_path / "course")
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path / "build"))
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    return tmp_path


def save(**values):
    return results.save_result("mlp", values, seeds=[0, 1, 2], data="MNIST", code="0123")


@pytest.mark.parametrize("switch", ["1", "0", "", None])
def test_only_publishing_writes_the_published_results(course, monkeypatch, switch):
    if switch is None:
        monkeypatch.delenv("COURSE_PUBLISH", raising=False)
    else:
        monkeypatch.setenv("COURSE_PUBLISH", switch)
    record = save(nats=105.1)
    published = course / "course" / "data" / "results" / "mlp.json"
    built = course / "build" / "results" / "mlp.json"
    wrote, left = (published, built) if switch == "1" else (built, published)
    assert json.loads(wrote.read_text()) == record and not left.exists()
    if switch == "1":
        assert results.load_result("mlp") == record
        assert [path.name for path in wrote.parent.iterdir()] == ["mlp.json"]


def test_the_quick_profile_publishes_nothing(course, monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "quick")
    assert save(nats=105.1)["profile"] == "quick"
    monkeypatch.setenv("COURSE_PUBLISH", "1")
    with pytest.raises(CourseError, match="nothing worth publishing: data/results") as error:
        save(nats=105.1)
    assert "\n" not in str(error.value)
    assert not (course / "course").exists()


@pytest.mark.parametrize("name", ["../mlp", "a/b", ""])
def test_a_name_cannot_lead_out_of_the_folder(course, name):
    with pytest.raises(CourseError, match="it can be a plain name"):
        results.save_result(name, {}, seeds=[0], data="MNIST", code="0123")
    assert not any(course.iterdir())


def test_every_published_result_was_measured_in_earnest():
    found = {path: json.loads(path.read_text("utf-8")) for path in RESULTS.glob("*.json")}
    assert found and not [p.name for p, r in found.items() if r["profile"] not in ("cpu", "gpu")]


def test_a_result_says_where_it_comes_from(course, monkeypatch):
    monkeypatch.setenv("COURSE_PUBLISH", "1")
    save(nats=105.1, table={"a": [1, 2]})
    record = results.load_result("mlp")
    assert record["values"] == {"nats": 105.1, "table": {"a": [1, 2]}}
    assert record["profile"] == "cpu" and record["seeds"] == [0, 1, 2]
    assert record["data"] == "MNIST" and record["code"] == "0123"
    assert record["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    packages = {"torch", "torchvision", "accelerate", "scikit-learn", "numpy"}
    assert packages <= set(record["versions"])
    assert str(course) not in json.dumps(record)


def test_the_device_is_named_without_the_machine():
    text = results.describe_device()
    assert platform.machine() in text or "GPU" in text or "NVIDIA" in text
    assert platform.node() not in text or len(platform.node()) < 4


@pytest.mark.parametrize(("threads", "words"), [(1, "1 CPU core ("), (3, "3 CPU cores (")])
def test_the_cores_are_those_that_compute(monkeypatch, threads, words):
    monkeypatch.setattr(results, "device", lambda: torch.device("cpu"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert results.describe_device().startswith(words)


def test_a_result_that_was_not_measured_is_one_sentence(course):
    said = r"data/results/mlp\.json is not there: `make bench`"
    with pytest.raises(CourseError, match=said) as error:
        results.load_result("mlp")
    assert "\n" not in str(error.value)


def test_values_that_are_no_json_leave_no_half_file(course):
    save(nats=1.0)
    before = (course / "build" / "results" / "mlp.json").read_text()
    with pytest.raises(TypeError):
        save(nats=object())
    assert (course / "build" / "results" / "mlp.json").read_text() == before
