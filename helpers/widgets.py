"""Explorers: each draws its picture once, so that it is stored in the notebook, and then puts sliders under it.

They run on ipywidgets 7.7 (Colab) and 8.  Where nobody can move a slider (COURSE_STATIC=1) only the picture is drawn.
"""

from collections.abc import Collection

import matplotlib.pyplot as plt
import torch
from ipywidgets import Dropdown, FloatSlider, IntSlider, interact

from helpers.budget import is_static
from helpers.conv_vae import to_signed, to_unit
from helpers.dog_judge import COMBINATIONS
from helpers.drawn_dogs import COATS, EARS, GROUNDS, caption
from helpers.plots import LINES, draw_images, draw_latent_map, image_rows, show
from helpers.tiny_sd import sample


@torch.no_grad()
def _decode(model, z: torch.Tensor) -> torch.Tensor:
    """Images (B, 1, 28, 28) in [0, 1] of codes (B, latent)."""
    return torch.sigmoid(model.decode(z.to(next(model.parameters()).device))).cpu()


def draw_latent_point(model, codes: torch.Tensor, labels: torch.Tensor, x: float, y: float) -> plt.Figure:
    """The map of codes (N, 2) with a cross at (x, y), beside the image that is decoded there."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.5, 4), width_ratios=(1.25, 1))
    draw_latent_map(left, codes, labels, "where the images are")
    left.plot(x, y, "+", color="black", markersize=22, markeredgewidth=3)
    draw_images(right, _decode(model, torch.tensor([[x, y]])), 1, f"decoded at ({x:.1f}, {y:.1f})")
    return fig


def latent_explorer(
    model, codes: torch.Tensor, labels: torch.Tensor, start: tuple[float, float] = (0.0, 0.0)
) -> None:
    """Move a cross over a two-dimensional latent space and see what is decoded there."""

    def draw(x: float, y: float) -> None:
        alt = f"Map of the two-dimensional codes with a cross at ({x:.1f}, {y:.1f}), and the image decoded there."
        show(draw_latent_point(model, codes, labels, x, y), alt)

    draw(*start)
    if not is_static():
        low, high = codes.min(dim=0).values.tolist(), codes.max(dim=0).values.tolist()
        sliders = [FloatSlider(v, min=a, max=b, step=(b - a) / 100, continuous_update=False)
                   for v, a, b in zip(start, low, high, strict=True)]  # fmt: skip
        interact(draw, x=sliders[0], y=sliders[1])


def draw_interpolation(model, start: torch.Tensor, end: torch.Tensor, steps: int = 11, at: int | None = None) -> plt.Figure:
    """The images decoded on the straight line from code `start` (latent,) to `end`; step `at` also large."""
    share = torch.linspace(0, 1, steps)[:, None]  # (steps, 1)
    images = _decode(model, (1 - share) * start + share * end)
    fig, (strip, large) = plt.subplots(2, 1, figsize=(7.5, 3.2), height_ratios=(1, 2.4))
    draw_images(strip, images, steps, "from one image to another")
    at = steps // 2 if at is None else at
    draw_images(large, images[at : at + 1], 1, f"step {at} of {steps - 1}")
    return fig


def interpolation_slider(model, start: torch.Tensor, end: torch.Tensor, steps: int = 11) -> None:
    """Slide from one code to another."""

    def draw(at: int) -> None:
        alt = f"{steps} images decoded on the line between two codes, and number {at} of 0 to {steps - 1} enlarged."
        show(draw_interpolation(model, start, end, steps, at), alt)

    draw(steps // 2)
    if not is_static():
        interact(draw, at=IntSlider(steps // 2, min=0, max=steps - 1))


@torch.no_grad()
def draw_channels(model, image: torch.Tensor) -> plt.Figure:
    """One row per latent channel: image (1, 3, H, W) in [0, 1] decoded with that channel moved, from -3 to +3 of its own
    standard deviations, everywhere."""
    z = model.encode(to_signed(image.to(next(model.parameters()).device))).mode()  # (1, C, h, w)
    rows = {}
    for channel in range(z.shape[1]):
        step = torch.zeros_like(z)
        step[:, channel] = z[:, channel].std()
        moved = torch.cat([z + amount * step for amount in range(-3, 4)])
        rows[f"channel {channel}: -3 … +3 standard deviations"] = to_unit(model.decode(moved)).cpu()
    return image_rows(rows, size=1.05)


@torch.no_grad()
def draw_edited(model, image: torch.Tensor, channel: int, amount: float, place: tuple) -> plt.Figure:
    """The decoded image, and the same with one channel moved at `place`: an index of the latent's rows and columns."""
    z = model.encode(to_signed(image.to(next(model.parameters()).device))).mode()
    edited = z.clone()
    edited[(0, channel, *place)] += amount * z[:, channel].std()
    decoded = to_unit(model.decode(torch.cat([z, edited]))).cpu()
    return image_rows({f"decoded, and with channel {channel} moved by {amount:+.1f}": decoded}, size=2.4)


def channel_editor(model, image: torch.Tensor) -> None:
    """Move a channel of an image's latent, everywhere or at one place, and see what is decoded.  image: (1, 3, H, W)."""
    channels, f = model.settings.latent_channels, model.settings.factor
    alt = f"{channels} rows, one for each latent channel: one picture decoded with that channel moved down and up."
    show(draw_channels(model, image), alt)
    if is_static():
        return

    def draw(channel: int, amount: float, everywhere: bool, row: int, column: int) -> None:
        place = (slice(None), slice(None)) if everywhere else (row, column)
        show(draw_edited(model, image, channel, amount, place), f"A picture, and the same with channel {channel} moved.")

    interact(
        draw, channel=IntSlider(0, min=0, max=channels - 1),
        amount=FloatSlider(2.0, min=-4, max=4, step=0.25, continuous_update=False), everywhere=True,
        row=IntSlider(0, min=0, max=image.shape[2] // f - 1), column=IntSlider(0, min=0, max=image.shape[3] // f - 1),
    )  # fmt: skip


def draw_all_prompts(pipeline, framed: Collection[tuple[str, str, str]], seed: int = 0, steps: int = 20) -> plt.Figure:
    """One picture of each of the 48 prompts: a row per coat, a column per ears and ground; those in `framed` in a frame."""
    pictures = sample(pipeline, [caption(*combination) for combination in COMBINATIONS], steps=steps, seed=seed)
    columns = [f"{ears}\n{ground}" for ears in EARS for ground in GROUNDS]
    fig, axes = plt.subplots(len(COATS), len(columns), figsize=(8.6, 6.9))
    for ax, picture, combination in zip(axes.flat, pictures, COMBINATIONS, strict=True):
        ax.imshow(picture.movedim(0, 2).numpy(), interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        for side in ax.spines.values():
            side.set(visible=combination in framed, edgecolor=LINES[1], linewidth=4)
    for ax, name in zip(axes[0], columns, strict=True):
        ax.set_title(name, fontsize=10)
    for ax, coat in zip(axes[:, 0], COATS, strict=True):
        ax.set_ylabel(coat)
    return fig


def prompt_gallery(pipeline, framed: Collection[tuple[str, str, str]] = (), steps: int = 20) -> None:
    """All 48 prompts, those in `framed` in a frame; then choose the words and the seed of six pictures."""
    alt = f"48 drawn dogs: six coats, one under another, with two kinds of ears on four grounds; {len(framed)} are framed."
    show(draw_all_prompts(pipeline, framed, steps=steps), alt)
    if is_static():
        return

    def draw(coat: str, ears: str, ground: str, seed: int) -> None:
        prompt = caption(coat, ears, ground)
        pictures = sample(pipeline, [prompt] * 6, seed=seed)
        show(image_rows({f"{prompt}, seed {seed}": pictures}, size=1.3), f"Six drawn dogs for: {prompt}.")

    interact(
        draw, coat=Dropdown(options=COATS), ears=Dropdown(options=EARS), ground=Dropdown(options=GROUNDS),
        seed=IntSlider(0, min=0, max=20, continuous_update=False),
    )  # fmt: skip
