"""Diagrams of networks, drawn from their configuration, so that they show what is computed."""

import math

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import FancyBboxPatch

from helpers.models.conv_vae import ConvVAE, VAEConfig
from helpers.show.plots import LINES


def traced_shapes(
    config: VAEConfig, height: int, width: int
) -> tuple[dict[str, tuple[int, int, int]], dict[str, tuple[int, int, int]]]:
    """({part of the encoder: (C, H, W) that it gives}, the same of the decoder).

    No value is computed.  The last parts are "conv_out".
    """
    with torch.device("meta"):
        vae = ConvVAE(config).eval()
        encoder = _trace(vae.encoder, torch.empty(1, 3, height, width))
        latent = (1, config.latent_channels, height // config.factor, width // config.factor)
        decoder = _trace(vae.decoder, torch.empty(latent))
    return encoder, decoder


def _trace(network: torch.nn.Module, x: torch.Tensor) -> dict[str, tuple[int, int, int]]:
    parts = {"conv_in": network.conv_in}
    stages = {f"stage {number}": stage for number, stage in enumerate(network.stages, 1)}
    middle = {"mid block": network.mid}
    parts |= stages | middle if x.shape[1] == 3 else middle | stages
    shapes = {}
    for name, part in (parts | {"conv_out": network.conv_out}).items():
        part.register_forward_hook(
            lambda _, __, out, name=name: shapes.update({name: tuple(out.shape[1:])})
        )
    network(x)
    return shapes


def draw_network(config: VAEConfig, height: int, width: int) -> plt.Figure:
    """Encoder (left, downwards) and decoder (right, upwards) of a picture of height × width.

    One box for each part, as wide as the side of its feature map on a logarithmic scale, with its
    shape C × H × W.
    """
    encoder, decoder = traced_shapes(config, height, width)
    fig, ax = plt.subplots(figsize=(7.5, 0.46 * (len(encoder) + 3)))
    latent = f"{config.latent_channels}×{height // config.factor}×{width // config.factor}"
    columns = {
        "encoder": [("picture", (3, height, width)), *encoder.items()],
        "decoder": [("picture", (3, height, width)), *reversed(decoder.items())],
    }
    for x, (title, parts) in zip((0.0, 1.0), columns.items(), strict=True):
        ax.text(x, 0.9, title, ha="center", weight="bold")
        for row, (name, (c, h, w)) in enumerate(parts):
            side = 0.44 + 0.4 * _share(w, width, config.factor)
            color = LINES[1] if name == "mid block" else LINES[0]
            box = (x - side / 2, -row - 0.34), side, 0.68
            style = {"boxstyle": "round,pad=0.01", "fc": "white", "ec": color, "lw": 1.8}
            ax.add_patch(FancyBboxPatch(*box, **style))
            ax.text(x, -row, f"{name}  {c}×{h}×{w}", ha="center", va="center", fontsize=10)
    bottom = -len(columns["encoder"])
    ax.text(0.5, bottom - 0.2, f"mean and log-variance → a draw: {latent}", ha="center")
    arrow = {"arrowstyle": "->", "lw": 1.8}
    for x, ends in ((-0.46, (-0.2, bottom + 1)), (1.46, (bottom + 1, -0.2))):
        ax.annotate("", (x, ends[1]), (x, ends[0]), arrowprops=arrow)
    ax.annotate("", (0.78, bottom + 0.55), (0.22, bottom + 0.55), arrowprops=arrow)
    ax.set(xlim=(-0.5, 1.5), ylim=(bottom - 0.6, 1.3))
    ax.axis("off")
    return fig


def _share(side: int, full: int, factor: int) -> float:
    """1 at the picture's side, 0 at the latent's."""
    return math.log(side * factor / full) / math.log(factor)
