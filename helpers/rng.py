"""Seeds and random generators: whatever is drawn at random can be drawn again."""

import hashlib
import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> dict[str, torch.Tensor]:
    """The state of torch's global generators (dropout draws from them)."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, torch.Tensor]) -> None:
    """Put back what `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


class ShardedGenerator(torch.Generator):
    """A torch.Generator of one process among several that share a batch.

    `shard = (index, count)`: every process draws the numbers of the whole batch and keeps the rows
    that are its own, so that several processes see the same noise as one.
    """

    shard = (0, 1)


def generator_for(
    *key, device: torch.device | str = "cpu", shard: tuple[int, int] = (0, 1)
) -> torch.Generator:
    """A generator that depends on `key` alone, e.g. (seed, epoch, step).

    So a run that goes on after a kill has no state of a generator to bring back.
    """
    generator = ShardedGenerator(device=device)
    digest = hashlib.blake2b(repr(key).encode(), digest_size=7).digest()
    generator.manual_seed(int.from_bytes(digest, "big"))
    generator.shard = shard
    return generator


def draw(sampler, shape, generator: torch.Generator | None = None, **options) -> torch.Tensor:
    """`sampler` (torch.randn, torch.rand) of `shape`, whose first dimension counts a batch.

    With a ShardedGenerator `shape` is that of this process's part of the batch.
    """
    index, count = getattr(generator, "shard", (0, 1))
    if count == 1:
        return sampler(shape, generator=generator, **options)
    whole = sampler((shape[0] * count, *shape[1:]), generator=generator, **options)
    return whole[index * shape[0] : (index + 1) * shape[0]]


def randn_like(tensor: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Standard normal noise like `tensor` (torch.randn_like, but with a generator)."""
    return draw(torch.randn, tensor.shape, generator, dtype=tensor.dtype, device=tensor.device)
