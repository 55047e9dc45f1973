"""Results are no older than the code that makes them; what counts as a change and what does not."""

import json
import re

import pytest

from tests.benchmarks.catalogue import writer_of
from tests.benchmarks.recipe_code import NO_RECIPE, ROOT, fingerprint, reached
from tests.tools import restamp

FILES = {
    "helpers/losses.py": '''
"""Losses."""
import math

CORNERS = "0 1, 2 3, 4 5, 6 7"

def error(x, weight: float = 2.0) -> float:
    """The error of x."""
    return weight * abs(x) + len(CORNERS)  # as published

class Network:
    """One layer."""
    width: int = 8

    def forward(self, x):
        if x is None:
            raise ValueError(f"x is {x}")
        return self.width * x

def draw_figure(x):
    return "a figure"

UNUSED = 1
''',
    "helpers/loop.py": """
from helpers import losses

def fit(model, lr, kind="one-cycle", help=""):
    print("training starts")
    return losses.error(model.forward(lr))
""",
    "helpers/results.py": "def save_result(name): return name\n",
    "tests/benchmarks/bench_toy.py": '''
"""A toy benchmark."""
from helpers.losses import Network as Net
from helpers.results import save_result

NEEDS = ("checkpoints/start",)
WRITES = ("results/toy",)
EPOCHS = budget(quick=1, cpu=10, gpu=20)

def main():
    from helpers.loop import fit
    seed = 0
    fit(Net(), lr=1e-3, help="how it goes")
    name = f"run {EPOCHS} of {seed}"
    save_result("toy")

if __name__ == "__main__":
    main()
''',
    "tests/benchmarks/bench_start.py": """
NEEDS = ()
WRITES = ("checkpoints/start",)
STEPS = 100

if __name__ == "__main__":
    print(STEPS)
    train(STEPS)
""",
}


@pytest.fixture
def course(tmp_path):
    """course((file, old, new), …): the toy's fingerprint after these changes of the sources."""
    count = iter(range(100))

    def make(*changes, profile="cpu", benchmark="toy"):
        root = tmp_path / str(next(count))  # sources are read once, so every version has a folder
        files = dict(FILES)
        for file, old, new in changes:
            assert old in files[file]
            files[file] = files[file].replace(old, new)
        for file, source in files.items():
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_text(source)
        return fingerprint(benchmark, profile, root)

    return make


TOY = "tests/benchmarks/bench_toy.py"
RECIPE = {
    "learning rate": (TOY, "lr=1e-3", "lr=2e-3"),
    "epochs": (TOY, "cpu=10", "cpu=11"),
    "seed": (TOY, "seed = 0", "seed = 1"),
    "weight of a loss": ("helpers/losses.py", "weight: float = 2.0", "weight: float = 3.0"),
    "formula": ("helpers/losses.py", "abs(x)", "x**2"),
    "architecture": ("helpers/losses.py", "width: int = 8", "width: int = 9"),
    "text of numbers": ("helpers/losses.py", "4 5", "4 6"),
    "schedule": ("helpers/loop.py", '"one-cycle"', '"cosine"'),
    "label": (TOY, 'f"run {EPOCHS} of', 'f"run {EPOCHS} from'),
    "what it needs": ("tests/benchmarks/bench_start.py", "STEPS = 100", "STEPS = 200"),
}
PROSE = {
    "docstring": ("helpers/losses.py", '"""The error of x."""', '"""Another sentence."""'),
    "no docstring": ("helpers/losses.py", '    """One layer."""\n', ""),
    "comment": ("helpers/losses.py", "# as published", "# as it was"),
    "annotation": ("helpers/losses.py", "x, weight: float = 2.0) -> float", "x, weight=2.0)"),
    "message": ("helpers/losses.py", 'f"x is {x}"', '"x is missing"'),
    "another check": ("helpers/losses.py", "if x is None:", "if x is None or x < 0:"),
    "line breaks": ("helpers/losses.py", "weight * abs(x)", "(\n        weight\n * abs(x))"),
    "what is printed": ("helpers/loop.py", "training starts", "go"),
    "help": (TOY, "how it goes", "what it does"),
    "figure": ("helpers/losses.py", '"a figure"', '"another figure"'),
    "unused": ("helpers/losses.py", "UNUSED = 1", "UNUSED = 2"),
    "another profile": (TOY, "quick=1, cpu=10, gpu=20", "quick=2, cpu=10, gpu=30"),
    "what writes files": ("helpers/results.py", "return name", "return None"),
    "declarations": (TOY, '("results/toy",)', '("results/toy", "results/more")'),
}


@pytest.mark.parametrize("change", RECIPE.values(), ids=RECIPE)
def test_another_recipe_is_another_fingerprint(course, change):
    assert course(change) != course()


@pytest.mark.parametrize("change", PROSE.values(), ids=PROSE)
def test_other_prose_is_the_same_fingerprint(course, change):
    assert course(change) == course()


def test_a_definition_may_move_to_another_file(course):
    definition = "class Network:" + FILES["helpers/losses.py"].partition("class Network:")[2]
    moved = course(
        ("helpers/losses.py", definition, ""),
        ("helpers/results.py", "def save_result", definition + "\n\ndef save_result"),
        (TOY, "from helpers.losses import Network", "from helpers.loop import Network"),
        ("helpers/loop.py", "def fit", definition + "\n\ndef fit"),
    )
    assert moved == course()


def test_every_profile_has_its_own_budget(course):
    assert course(profile="gpu") != course(profile="cpu")
    gpu = (TOY, "gpu=20", "gpu=30")
    assert course(gpu, profile="gpu") != course(profile="gpu")


def test_a_name_that_is_not_there_is_named(course):
    with pytest.raises(LookupError, match=r"helpers\.losses has no Net"):
        course((TOY, "import Network as Net", "import Net"))


def test_the_fingerprint_is_the_same_on_every_python(course):
    """A value made with Python 3.11 that 3.12 and 3.13 agree with."""
    assert course() == "74372ca8338aaa35"


def exists(dotted: str) -> bool:
    """Whether there is such a module, or such a definition or method in one."""
    path = ROOT.joinpath(*dotted.split("."))
    if path.is_dir() or path.with_suffix(".py").exists():
        return True
    module, _, name = dotted.rpartition(".")
    if not module:
        return False
    file = path.parent.with_suffix(".py")
    if not file.exists():  # a method: its class stands before it
        return (
            exists(module) and f"    def {name}(" in path.parents[1].with_suffix(".py").read_text()
        )
    return bool(re.search(rf"^(def|class) {name}\b|^{name} = ", file.read_text(), re.MULTILINE))


def test_what_is_no_recipe_exists():
    assert [dotted for dotted in NO_RECIPE if not exists(dotted)] == []
    assert not exists("helpers.env.nothing") and not exists("helpers.training.trainer.Trainer.no")


def test_a_benchmark_reaches_its_recipe_and_no_figures():
    found = {f"{module}.{name}" for module, name in reached("dog_losses")}
    wanted = {"losses.laplace_nll", "conv_vae.ConvVAE", "discriminator.vae_gan_loss"}
    assert {f"helpers.models.{name}" for name in wanted} <= found
    assert {"helpers.training.loop.fit", "helpers.training.schedules.make_lr_scheduler"} <= found
    assert "tests.benchmarks.bench_dog_losses.LOSSES" in found
    assert not [name for name in found if name.startswith(("helpers.show", "helpers.exercises"))]
    assert not [name for name in found if "drawing" in name]  # its dogs are photographs


def test_no_result_is_older_than_the_code_that_makes_it():
    older = restamp.stale()
    names = " ".join(sorted({writer_of(f"results/{name}") for name in older}))
    assert not older, (
        f"{', '.join(older)}: the code that makes these results has changed since they were "
        f'measured; `make bench BENCH="{names}"` measures them again'
    )


def test_a_stale_result_is_listed_and_can_be_stamped(tmp_path, capsys):
    for file, source in FILES.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(source)
    path = tmp_path / "data" / "results" / "toy.json"
    path.parent.mkdir(parents=True)
    old = {"values": {"nats": 104.4}, "profile": "cpu", "code": "0123", "versions": {}}
    path.write_text(json.dumps(old))

    assert restamp.main([], tmp_path) == 1
    assert "`make bench BENCH=toy`" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        restamp.main(["toys"], tmp_path)
    assert "'toys' is no result that is older than its code; these are: toy." in (
        capsys.readouterr().err
    )
    assert json.loads(path.read_text()) == old

    assert restamp.main(["toy"], tmp_path) == 0
    new = json.loads(path.read_text())
    assert new == old | {"code": fingerprint("toy", "cpu", tmp_path)} and list(new) == list(old)
    assert restamp.main([], tmp_path) == 0
