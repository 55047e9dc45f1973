"""Diagrams of the autoencoder and the VAE of notebooks 1 and 2, with their sizes."""

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch, Polygon, Rectangle

from helpers.show.plots import LINES

ARROW = {"arrowstyle": "-|>", "lw": 1.8, "color": "black", "shrinkA": 0, "shrinkB": 0}


def _box(ax: plt.Axes, x: float, y: float, text: str, color: str, width: float = 2.0) -> None:
    """A rounded box of `width` × 0.9 around (x, y)."""
    style = {"boxstyle": "round,pad=0.02,rounding_size=0.12", "fc": "white", "ec": color, "lw": 2}
    ax.add_patch(FancyBboxPatch((x - width / 2, y - 0.45), width, 0.9, **style))
    ax.text(x, y, text, ha="center", va="center", fontsize=12)


def _half(ax: plt.Axes, x: float, y: float, text: str, narrows: bool) -> None:
    """An encoder (narrows to the right) or a decoder: a trapezium, 2.2 wide."""
    left, right = (1.0, 0.45) if narrows else (0.45, 1.0)
    corners = [(x - 1.1, y - left), (x - 1.1, y + left), (x + 1.1, y + right), (x + 1.1, y - right)]
    ax.add_patch(Polygon(corners, fc="white", ec=LINES[0], lw=2))
    ax.text(x, y, text, ha="center", va="center", fontsize=12)


def _arrow(ax: plt.Axes, start: tuple, end: tuple, **changes) -> None:
    ax.annotate("", end, start, arrowprops=ARROW | changes)


def _canvas(width: float, height: float) -> tuple[plt.Figure, plt.Axes]:
    """A figure 6.4 inches wide whose axes count in boxes."""
    fig, ax = plt.subplots(figsize=(6.4, 6.4 * height / width))
    ax.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    ax.axis("off")
    return fig, ax


def draw_autoencoder(latent: int, hidden: tuple[int, ...]) -> plt.Figure:
    """Picture → encoder → code → decoder → picture, and the loss that compares the pictures."""
    fig, ax = _canvas(11.4, 4.6)
    y = 3.3
    sizes = "→".join(map(str, hidden))
    back = "→".join(map(str, reversed(hidden)))
    _box(ax, 0.95, y, "x\n784", LINES[6], 1.2)
    _half(ax, 3.2, y, f"encoder\n{sizes}", narrows=True)
    _box(ax, 5.7, y, f"code z\n{latent}", LINES[1], 1.5)
    _half(ax, 8.2, y, f"decoder\n{back}", narrows=False)
    _box(ax, 10.45, y, "image\n784", LINES[6], 1.4)
    for start, end in ((1.6, 2.05), (4.35, 4.9), (6.5, 7.05), (9.35, 9.7)):
        _arrow(ax, (start, y), (end, y))
    _box(ax, 5.7, 0.75, "loss: squared error of image against x", LINES[2], 7.2)
    _arrow(ax, (0.95, y - 0.5), (2.6, 1.25))
    _arrow(ax, (10.45, y - 0.5), (8.8, 1.25))
    return fig


def draw_vae(latent: int, hidden: tuple[int, ...]) -> plt.Figure:
    """The same with two heads, the draw of z, and both terms of the loss."""
    fig, ax = _canvas(11.8, 8.2)
    y = 5.8
    back = "→".join(map(str, reversed(hidden)))
    _box(ax, 0.9, y, "x\n784", LINES[6], 1.2)
    _half(ax, 3.0, y, f"encoder\n{'→'.join(map(str, hidden))}", narrows=True)
    ax.add_patch(Rectangle((4.55, y - 1.75), 1.95, 3.5, fc="none", ec="grey", ls="--", lw=1.5))
    ax.text(5.53, y + 1.9, "q(z|x)", ha="center", color="dimgrey")
    _box(ax, 5.53, y + 1.0, f"mean μ\n{latent}", LINES[1], 1.6)
    _box(ax, 5.53, y - 1.0, f"log σ²\n{latent}", LINES[1], 1.6)
    _box(ax, 7.9, y, "z = μ + σ ε", LINES[1], 2.0)
    _box(ax, 7.9, y + 1.7, "ε ~ N(0, I)", LINES[4], 2.0)
    _half(ax, 10.6, y, f"decoder\n{back}", narrows=False)
    _box(ax, 10.6, y - 2.3, "image\n784", LINES[6], 1.4)
    for start, end in (
        ((1.55, y), (1.85, y)),
        ((4.15, y + 0.2), (4.65, y + 0.9)),
        ((4.15, y - 0.2), (4.65, y - 0.9)),
        ((6.4, y + 0.9), (7.2, y + 0.5)),
        ((6.4, y - 0.9), (7.2, y - 0.5)),
        ((7.9, y + 1.2), (7.9, y + 0.5)),
        ((8.95, y), (9.45, y)),
        ((10.6, y - 1.0), (10.6, y - 1.8)),
    ):
        _arrow(ax, start, end)

    _box(ax, 5.53, 3.0, "KL of q(z|x) to N(0, I): the price of z", LINES[2], 7.0)
    _arrow(ax, (5.53, y - 1.8), (5.53, 3.5))
    _box(ax, 5.9, 1.5, "reconstruction: −log p(x|z), the image against x", LINES[2], 11.2)
    _arrow(ax, (0.9, y - 0.5), (0.9, 2.0))
    _arrow(ax, (10.6, y - 2.8), (10.6, 2.0))
    ax.text(5.9, 0.4, "loss = reconstruction + KL, in nats", ha="center", weight="bold")
    return fig


def draw_gradient() -> plt.Figure:
    """How a gradient gets from the loss to μ and σ: not through a plain draw, but around ε."""
    fig, ax = _canvas(11.4, 6.6)
    back = {"color": LINES[1], "linestyle": "--"}
    for y, draw, reaches in ((5.2, "z ~ N(μ, σ²)", False), (2.0, "z = μ + σ ε", True)):
        _box(ax, 1.6, y, "μ, σ", LINES[6], 1.6)
        _box(ax, 5.4, y, draw, LINES[0] if reaches else LINES[3], 2.8)
        _box(ax, 9.6, y, "loss", LINES[2], 1.6)
        _arrow(ax, (2.45, y + 0.2), (3.95, y + 0.2))
        _arrow(ax, (6.85, y + 0.2), (8.75, y + 0.2))
        _arrow(ax, (8.75, y - 0.2), (6.85, y - 0.2), **back)
        if reaches:
            _arrow(ax, (3.95, y - 0.2), (2.45, y - 0.2), **back)
            _box(ax, 5.4, y - 1.4, "ε ~ N(0, 1)", LINES[4], 2.4)
            _arrow(ax, (5.4, y - 0.9), (5.4, y - 0.5))
        else:
            ax.text(3.2, y - 0.35, "×", ha="center", va="center", fontsize=20, color=LINES[1])
    ax.text(0.2, 6.2, "a plain draw: the gradient stops", weight="bold")
    ax.text(0.2, 3.3, "reparameterised: it goes on to μ and σ", weight="bold")
    ax.text(7.8, 1.15, "dashed: the gradient", ha="center", color=LINES[1])
    return fig
