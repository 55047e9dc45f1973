"""A classifier of digits: does an image show one, and how far are samples from real digits?"""

import torch
import torch.nn.functional as F
from torch import nn

from helpers.data.augment import random_shift
from helpers.data.image_set import ImageSet
from helpers.data.loader import in_chunks
from helpers.training.loop import fit


class DigitClassifier(nn.Module):
    """A small convolutional classifier: (B, 1, 28, 28) in [0, 1] → 10 logits.

    `features` are the 64 values before the logits: a Fréchet distance compares them.
    """

    def __init__(self):
        super().__init__()
        self.config: dict = {}
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(),  # (B, 16, 14, 14)
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),  # (B, 32, 7, 7)
            nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU(),  # (B, 64)
        )  # fmt: skip
        self.classify = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classify(self.features(x))


def digit_classifier_loss(
    model: nn.Module, batch: dict[str, torch.Tensor], generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Cross-entropy in nats per image."""
    logits = model(batch["images"]).float()
    return {"loss": F.cross_entropy(logits, batch["labels"], reduction="none")}


def train_digit_classifier(train: ImageSet, epochs: int, seed: int = 0) -> DigitClassifier:
    """A DigitClassifier trained on shifted images, so that it ignores where a digit stands."""
    torch.manual_seed(seed)
    classifier = DigitClassifier()
    fit(
        classifier,
        digit_classifier_loss,
        train,
        epochs=epochs,
        batch_size=min(128, len(train)),
        lr=3e-3,
        augment=random_shift,
        seed=seed,
    )
    return classifier


@torch.no_grad()
def classify_digits(
    classifier: DigitClassifier, images: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(probabilities (N, 10), features (N, 64)) of images (N, 1, 28, 28), on the CPU."""
    on = next(classifier.parameters()).device
    chunks = in_chunks({"images": images}, on)
    features = torch.cat([classifier.features(chunk["images"]) for chunk in chunks])
    return classifier.classify(features).softmax(1).cpu(), features.cpu()
