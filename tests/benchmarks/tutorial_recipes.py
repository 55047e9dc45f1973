"""Two published recipes, written afresh from their descriptions, as baselines: a DataLoader, Adam, fp32, no schedule."""

import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

from helpers.budget import data_dir, seed_everything


class TutorialVAE(nn.Module):
    """784-400-(20, 20)-400-784 with ReLU and a sigmoid output."""

    def __init__(self):
        super().__init__()
        self.hidden, self.mean, self.logvar = nn.Linear(784, 400), nn.Linear(400, 20), nn.Linear(400, 20)
        self.decoder = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784), nn.Sigmoid())

    def forward(self, x):
        h = F.relu(self.hidden(x.flatten(1)))
        mean, logvar = self.mean(h), self.logvar(h)
        return self.decoder(mean + torch.randn_like(mean) * (logvar / 2).exp()), mean, logvar


class BlogVAE(nn.Module):
    """784-256-128-2 and back, BatchNorm + ReLU + Dropout 0.2 after every hidden layer, sigmoid output."""

    def __init__(self):
        super().__init__()

        def hidden(inputs, outputs):
            return [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU(), nn.Dropout(0.2)]

        self.encoder = nn.Sequential(*hidden(784, 256), *hidden(256, 128), nn.Linear(128, 4))
        self.decoder = nn.Sequential(*hidden(2, 128), *hidden(128, 256), nn.Linear(256, 784), nn.Sigmoid())

    def forward(self, x):
        mean, logvar = self.encoder(x.flatten(1)).chunk(2, dim=1)
        return self.decoder(mean + torch.randn_like(mean) * (logvar / 2).exp()), mean, logvar


def summed_loss(output, x):
    """Binary cross-entropy plus KL, both summed over everything."""
    image, mean, logvar = output
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum()
    return F.binary_cross_entropy(image, x.flatten(1), reduction="sum") + kl, kl


def train_published(model_class, epochs: int, seed: int):
    """(model, seconds) of Adam 1e-3, batch 128, DataLoader(shuffle=True) over MNIST(transform=ToTensor())."""
    seed_everything(seed)
    model = model_class()
    loader = DataLoader(MNIST(data_dir(), train=True, transform=ToTensor()), batch_size=128, shuffle=True)
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
def test_nats(model, test, seed: int = 0) -> dict[str, float]:
    """Held-out nats per image, one sample of z each."""
    torch.manual_seed(seed)
    loss, kl = summed_loss(model(test.pixels()), test.pixels())
    return {"loss": loss.item() / len(test), "kl": kl.item() / len(test)}
