"""What the tests of figures and explorers share."""

import io

import matplotlib.pyplot as plt
import numpy as np
import torch

from helpers.models.mlp_vae import MLPVAE


def render(fig: plt.Figure) -> bytes:
    """The figure as a small PNG: layout faults and missing glyphs warn only now."""
    file = io.BytesIO()
    fig.savefig(file, format="png", dpi=40)
    return file.getvalue()


def sheet_of(ax: plt.Axes) -> np.ndarray:
    """The values of the picture that was drawn into `ax`."""
    return np.asarray(ax.images[0].get_array())


def small_vae() -> MLPVAE:
    """Untrained, with two latent dimensions."""
    torch.manual_seed(0)
    return MLPVAE(2, (8,))


def codes(count: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """(codes (N, 2), labels (N,)) of all ten digits."""
    points = torch.randn(count, 2, generator=torch.Generator().manual_seed(0))
    return points, torch.arange(count) % 10
