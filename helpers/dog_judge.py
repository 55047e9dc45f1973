"""A classifier that says what a drawn dog looks like: does a picture show what its prompt asked for?"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from helpers.budget import draw
from helpers.data import Batch
from helpers.drawn_dogs import COATS, EARS, GROUNDS, DrawnDogs, caption
from helpers.training import fit

FACTORS = {"coat": COATS, "ears": EARS, "ground": GROUNDS}
COMBINATIONS = [(coat, ears, ground) for coat in COATS for ears in EARS for ground in GROUNDS]  # 48
_NUMBERS = {caption(*combination): number for number, combination in enumerate(COMBINATIONS)}


class DogJudge(nn.Module):
    """Pictures (B, 3, 64, 64) in [0, 1] → {"coat": logits (B, 6), "ears": (B, 2), "ground": (B, 4)}."""

    def __init__(self):
        super().__init__()
        self.config: dict = {}
        widths, layers = (3, 24, 48, 96, 96), []
        for a, b in zip(widths, widths[1:], strict=False):
            layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(8, b), nn.SiLU()]  # (B, b, H/2, W/2)
        self.features = nn.Sequential(*layers, nn.Flatten(), nn.Linear(96 * 16, 96), nn.SiLU())  # (B, 96)
        self.heads = nn.ModuleDict({name: nn.Linear(96, len(values)) for name, values in FACTORS.items()})

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.features(x)
        return {name: head(features) for name, head in self.heads.items()}


def combination_numbers(captions: tuple[str, ...] | list[str]) -> torch.Tensor:
    """The position of each caption's (coat, ears, ground) in COMBINATIONS: int64 (N,)."""
    return torch.tensor([_NUMBERS[text] for text in captions])


def factor_labels(numbers: torch.Tensor) -> dict[str, torch.Tensor]:
    """Positions in COMBINATIONS → positions in COATS, EARS and GROUNDS."""
    rest, ground = numbers // len(GROUNDS), numbers % len(GROUNDS)
    return {"coat": rest // len(EARS), "ears": rest % len(EARS), "ground": ground}


def judge_loss(model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Cross-entropies in nats per image, added up; labels are positions in COMBINATIONS."""
    labels = factor_labels(batch.labels)
    return {
        "loss": sum(
            F.cross_entropy(logits.float(), labels[k], reduction="none") for k, logits in model(batch.images).items()
        )
    }


def blur_and_grain(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Half of the pictures softened, all with a little noise, as decoders make them: the judge is not to mind that."""
    b, _, h, w = images.shape
    soft = F.interpolate(F.interpolate(images, scale_factor=0.5, mode="area"), size=(h, w), mode="bilinear")
    images = torch.where(draw(torch.rand, (b, 1, 1, 1), generator, device=images.device) < 0.5, soft, images)
    grain = draw(torch.randn, tuple(images.shape), generator, device=images.device)
    return (images + 0.05 * draw(torch.rand, (b, 1, 1, 1), generator, device=images.device) * grain).clamp(0, 1)


def train_judge(dogs: DrawnDogs, epochs: int, seed: int = 0) -> DogJudge:
    """A DogJudge trained on drawn dogs."""
    torch.manual_seed(seed)
    judge = DogJudge()
    labelled = replace(dogs, labels=combination_numbers(dogs.captions))
    fit(judge, judge_loss, labelled, epochs=epochs, batch_size=64, lr=3e-3, augment=blur_and_grain, seed=seed)
    return judge


@torch.no_grad()
def adherence(judge: DogJudge, images: torch.Tensor, captions: tuple[str, ...] | list[str]) -> dict[str, float]:
    """The share of images (N, 3, 64, 64) in [0, 1] in which the judge sees the caption's coat, ears, ground, all three."""
    on = next(judge.parameters()).device
    parts = [judge(part.to(on)) for part in images.split(256)]
    wanted = factor_labels(combination_numbers(captions))
    right = {name: torch.cat([p[name].argmax(1).cpu() for p in parts]) == wanted[name] for name in FACTORS}
    right["all three"] = torch.stack(list(right.values())).all(0)
    return {name: hits.float().mean().item() for name, hits in right.items()}
