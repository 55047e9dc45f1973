"""What the benchmarks declare is true, and they run in the order of what they need."""

import ast
import re
from functools import cache
from graphlib import CycleError

import pytest

from tests.benchmarks import catalogue
from tests.benchmarks.recipe_code import code_of, reached
from tests.tools.common import ROOT, text

BENCHMARKS = catalogue.benchmarks()
CHECKPOINTS = {p.name.split(".")[0] for p in (ROOT / "data" / "checkpoints").iterdir()}


def texts(node: ast.AST, module: str) -> set[str]:
    """Patterns of all texts in some code; a constant of its module stands for its text."""
    found = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and (module, part.id) in CONSTANTS:
            found.add(re.escape(CONSTANTS[module, part.id]))
        elif isinstance(part, ast.JoinedStr) and isinstance(part.values[0], ast.Constant):
            pieces = (p.value if isinstance(p, ast.Constant) else ".+" for p in part.values)
            found.add("".join(pieces))
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            found.add(re.escape(part.value.removesuffix(".safetensors")))
    return found


def constants() -> dict[tuple[str, str], str]:
    """{(module, name): text} of the benchmarks' constants that are texts."""
    found = {}
    for path in catalogue.ROOT.glob("tests/benchmarks/*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                found[f"tests.benchmarks.{path.stem}", node.targets[0].id] = node.value.value
    return {key: value for key, value in found.items() if isinstance(value, str)}


CONSTANTS = constants()


def checkpoints(patterns: set[str]) -> set[str]:
    """Those of data/checkpoints that the texts name."""
    names = {n for n in CHECKPOINTS if any(re.fullmatch(p, n) for p in patterns)}
    return {f"checkpoints/{name}" for name in names}


def calls(node: ast.AST, name: str) -> list[ast.Call]:
    found = [n for n in ast.walk(node) if isinstance(n, ast.Call)]
    return [n for n in found if name in (getattr(n.func, "id", ""), getattr(n.func, "attr", ""))]


def exports(node: ast.AST) -> list[ast.expr]:
    """What follows "--export" in the words of a command."""
    lists = [n.elts for n in ast.walk(node) if isinstance(n, ast.List)]
    pairs = [pair for words in lists for pair in zip(words, words[1:], strict=False)]
    return [b for a, b in pairs if getattr(a, "value", "") == "--export"]


@cache
def used_by(module: str, definition: str) -> tuple[set[str], set[str], set[str]]:
    """(checkpoints that some code names, what it writes, results that it loads)."""
    code = code_of(module, definition)
    stored = [call.args[0] for call in calls(code, "save_model")] + exports(code)
    stored += [arg for call in calls(code, "save_pretrained") for arg in call.args]
    written = {what for node in stored for what in checkpoints(texts(node, module))}
    for call in calls(code, "publish"):
        written |= {f"results/{name}" for name in texts(call.args[0], module)}
    loaded = set()
    for call in calls(code, "load_result"):
        loaded |= {f"results/{name}" for name in texts(call.args[0], module)}
    return checkpoints(texts(code, module)), written, loaded


def used(name: str) -> tuple[set[str], set[str]]:
    """(reads, writes) of a benchmark, by the source of all that it reaches."""
    parts = [used_by(module, definition) for module, definition in reached(name)]
    named, written, loaded = (set().union(*each) for each in zip(*parts, strict=True))
    return (named - written) | loaded, written


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_declares_what_its_source_reads_and_writes(name):
    reads, writes = used(name)
    assert (reads, writes) == tuple(map(set, BENCHMARKS[name]))


def test_the_readers_of_the_source_would_see_a_fault():
    code = ast.parse("""
save_model(f"cure_{kind}", model)
words += ["--export", "dogs_vae" + SUFFIX]
BEGIN = ROOT / "data" / "mlp_vae_2d.safetensors"
""")
    saved = texts(calls(code, "save_model")[0].args[0], "")
    assert checkpoints(saved) >= {"checkpoints/cure_decoder", "checkpoints/cure_distilled"}
    assert texts(exports(code)[0], "") == {"dogs_vae"}
    assert "checkpoints/mlp_vae_2d" in checkpoints(texts(code, ""))


def saved_by(notebooks: dict, name: str) -> list[str]:
    """The notebooks with a cell that saves the checkpoint `name`."""
    found = []
    for path, notebook in notebooks.items():
        sources = [text(cell) for cell in notebook["cells"] if cell["cell_type"] == "code"]
        if any("save_model(" in source and f'"{name}"' in source for source in sources):
            found.append(path.stem)
    return found


def test_every_need_is_written_by_one_benchmark_or_one_notebook(notebooks):
    writers = {}
    for needs, _ in BENCHMARKS.values():
        for what in needs:
            folder, name = what.split("/")
            assert list((ROOT / "data" / folder).glob(f"{name}*")), f"{what} is not there"
            by_benchmarks = [b for b, (_, writes) in BENCHMARKS.items() if what in writes]
            writers[what] = by_benchmarks + saved_by(notebooks, name)
    assert {what: names for what, names in writers.items() if len(names) != 1} == {}
    assert writers["checkpoints/digit_classifier"] == ["01_autoencoder"]


def test_the_list_of_checkpoints_says_who_writes_them(notebooks):
    page = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    page = page.partition("## Checkpoints")[2]
    rows = re.findall(r"^\| `([\w-]+)(?:\.safetensors|/)` .*\| ([^|]+) \|$", page, re.MULTILINE)
    assert {name for name, _ in rows} == CHECKPOINTS
    for name, said in rows:
        if "BENCH=" in said:
            writer = catalogue.writer_of(f"checkpoints/{name}")
            assert said == f"`make bench BENCH={writer}`", name
        else:
            (notebook,) = saved_by(notebooks, name)
            assert said == f"notebook {int(notebook.split('_')[0])}", name


def test_a_result_is_written_by_one_benchmark_and_every_file_has_one():
    written = [what for _, writes in BENCHMARKS.values() for what in writes]
    assert len(written) == len(set(written))
    for path in (ROOT / "data" / "results").glob("*.json"):
        assert catalogue.writer_of(f"results/{path.stem}") in BENCHMARKS
    assert catalogue.writer_of("results/dogs_gpu") == "dogs"


def test_every_benchmark_comes_after_those_that_write_what_it_needs():
    order = catalogue.in_order()
    assert sorted(order) == list(BENCHMARKS)
    for name in order:
        for other in catalogue.before(name):
            assert order.index(other) < order.index(name)
    assert catalogue.before("dog_losses") == {"dogs"}


@pytest.fixture
def toys(tmp_path):
    """A folder of benchmarks that only declare: toys(a=(needs, writes), …)."""

    def make(**declared):
        folder = tmp_path / "tests" / "benchmarks"
        folder.mkdir(parents=True)
        for name, (needs, writes) in declared.items():
            (folder / f"bench_{name}.py").write_text(f"NEEDS = {needs}\nWRITES = {writes}\n")
        return tmp_path

    return make


def test_ties_are_broken_by_name_and_files_of_others_are_no_order(toys):
    root = toys(d=((), ()), a=(("x",), ()), c=((), ("x",)), b=(("of a notebook",), ()))
    assert catalogue.in_order(root) == ["b", "c", "d", "a"]


def test_a_circle_is_named(toys):
    root = toys(a=(("x",), ("y",)), b=(("y",), ("x",)))
    with pytest.raises(CycleError, match=r"'[ab]'.*'[ab]'"):
        catalogue.in_order(root)
