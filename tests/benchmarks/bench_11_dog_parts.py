"""Take the network apart: the same steps without attention, normalisation or shortcuts, and what a step costs.

Three seeds; about 22 minutes on two cores.  Every run has one thread to itself; steps and not minutes, so that nothing
else that runs on the machine changes the quality.
"""

import statistics
import time

import torch
from torch import nn

from helpers import CourseError
from helpers.blocks import ResBlock
from helpers.budget import budget
from helpers.data import ImageSet, load_dogs
from helpers.image_metrics import psnr, reconstruct
from helpers.results import save_result
from tests.benchmarks.common import SEEDS, over_seeds, side_by_side, take_shared
from tests.benchmarks.dog_recipes import course_model, train_ours

RESOLUTION, FACTOR, STEPS = 64, 4, budget(quick=4, cpu=800, gpu=4000)


class Nothing(nn.Module):
    """Stands where a shortcut was: 0 + f(x)."""

    def forward(self, x):
        return torch.zeros((), device=x.device)


class Scaled(nn.Module):
    """A shortcut's neighbour: the residual branch times a learned number, as the original course has it."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.conv, self.scale = conv, nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.scale * self.conv(x)


def without_shortcuts(model: nn.Module) -> nn.Module:
    for block in [module for module in model.modules() if isinstance(module, ResBlock)]:
        block.shortcut = Nothing()
        block.conv2.reset_parameters()  # it started at zero, which now would let nothing through
    return model


def without_norms(model: nn.Module) -> nn.Module:
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(parent, name, nn.Identity())
    return model


def with_scales(model: nn.Module) -> nn.Module:
    for block in [module for module in model.modules() if isinstance(module, ResBlock)]:
        block.conv2 = Scaled(block.conv2)
    return model


def variants(seed: int = 0) -> dict:
    """name → a fresh model."""
    return {
        "all parts": course_model(seed, factor=FACTOR),
        "no attention": course_model(seed, factor=FACTOR, mid_attention=False),
        "no normalisation": without_norms(course_model(seed, factor=FACTOR)),
        "no shortcuts": without_shortcuts(course_model(seed, factor=FACTOR)),
        "a learned scale on every residual branch": with_scales(course_model(seed, factor=FACTOR)),
    }


def train(job: tuple[str, int]) -> dict:
    """Held-out PSNR of one variant with one seed, or the sentence with which its training stopped."""
    name, seed = job
    training, test = load_dogs(RESOLUTION, "train"), load_dogs(RESOLUTION, "test")
    try:
        model, _ = train_ours(training, seed, variants(seed)[name], steps=STEPS)
    except CourseError as error:
        return {"stopped": str(error)}
    return {"psnr": psnr(reconstruct(model, test), test.pixels()).mean().item(), "source": test.source}


def step_costs(training: ImageSet, turns: int = budget(quick=1, cpu=7, gpu=7)) -> dict[str, float]:
    """Seconds of a training step of each variant beside those with all parts: medians over turns of eight steps each."""
    seconds = {name: [] for name in variants()}
    for _ in range(turns):
        for name, model in variants().items():
            started = time.perf_counter()
            train_ours(training, 0, model, steps=8)
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {name: median / medians["all parts"] for name, median in medians.items()}


def main() -> None:
    jobs = [(name, seed) for seed in SEEDS for name in variants()]
    found = dict(zip(jobs, side_by_side(train, jobs), strict=True))
    (source,) = take_shared([row for row in found.values() if "psnr" in row], "source")
    costs, rows = step_costs(load_dogs(RESOLUTION, "train")), {}
    for name in variants():
        each = [found[name, seed] for seed in SEEDS]
        stopped = [row for row in each if "stopped" in row]
        rows[name] = {"time": costs[name]} | (stopped[0] if stopped else over_seeds(each))
    print(*rows.items(), sep="\n")
    save_result("dog_parts", {"steps": STEPS, "resolution": RESOLUTION, "rows": rows}, seeds=SEEDS, data=source)


if __name__ == "__main__":
    main()
