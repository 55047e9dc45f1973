"""Take the network apart: no attention, no normalisation, no shortcuts; the loss and the cost.

The same steps for all, and not minutes, so that nothing else that runs on the machine changes the
quality.  Three seeds; every run has one thread to itself.  About 22 minutes on two cores.
"""

import statistics
import time

import torch
from torch import nn

from helpers import CourseError
from helpers.data.datasets import load_dogs
from helpers.data.image_set import ImageSet
from helpers.env import budget
from helpers.metrics.images import psnr, reconstruct
from helpers.models.blocks import ResBlock
from tests.benchmarks.common import SEEDS, over_seeds, publish, take_shared
from tests.benchmarks.course_recipes import course_model, train_ours
from tests.benchmarks.parallel import side_by_side

NEEDS = ()
WRITES = ("results/dog_parts",)

RESOLUTION = 64
FACTOR = 4
STEPS = budget(quick=4, cpu=800, gpu=4000)
TURNS = budget(quick=1, cpu=7, gpu=7)  # of timing


class Nothing(nn.Module):
    """Stands where a shortcut was: 0 + f(x)."""

    def forward(self, x):
        return torch.zeros((), device=x.device)


class Scaled(nn.Module):
    """The residual branch times a learned number, as the original course has it."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.conv = conv
        self.scale = nn.Parameter(torch.ones(1))

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


def variants(seed: int = 0) -> dict[str, nn.Module]:
    """{name: a fresh model}."""
    return {
        "all parts": course_model(seed, factor=FACTOR),
        "no attention": course_model(seed, factor=FACTOR, mid_attention=False),
        "no normalisation": without_norms(course_model(seed, factor=FACTOR)),
        "no shortcuts": without_shortcuts(course_model(seed, factor=FACTOR)),
        "a learned scale on every residual branch": with_scales(course_model(seed, factor=FACTOR)),
    }


def train(job: tuple[str, int]) -> dict:
    """Held-out PSNR of one variant and seed, or the sentence with which its training stopped."""
    name, seed = job
    training = load_dogs(RESOLUTION, "train")
    test = load_dogs(RESOLUTION, "test")
    try:
        model, _ = train_ours(training, seed, variants(seed)[name], steps=STEPS)
    except CourseError as error:
        return {"stopped": str(error)}
    return {
        "psnr": psnr(reconstruct(model, test), test.pixels()).mean().item(),
        "source": test.source,
    }


def step_costs(training: ImageSet) -> dict[str, float]:
    """Seconds of a training step of each variant, as a share of those with all parts.

    Medians over TURNS of eight steps each.
    """
    seconds = {name: [] for name in variants()}
    for _ in range(TURNS):
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
    costs = step_costs(load_dogs(RESOLUTION, "train"))
    rows = {}
    for name in variants():
        each = [found[name, seed] for seed in SEEDS]
        stopped = [row for row in each if "stopped" in row]
        rows[name] = {"time": costs[name]} | (stopped[0] if stopped else over_seeds(each))
    print(*rows.items(), sep="\n")
    values = {"steps": STEPS, "resolution": RESOLUTION, "rows": rows}
    publish("dog_parts", values, seeds=SEEDS, data=source)


if __name__ == "__main__":
    main()
