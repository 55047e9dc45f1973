"""Fingerprints: they change with every value and with the code, and with nothing else."""

import functools
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from helpers.models.mlp_vae import MLPVAE, Autoencoder
from helpers.training.fingerprint import fingerprint_of


def define(source: str, name: str = "f", **known):
    """Run code as a notebook's cell would, and return what it defines."""
    space = {"__name__": "__main__", "torch": torch, "nn": nn, **known}
    exec(source, space)
    return space[name]


def closing_over(value):
    return lambda x: x * value


def nested(value):
    return lambda x: (lambda y: y * value)(x)


@dataclass(frozen=True)
class Settings:
    width: int = 3


def test_a_fingerprint_is_the_same_for_the_same():
    parts = ({"a": 1, "b": [2.5, None, "x"]}, torch.arange(3), define("def f(x): return x + 1"))
    assert fingerprint_of(*parts) == fingerprint_of(*parts)
    assert len(fingerprint_of(*parts)) == 16


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.zeros(3), torch.tensor([0.0, 0.0, 1e-30])),
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (torch.zeros(3), torch.zeros(3, dtype=torch.int32)),
        (1, 2),
        (1, "1"),
        (None, "None"),
        ({"epochs": 1, "batch_size": 64}, {"epochs": 16, "batch_size": 4}),
        ([1, 23], [12, 3]),
        (["a", ["b"]], [["a"], "b"]),
        ([["a"], "b"], [["a", "b"]]),
        ({"a": 1}, {"b": 1}),
        ({1, 2}, {1, 3}),
        (torch.zeros(2).numpy(), torch.ones(2).numpy()),
        (functools.partial(print, end=""), functools.partial(print, end=" ")),
        (MLPVAE, Autoencoder),
        (Settings(), Settings(4)),
    ],
)
def test_a_fingerprint_changes_with_a_value(one, other):
    assert fingerprint_of(one) != fingerprint_of(other)
    assert fingerprint_of(one) == fingerprint_of(one)


@pytest.mark.parametrize("make", [closing_over, nested])
@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        (2, 2, 3),
        (torch.ones(2), torch.ones(2), torch.zeros(2)),
        (closing_over(1), closing_over(1), closing_over(2)),
    ],
)
def test_a_fingerprint_changes_with_what_a_function_closes_over(make, one, same, other):
    assert fingerprint_of(make(one)) == fingerprint_of(make(same)) != fingerprint_of(make(other))


METHOD = "class f:\n def go(self): return {}"
PROPERTY = "class f:\n @property\n def k(self): return {}"
STATIC = "class f:\n @staticmethod\n def k(): return {}"
BASE_CLASS = "class G:\n def go(self): return {}\nclass f(G): pass"
MADE = "class G:\n def go(self): return {}\ndef f(x): return G().go()"
CALLABLE = "class G:\n def __call__(self): return {}\nf = G()"
HOLDING = "class G:\n def __init__(self, k): self.k = k\nf = G({})"
BOUND = "class G:\n def __init__(self, k): self.k = k\n def go(self): return self.k\nf = G({}).go"

CHANGES = {  # code, and two things to stand in its place {}
    "a constant": ("def f(x): return x * {}", "2", "3"),
    "an operation": ("def f(x): return x {} 2", "*", "+"),
    "a called name": ("def f(x): return x.{}()", "sin", "cos"),
    "a default": ("def f(x, k={}): return x", "1", "2"),
    "a keyword default": ("def f(x, *, k={}): return x", "1", "2"),
    "a lambda inside": ("def f(x): return (lambda y: y * {})(x)", "2", "3"),
    "a global": ("k = {}\ndef f(x): return x * k", "1", "2"),
    "a global in a lambda": ("k = {}\ndef f(x): return [(lambda: k)()]", "1", "2"),
    "a global tensor": ("k = torch.{}(1)\ndef f(x): return x * k", "zeros", "ones"),
    "a function it calls": ("def g(x): return {}x\ndef f(x): return g(x)", "", "-"),
    "a class it makes": (MADE, "1", "2"),
    "a method": (METHOD, "1", "2"),
    "a class constant": ("class f:\n k = {}", "1", "2"),
    "a property": (PROPERTY, "1", "2"),
    "a static method": (STATIC, "1", "2"),
    "a base class": (BASE_CLASS, "1", "2"),
    "a callable object": (CALLABLE, "1", "2"),
    "what an object holds": (HOLDING, "1", "2"),
    "the object of a method": (BOUND, "1", "2"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_fingerprint_changes_with_the_code(what):
    code, *values = CHANGES[what]
    one, other = (code.format(value) for value in values)
    assert fingerprint_of(define(one)) != fingerprint_of(define(other))
    moved = "\n\n# at another line\n" + one
    assert fingerprint_of(define(one)) == fingerprint_of(define(moved))


def test_a_fingerprint_ignores_what_the_code_does_not_use():
    source = "def f(batch): return batch['images']"
    known = {"images": torch.zeros(3), "k": 5}
    assert fingerprint_of(define(source)) == fingerprint_of(define(source, **known))


def test_a_fingerprint_ends_for_recursive_code_and_for_a_librarys():
    for source in (
        "def f(n): return n and f(n - 1)",
        "class f:\n def copy(self): return f()",
        "class G: pass\nf = G()\nf.me = f",
        "f = nn.functional.scaled_dot_product_attention",
    ):
        assert fingerprint_of(define(source)) == fingerprint_of(define(source))


def test_a_fingerprint_includes_a_models_weights_and_code():
    one, other = MLPVAE(2, (4,)), MLPVAE(2, (4,))
    assert fingerprint_of(closing_over(one)) != fingerprint_of(closing_over(other))
    other.load_state_dict(one.state_dict())
    assert fingerprint_of(closing_over(one)) == fingerprint_of(closing_over(other))
