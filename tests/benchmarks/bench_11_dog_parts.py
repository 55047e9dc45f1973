"""Take the network apart: the same minutes without attention, normalisation or shortcuts.  About 20 minutes."""

import torch
from torch import nn

from helpers import CourseError
from helpers.blocks import ResBlock
from helpers.budget import budget
from helpers.data import load_dogs
from helpers.image_metrics import psnr, reconstruct
from helpers.results import save_result
from tests.benchmarks.dog_recipes import course_model, train_ours

RESOLUTION, FACTOR, MINUTES = 64, 4, budget(quick=0.02, cpu=4.0, gpu=4.0)


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


def variants() -> dict:
    """name → a fresh model."""
    return {
        "all parts": course_model(0, factor=FACTOR),
        "no attention": course_model(0, factor=FACTOR, mid_attention=False),
        "no normalisation": without_norms(course_model(0, factor=FACTOR)),
        "no shortcuts": without_shortcuts(course_model(0, factor=FACTOR)),
        "a learned scale on every residual branch": with_scales(course_model(0, factor=FACTOR)),
    }


def main() -> None:
    train, test = load_dogs(RESOLUTION, "train"), load_dogs(RESOLUTION, "test")
    rows = {}
    for name, model in variants().items():
        try:
            model, images = train_ours(train, MINUTES, 0, model)
            rows[name] = {"psnr": psnr(reconstruct(model, test), test.pixels()).mean().item(), "images": images}
        except CourseError as error:
            rows[name] = {"stopped": str(error)}
        print(name, rows[name], flush=True)
    save_result("dog_parts", {"minutes": MINUTES, "resolution": RESOLUTION, "rows": rows}, seeds=[0], data=test.source)


if __name__ == "__main__":
    main()
