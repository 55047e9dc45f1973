"""Seeds and generators: whatever is drawn can be drawn again, by any number of processes."""

import random

import numpy as np
import pytest
import torch

from helpers import rng


def test_seeding_reaches_every_generator():
    def draws():
        numpys = np.random.rand()  # noqa: NPY002 (the one that is seeded)
        return random.random(), numpys, torch.rand(1).item()

    rng.seed_everything(5)
    first = draws()
    rng.seed_everything(5)
    assert draws() == first
    rng.seed_everything(6)
    assert all(a != b for a, b in zip(draws(), first, strict=True))


def test_the_random_state_comes_back():
    state = rng.random_state()
    first = torch.rand(3)
    rng.set_random_state(state)
    assert torch.equal(torch.rand(3), first)


def test_a_generator_depends_on_its_key_alone():
    def draw(*key):
        return torch.rand(4, generator=rng.generator_for(*key)).tolist()

    torch.manual_seed(0)
    first = draw("noise", 1, 2, 3)
    torch.manual_seed(9)
    assert draw("noise", 1, 2, 3) == first
    keys = [("noise", 1, 2, 4), ("noise", 12, 3), ("augment", 1, 2, 3), ("noise", 1, 23)]
    assert len({tuple(draw(*key)) for key in keys} | {tuple(first)}) == 5


@pytest.mark.parametrize("sampler", [torch.randn, torch.rand])
@pytest.mark.parametrize("shape", [(6,), (6, 2, 3)])
def test_processes_draw_their_rows_of_the_whole_batch(sampler, shape):
    whole = rng.draw(sampler, shape, rng.generator_for("key"))
    assert torch.equal(whole, sampler(shape, generator=rng.generator_for("key")))
    for count in (2, 3):
        part = (6 // count, *shape[1:])
        generators = [rng.generator_for("key", shard=(index, count)) for index in range(count)]
        rows = [rng.draw(sampler, part, generator) for generator in generators]
        assert torch.equal(torch.cat(rows), whole)


def test_noise_like_a_tensor():
    tensor = torch.zeros(4, 3, dtype=torch.float64)
    noise = rng.randn_like(tensor, rng.generator_for("key"))
    assert noise.shape == (4, 3) and noise.dtype == torch.float64
    generators = [rng.generator_for("key", shard=(index, 2)) for index in (0, 1)]
    halves = [rng.randn_like(tensor[:2], generator) for generator in generators]
    assert torch.equal(torch.cat(halves), noise)
    assert rng.randn_like(tensor.bfloat16()).dtype == torch.bfloat16
