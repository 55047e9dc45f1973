"""A training step: the course's against the plain loop, and its cost as pictures and batches grow.

Every measurement is a process of its own, so that its peak memory is its own
(`python -m tests.benchmarks.bench_dog_steps KIND NETWORK RESOLUTION BATCH`); the contenders take
turns.  About 14 minutes.
"""

import json
import subprocess
import sys
import time
from functools import partial

import torch
from torch.utils.data import DataLoader

from helpers.data.datasets import load_dogs
from helpers.data.image_set import ImageSet
from helpers.env import ROOT, budget, device
from helpers.models.blocks import AttentionBlock
from helpers.models.conv_vae import ConvVAE, VAEConfig, image_loss
from helpers.models.losses import calibrated_gaussian_nll
from helpers.results import describe_device
from helpers.rng import seed_everything
from helpers.training.loop import choose_precision, fit
from tests.benchmarks.common import SUFFIX, compare, publish
from tests.benchmarks.course_recipes import counting_flip
from tests.benchmarks.dog_recipes import OneByOne

NEEDS = ()
WRITES = ("results/dog_steps", "results/dog_costs")

SECONDS = budget(quick=0.5, cpu=8.0, gpu=10.0)  # per measurement, after a warm-up
TURNS = budget(quick=1, cpu=3, gpu=3)
NETWORKS = {  # name → the configuration for pictures of so many pixels
    "course": lambda resolution: VAEConfig.course(4 if resolution <= 64 else 8),
    "Stable Diffusion": lambda _: VAEConfig.stable_diffusion(),
}
PAIRS = budget(  # network, resolution, batch size
    quick=[("course", 32, 2)],
    cpu=[("course", 64, 16), ("course", 128, 8), ("course", 256, 4), ("Stable Diffusion", 64, 4)],
    gpu=[("course", 64, 64), ("course", 128, 32), ("course", 256, 8), ("Stable Diffusion", 256, 8)],
)
CPU_GRID = [(size, batch) for size in (64, 128) for batch in (1, 4, 16, 64)]
CPU_GRID += [(256, 1), (256, 4), (256, 16), (512, 1), (512, 4)]
GPU_GRID = [(size, batch) for size in (64, 128, 256, 512) for batch in (1, 4, 16, 64)]
GRID = budget(quick=[(32, 1)], cpu=CPU_GRID, gpu=GPU_GRID)


class WrittenOut(AttentionBlock):
    """The weights as a matrix, in memory."""

    def forward(self, x):
        tokens = self.tokens(x)
        mixed = self.weights(tokens) @ self.split(self.v(tokens))  # (B, heads, H·W, C/heads)
        mixed = self.out(mixed.transpose(1, 2).flatten(2))  # (B, H·W, C)
        return x + mixed.transpose(1, 2).reshape(x.shape)


def plain_loop(model: ConvVAE, data: ImageSet, batch: int, seconds: float) -> int:
    """Images seen in so many seconds: fp32, attention written out, one picture at a time."""
    for module in model.modules():
        if isinstance(module, AttentionBlock):
            module.__class__ = WrittenOut
    on = device()
    model.to(on).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader = DataLoader(OneByOne(data), batch_size=batch, shuffle=True, drop_last=True)
    seen = 0
    started = time.perf_counter()
    while True:
        for normalised in loader:
            x = (normalised.to(on) + 1) / 2  # from [-1, 1] to [0, 1]
            output = model(x)
            nll = calibrated_gaussian_nll(output.decoded, x)
            loss = (nll + 0.1 * output.posterior.kl()).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen += batch
            float(loss.detach())  # a GPU has finished
            if time.perf_counter() - started > seconds:
                return seen


def our_loop(model: ConvVAE, data: ImageSet, batch: int, seconds: float) -> int:
    """Images seen by `fit`: half precision, fused attention and optimizer, batches by index."""
    augment, seen = counting_flip()
    loss = partial(image_loss, beta=0.1)
    fit(model, loss, data, minutes=seconds / 60, batch_size=batch, augment=augment)
    return sum(seen)


LOOPS = {"plain": plain_loop, "ours": our_loop, "ours, gradient checkpointing": our_loop}


def megabytes() -> float:
    """The most memory that this process has held so far; on a GPU, that its tensors have."""
    if device().type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    import resource  # not on Windows, where nothing like it comes with Python

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def one(kind: str, network: str, resolution: int, batch: int) -> dict:
    """Images per second, and the memory that training added to a process with the data loaded."""
    seed_everything(0)
    data = load_dogs(resolution, "validation")[: max(2 * batch, 64)]
    before = megabytes()
    model = ConvVAE(NETWORKS[network](resolution))
    model.set_gradient_checkpointing(kind.endswith("gradient checkpointing"))
    LOOPS[kind](model, data, batch, SECONDS / 4)  # warm-up
    started = time.perf_counter()
    seen = LOOPS[kind](model, data, batch, SECONDS)
    speed = seen / (time.perf_counter() - started)
    return {"images per second": speed, "megabytes": megabytes() - before}


def measure(kind: str, network: str, resolution: int, batch: int) -> dict:
    """`one` in a process of its own."""
    module = "tests.benchmarks.bench_dog_steps"
    command = [sys.executable, "-m", module, kind, network, str(resolution), str(batch)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8")
    if found.returncode:
        raise SystemExit(found.stderr)
    return json.loads(found.stdout.splitlines()[-1])


def main() -> None:
    against = {}
    for network, resolution, batch in PAIRS:
        turns = []
        for _ in range(TURNS):
            turns.append({kind: measure(kind, network, resolution, batch) for kind in LOOPS})
        row = against[f"{network}, {resolution} px, batch {batch}"] = {}
        for what, unit in (("images per second", "/s"), ("megabytes", "MB")):
            columns = {kind: [turn[kind][what] for turn in turns] for kind in LOOPS}
            row[what] = compare(f"{resolution} px", unit, columns)
    source = load_dogs(64, "validation").source
    publish("dog_steps" + SUFFIX, against, seeds=[0], data=source)

    rows = []
    for size, batch in GRID:
        costs = measure("ours", "course", size, batch)
        rows.append({"resolution": size, "batch": batch} | costs)
    print(*rows, sep="\n")
    precision = choose_precision(device())
    values = {"device": describe_device(), "precision": precision, "rows": rows}
    publish("dog_costs" + SUFFIX, values, seeds=[0], data=source)


if __name__ == "__main__":
    if len(sys.argv) == 5:
        print(json.dumps(one(*sys.argv[1:3], *map(int, sys.argv[3:]))))
    else:
        main()
