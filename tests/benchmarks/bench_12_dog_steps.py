"""A training step: ours against the plain loop, and what it costs as pictures and batches grow.  About 14 minutes.

Every measurement is a process of its own (`python -m tests.benchmarks.bench_12_dog_steps KIND NETWORK RESOLUTION BATCH`),
so that its peak memory is its own; the contenders take turns.
"""

import json
import subprocess
import sys
import time
from functools import partial

import torch
from torch.utils.data import DataLoader

from helpers.blocks import AttentionBlock
from helpers.budget import ROOT, budget, device, seed_everything
from helpers.conv_vae import ConvVAE, VAEConfig, image_loss
from helpers.data import load_dogs, random_flip
from helpers.losses import calibrated_gaussian_nll
from helpers.results import describe_device, save_result
from helpers.training import choose_precision, fit
from tests.benchmarks.common import SUFFIX, report
from tests.benchmarks.dog_recipes import OneByOne

SECONDS = budget(quick=0.5, cpu=8.0, gpu=10.0)  # per measurement, after a warm-up
TURNS = budget(quick=1, cpu=3, gpu=3)
NETWORKS = {  # name → the configuration for pictures of so many pixels
    "course": lambda resolution: VAEConfig.course(4 if resolution <= 64 else 8),
    "Stable Diffusion": lambda _: VAEConfig.stable_diffusion(),
}
PAIRS = budget(
    quick=[("course", 32, 2)],
    cpu=[("course", 64, 16), ("course", 128, 8), ("course", 256, 4), ("Stable Diffusion", 64, 4)],
    gpu=[("course", 64, 64), ("course", 128, 32), ("course", 256, 8), ("Stable Diffusion", 256, 8)],
)
GRID = budget(
    quick=[(32, 1)],
    cpu=[(64, 1), (64, 4), (64, 16), (64, 64), (128, 1), (128, 4), (128, 16), (128, 64), (256, 1), (256, 4), (256, 16),
         (512, 1), (512, 4)],
    gpu=[(size, batch) for size in (64, 128, 256, 512) for batch in (1, 4, 16, 64)],
)  # fmt: skip


class WrittenOut(AttentionBlock):
    """The weights as a matrix, in memory."""

    def forward(self, x):
        tokens = self.tokens(x)
        mixed = self.out((self.weights(tokens) @ self.split(self.v(tokens))).transpose(1, 2).flatten(2))
        return x + mixed.transpose(1, 2).reshape(x.shape)


def plain_loop(model: ConvVAE, data, batch: int, seconds: float) -> int:
    """Images seen in so many seconds: fp32, attention written out, one picture at a time."""
    for module in model.modules():
        if isinstance(module, AttentionBlock):
            module.__class__ = WrittenOut
    on, seen, started = device(), 0, time.perf_counter()
    model.to(on).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader = DataLoader(OneByOne(data), batch_size=batch, shuffle=True, drop_last=True)
    while True:
        for x in loader:
            x = x.to(on)
            output = model(x)
            loss = (calibrated_gaussian_nll(output.decoded, x) + 0.1 * output.posterior.kl()).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen += batch
            float(loss.detach())  # a GPU has finished
            if time.perf_counter() - started > seconds:
                return seen


def our_loop(model: ConvVAE, data, batch: int, seconds: float) -> int:
    """Images seen by `fit`: half precision, fused attention and optimizer, batches sliced from one tensor."""
    seen = []

    def augment(images, generator):
        seen.append(len(images))
        return random_flip(images, generator)

    fit(model, partial(image_loss, beta=0.1), data, minutes=seconds / 60, batch_size=batch, augment=augment)
    return sum(seen)


LOOPS = {"plain": plain_loop, "ours": our_loop, "ours, recompute": our_loop}


def megabytes() -> float:
    """The most memory that this process has held so far; on a GPU, that its tensors have."""
    if device().type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    import resource  # not on Windows, where nothing like it comes with Python

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def one(kind: str, network: str, resolution: int, batch: int) -> dict:
    """Images per second, and the memory that training added to a process that had loaded the data."""
    seed_everything(0)
    data = load_dogs(resolution, "validation")[: max(2 * batch, 64)]
    before = megabytes()
    model = ConvVAE(NETWORKS[network](resolution)).recompute(kind.endswith("recompute"))
    LOOPS[kind](model, data, batch, SECONDS / 4)  # warm-up
    started = time.perf_counter()
    seen = LOOPS[kind](model, data, batch, SECONDS)
    return {"images per second": seen / (time.perf_counter() - started), "megabytes": megabytes() - before}


def measure(kind: str, network: str, resolution: int, batch: int) -> dict:
    command = [sys.executable, "-m", "tests.benchmarks.bench_12_dog_steps", kind, network, str(resolution), str(batch)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        raise SystemExit(found.stderr)
    return json.loads(found.stdout.splitlines()[-1])


def main() -> None:
    against = {}
    for network, resolution, batch in PAIRS:
        turns = [{kind: measure(kind, network, resolution, batch) for kind in LOOPS} for _ in range(TURNS)]
        name = f"{network}, {resolution} px, batch {batch}"
        for what, unit in (("images per second", "/s"), ("megabytes", "MB")):
            columns = {kind: [turn[kind][what] for turn in turns] for kind in LOOPS}
            against.setdefault(name, {})[what] = report(f"{resolution} px", unit, columns)
    source = load_dogs(64, "validation").source
    save_result("dog_steps" + SUFFIX, against, seeds=[0], data=source)
    rows = [{"resolution": size, "batch": batch} | measure("ours", "course", size, batch) for size, batch in GRID]
    values = {"device": describe_device(), "precision": choose_precision(device()), "rows": rows}
    save_result("dog_costs" + SUFFIX, values, seeds=[0], data=source)
    print(*rows, sep="\n")


if __name__ == "__main__":
    if len(sys.argv) == 5:
        print(json.dumps(one(*sys.argv[1:3], *map(int, sys.argv[3:]))))
    else:
        main()
