"""A fingerprint of the code that a result was measured with: the recipe, and not its prose.

It covers every definition that a benchmark reaches in helpers and tests.benchmarks, from its main
on, and the benchmarks that write what it needs.  So it changes with a learning rate, a loss, a
layer or a seed.  It does not change with docstrings, comments, annotations, messages and line
breaks, with the file that a definition stands in, with what is for another profile alone, and with
what stands in NO_RECIPE.  It is made of the syntax tree, which is the same in Python 3.11 and 3.13.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

from tests.benchmarks.catalogue import ROOT, before

NO_RECIPE = {  # modules, definitions and methods that change no number: files, messages, progress
    "helpers",
    "helpers.env",
    "helpers.results",
    "helpers.data.downloads",
    "helpers.data.large_folder",  # of what memory cannot hold, and the benchmarks' data it can
    "helpers.diffusion.latents.PromptStrip",
    "helpers.diffusion.weight_names",
    "helpers.train_tiny_sd.export_pipeline",
    "helpers.train_vae.export",
    "helpers.train_vae.load_from_diffusers",
    "helpers.training.checkpoints",
    "helpers.training.filmstrip",
    "helpers.training.fingerprint",
    "helpers.training.history",
    "helpers.training.loop._first_weights",
    "helpers.training.loop._open_run",
    "helpers.training.loop.polite_interrupt",
    "helpers.training.model_card",
    "helpers.training.options._contradiction",
    "helpers.training.pictures",
    "helpers.training.progress",
    "helpers.training.run_state",
    "helpers.training.trainer.Trainer._progress_bar",
    "helpers.training.trainer.Trainer._save",
    "helpers.training.trainer.Trainer.is_finished",
    "tests.benchmarks.common.publish",
}
OURS = ("helpers", "tests")
NO_CODE = {"annotation", "returns", "ctx", "kind", "simple", "type_comment", "type_params"}
SENTENCE = 6  # words: a text of so many is for a reader


def fingerprint(benchmark: str, profile: str, root: Path = ROOT) -> str:
    """16 hex digits for the recipe of `benchmark` in `profile`."""
    names = {benchmark}
    while more := {other for name in names for other in before(name, root)} - names:
        names |= more
    definitions = {where for name in names for where in reached(name, root)}
    texts = {_text_of(module, name, profile, root) for module, name in definitions}
    return hashlib.blake2b("\n".join(sorted(texts)).encode(), digest_size=8).hexdigest()


def reached(benchmark: str, root: Path = ROOT) -> list[tuple[str, str]]:
    """(module, name) of every definition that running a benchmark reaches.

    Raises LookupError where a name is imported from a module of the course that has no such name.
    """
    start = f"tests.benchmarks.bench_{benchmark}"
    waiting = list(_named(_read(start, root).main, start, root))
    seen = set()
    found = []
    while waiting:
        dotted = waiting.pop()
        module, _, name = dotted.rpartition(".")
        if dotted in seen or {module, dotted} & NO_RECIPE:
            continue
        seen.add(dotted)
        source = _read(module, root)
        if name in source.definitions:
            found.append((module, name))
            waiting += _named_in(module, name, root)
        elif name in source.imports:
            waiting.append(source.imports[name])
        elif name not in source.foreign and not _is_module(dotted, root):
            raise LookupError(f"{module} has no {name}: import it from the module that defines it")
    return found


def code_of(module: str, name: str, root: Path = ROOT) -> ast.Module:
    """The statements that define a name, without their prose."""
    return ast.Module(_read(module, root).definitions[name], [])


@cache
def _named_in(module: str, name: str, root: Path) -> frozenset[str]:
    return _named(code_of(module, name, root), module, root)


@cache
def _text_of(module: str, name: str, profile: str, root: Path) -> str:
    return _text(code_of(module, name, root), profile)


class _Source:
    """One file: its definitions by name, and what the other names in it stand for.

    imports: {name: "helpers.training.loop.fit"}; foreign: names from other packages; main: the
    block under `if __name__ == "__main__"`.
    """

    def __init__(self, module: str, text: str):
        tree = ast.parse(text)
        self.imports: dict[str, str] = {}
        self.foreign: set[str] = set()
        self.definitions: dict[str, list[ast.stmt]] = {}
        self.main = ast.Module([], [])
        for statement in tree.body:
            if isinstance(statement, ast.If) and "__main__" in ast.dump(statement.test):
                self.main.body += statement.body
            elif isinstance(statement, ast.Import | ast.ImportFrom):
                self.imports |= _imports(statement)
                self.foreign |= {a.asname or a.name.split(".")[0] for a in statement.names}
            else:
                code = _Recipe(module).visit(statement)
                for name in _defines(statement) if code else ():
                    self.definitions.setdefault(name, []).append(code)


@cache
def _read(module: str, root: Path) -> _Source:
    path = root.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return _Source(module, file.read_text(encoding="utf-8"))


@cache
def _is_module(dotted: str, root: Path) -> bool:
    path = root.joinpath(*dotted.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def _imports(statement: ast.AST) -> dict[str, str]:
    """{name: what it stands for} of an import of the course's own."""
    found = {}
    if isinstance(statement, ast.ImportFrom) and statement.module.split(".")[0] in OURS:
        found = {a.asname or a.name: f"{statement.module}.{a.name}" for a in statement.names}
    elif isinstance(statement, ast.Import):
        found = {a.asname: a.name for a in statement.names if a.name.split(".")[0] in OURS}
    return found


def _defines(statement: ast.stmt) -> list[str]:
    """The names that a statement at the top of a file defines."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    nodes = list(ast.walk(statement))
    return [n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]


def _named(code: ast.AST, module: str, root: Path) -> frozenset[str]:
    """What the names in `code` stand for, as far as it is the course's: "helpers.rng.draw"."""
    source = _read(module, root)
    known = dict(source.imports) | {name: f"{module}.{name}" for name in source.definitions}
    nodes = list(ast.walk(code))
    for node in nodes:
        known |= _imports(node)
    found = {known[n.id] for n in nodes if isinstance(n, ast.Name) and n.id in known}
    for node in nodes:  # names of a module: losses.bernoulli_nll
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            whole = known.get(node.value.id, "")
            if whole and _is_module(whole, root) and node.attr in _read(whole, root).definitions:
                found.add(f"{whole}.{node.attr}")
    return frozenset(found)


class _Recipe(ast.NodeTransformer):
    """Takes out what is for a reader: docstrings, annotations, messages, help, sentences.

    And checks that refuse a run: `if wrong: raise …`, and calls of check_… and _check_….
    """

    def __init__(self, module: str):
        self.module = module

    def visit_ClassDef(self, node):
        where = f"{self.module}.{node.name}"
        methods = [n for n in node.body if f"{where}.{getattr(n, 'name', '')}" not in NO_RECIPE]
        node.body = methods
        return self.generic_visit(node)

    def visit_Expr(self, node):
        function = getattr(node.value, "func", None)
        name = getattr(function, "id", getattr(function, "attr", ""))  # f(x) or self.f(x)
        speaks = name == "print" or name.lstrip("_").startswith("check")
        return None if speaks or isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_If(self, node):
        if isinstance(node.body[-1], ast.Raise) and not node.orelse:
            return None  # a run that has a result was not refused
        constants = [n.value for n in ast.walk(node.test) if isinstance(n, ast.Constant)]
        if "quick" in constants:  # embedded data, of which no result is published
            return [self.visit(statement) for statement in node.orelse]
        return self.generic_visit(node)

    def visit_Raise(self, node):
        return ast.Raise()

    def visit_Pass(self, node):
        return None  # what is left of a body that is a docstring

    def visit_FunctionDef(self, node):
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node):
        return ast.arg(node.arg)

    def visit_AnnAssign(self, node):
        if node.value is None:  # a field of a dataclass
            return ast.AnnAssign(node.target, ast.Constant(None))
        return self.generic_visit(ast.Assign([node.target], node.value))

    def visit_keyword(self, node):
        return None if node.arg in ("help", "metavar", "usage") else self.generic_visit(node)

    def visit_Constant(self, node):
        text = node.value if isinstance(node.value, str) else ""
        # the corners of a drawn dog are a text of many numbers, and no sentence
        sentence = len(text.split()) >= SENTENCE and any(map(str.isalpha, text))
        return ast.Constant("…") if sentence else node


def _text(node, profile: str) -> str:
    """A syntax tree as text: what `ast.dump` writes differs from version to version."""
    if isinstance(node, list):
        imports = (ast.Import, ast.ImportFrom)
        return "[" + ",".join(_text(n, profile) for n in node if not isinstance(n, imports)) + "]"
    if not isinstance(node, ast.AST):
        return ascii(node)
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "budget":
        return "".join(_text(k.value, profile) for k in node.keywords if k.arg == profile)
    if isinstance(node, ast.JoinedStr):
        # Python 3.12 cuts the text between the braces into other pieces
        pieces = (
            n.value if isinstance(n, ast.Constant) else _text(n, profile) for n in node.values
        )
        return ascii("".join(pieces))
    fields = [
        f"{name}={_text(value, profile)}"
        for name, value in ast.iter_fields(node)
        if name not in NO_CODE and value is not None and value != []
    ]
    return f"{type(node).__name__}({','.join(fields)})"
