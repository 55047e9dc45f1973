"""A classifier that says what a drawn dog looks like: does it show what its prompt asked for?"""

import torch
import torch.nn.functional as F
from torch import nn

from helpers.data.augment import blur_and_grain
from helpers.data.loader import in_chunks
from helpers.data.synthetic_dogs import COATS, EARS, GROUNDS, SyntheticDogs, caption
from helpers.training.loop import fit

FACTORS = {"coat": COATS, "ears": EARS, "ground": GROUNDS}
COMBINATIONS = [(coat, ears, ground) for coat in COATS for ears in EARS for ground in GROUNDS]  # 48
_NUMBERS = {caption(*combination): number for number, combination in enumerate(COMBINATIONS)}


class DogClassifier(nn.Module):
    """Pictures (B, 3, 64, 64) in [0, 1] → logits of each factor.

    {"coat": (B, 6), "ears": (B, 2), "ground": (B, 4)}.
    """

    def __init__(self):
        super().__init__()
        self.config: dict = {}
        widths = (3, 24, 48, 96, 96)
        layers: list[nn.Module] = []
        for a, b in zip(widths, widths[1:], strict=False):
            layers += [nn.Conv2d(a, b, 3, stride=2, padding=1)]  # (B, b, H/2, W/2)
            layers += [nn.GroupNorm(8, b), nn.SiLU()]
        layers += [nn.Flatten(), nn.Linear(96 * 16, 96), nn.SiLU()]  # (B, 96)
        self.features = nn.Sequential(*layers)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(96, len(values)) for name, values in FACTORS.items()}
        )

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.features(x)
        return {name: head(features) for name, head in self.heads.items()}


def combination_numbers(captions: tuple[str, ...] | list[str]) -> torch.Tensor:
    """The position of each caption's (coat, ears, ground) in COMBINATIONS: int64 (N,)."""
    return torch.tensor([_NUMBERS[text] for text in captions])


def factor_labels(numbers: torch.Tensor) -> dict[str, torch.Tensor]:
    """Positions in COMBINATIONS → positions in COATS, EARS and GROUNDS."""
    rest = numbers // len(GROUNDS)
    return {
        "coat": rest // len(EARS),
        "ears": rest % len(EARS),
        "ground": numbers % len(GROUNDS),
    }


def dog_classifier_loss(
    model: nn.Module, batch: dict[str, torch.Tensor], generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Cross-entropies in nats per image, added up; batch["labels"]: positions in COMBINATIONS."""
    wanted = factor_labels(batch["labels"])
    logits = model(batch["images"])
    each = [
        F.cross_entropy(logits[name].float(), wanted[name], reduction="none") for name in FACTORS
    ]
    return {"loss": sum(each)}


def train_dog_classifier(dogs: SyntheticDogs, epochs: int, seed: int = 0) -> DogClassifier:
    """A DogClassifier trained on drawn dogs."""
    torch.manual_seed(seed)
    classifier = DogClassifier()
    data = {"images": dogs.images, "labels": combination_numbers(dogs.captions)}
    fit(
        classifier,
        dog_classifier_loss,
        data,
        epochs=epochs,
        batch_size=64,
        lr=3e-3,
        augment=blur_and_grain,
        seed=seed,
    )
    return classifier


@torch.no_grad()
def prompt_accuracy(
    classifier: DogClassifier, images: torch.Tensor, captions: tuple[str, ...] | list[str]
) -> dict[str, float]:
    """The share of images in which the classifier sees the caption's words.

    images: (N, 3, 64, 64) in [0, 1].  Returns {"coat", "ears", "ground", "all three"}.
    """
    on = next(classifier.parameters()).device
    logits = [classifier(chunk["images"]) for chunk in in_chunks({"images": images}, on)]
    wanted = factor_labels(combination_numbers(captions))
    right = {}
    for name in FACTORS:
        seen = torch.cat([part[name].argmax(1).cpu() for part in logits])
        right[name] = seen == wanted[name]
    right["all three"] = torch.stack(list(right.values())).all(0)
    return {name: hits.float().mean().item() for name, hits in right.items()}
