"""Two published recipes, written afresh from their descriptions, as baselines.

Both train with a DataLoader, Adam, fp32, and no schedule.
"""

import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

from helpers.data.image_set import ImageSet
from helpers.env import data_dir
from helpers.rng import seed_everything


class TutorialVAE(nn.Module):
    """784-400-(20, 20)-400-784 with ReLU and a sigmoid output."""

    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(784, 400)
        self.mean = nn.Linear(400, 20)
        self.logvar = nn.Linear(400, 20)
        self.decoder = nn.Sequential(
            nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784), nn.Sigmoid()
        )

    def forward(self, x):
        h = F.relu(self.hidden(x.flatten(1)))
        mean = self.mean(h)
        logvar = self.logvar(h)
        return self.decoder(mean + torch.randn_like(mean) * (logvar / 2).exp()), mean, logvar


class BlogVAE(nn.Module):
    """784-256-128-2 and back; BatchNorm, ReLU and Dropout 0.2 after every hidden layer."""

    def __init__(self):
        super().__init__()

        def hidden(inputs, outputs):
            linear = nn.Linear(inputs, outputs)
            return [linear, nn.BatchNorm1d(outputs), nn.ReLU(), nn.Dropout(0.2)]

        self.encoder = nn.Sequential(*hidden(784, 256), *hidden(256, 128), nn.Linear(128, 4))
        self.decoder = nn.Sequential(
            *hidden(2, 128), *hidden(128, 256), nn.Linear(256, 784), nn.Sigmoid()
        )

    def forward(self, x):
        mean, logvar = self.encoder(x.flatten(1)).chunk(2, dim=1)
        return self.decoder(mean + torch.randn_like(mean) * (logvar / 2).exp()), mean, logvar


def summed_loss(output: tuple, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(binary cross-entropy plus KL, KL), both summed over everything."""
    image, mean, logvar = output
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum()
    return F.binary_cross_entropy(image, x.flatten(1), reduction="sum") + kl, kl


def train_published(
    model_class: type[nn.Module], epochs: int, seed: int
) -> tuple[nn.Module, float]:
    """(model, seconds) of Adam 1e-3, batch size 128, over MNIST(transform=ToTensor())."""
    seed_everything(seed)
    model = model_class()
    data = MNIST(data_dir(), train=True, transform=ToTensor())
    loader = DataLoader(data, batch_size=128, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    started = time.perf_counter()
    for _ in range(epochs):
        for x, _ in loader:
            optimizer.zero_grad()
            loss, _ = summed_loss(model(x), x)
            (loss / len(x)).backward()
            optimizer.step()
    return model.eval(), time.perf_counter() - started


@torch.no_grad()
def published_nats(model: nn.Module, test: ImageSet, seed: int = 0) -> dict[str, float]:
    """Held-out nats per image, one sample of z each: {"loss", "kl"}."""
    torch.manual_seed(seed)
    loss, kl = summed_loss(model(test.pixels()), test.pixels())
    return {"loss": loss.item() / len(test), "kl": kl.item() / len(test)}
