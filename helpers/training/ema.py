"""The exponential moving average (EMA) of a model's weights: steadier than the last step's."""

from contextlib import contextmanager

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


class EMA(AveragedModel):
    """average ← decay · average + (1 - decay) · weights, at every `update_parameters(model)`.

    torch's AveragedModel (it begins with the weights after the first step), with a warm-up: at
    update n the decay is (1 + n) / (10 + n) until that exceeds `decay`, so that the first weights
    are soon forgotten.  Polyak & Juditsky 1992; the warm-up is TensorFlow's
    ExponentialMovingAverage.
    """

    def __init__(self, model: nn.Module, decay: float):
        @torch.no_grad()
        def average(averages: list, weights: list, count: torch.Tensor) -> None:
            n = int(count)
            share = 1 - min(decay, (1 + n) / (10 + n))
            for old, new in zip(averages, weights, strict=True):
                if old.is_floating_point():
                    old.lerp_(new, share)
                else:
                    old.copy_(new)  # a counter among the buffers

        super().__init__(model, multi_avg_fn=average, use_buffers=True)

    @contextmanager
    def swapped_in(self, model: nn.Module):
        """`model` with the averaged weights; its own come back at the end."""
        own = {name: value.detach().clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.module.state_dict())
        try:
            yield
        finally:
            model.load_state_dict(own)
