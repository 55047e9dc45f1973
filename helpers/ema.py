"""The exponential moving average of a model's weights: steadier than the weights of the last step."""

from contextlib import contextmanager

import torch
from torch import nn


class AveragedWeights:
    """average ← decay · average + (1 - decay) · weights, after every step.

    The decay is (1 + n) / (10 + n) at step n until that exceeds `decay`, so that the random first weights are soon
    forgotten.  Polyak & Juditsky 1992; the warm-up is TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.updates = decay, 0
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value, 1 - decay)
            else:
                self.weights[name].copy_(value)  # counters

    @contextmanager
    def inside(self, model: nn.Module):
        """The model with the averaged weights; its own come back at the end."""
        own = {name: value.detach().clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.weights)
        try:
            yield
        finally:
            model.load_state_dict(own)
