"""Explorers: each draws its picture once, to be stored in the notebook, and puts sliders under it.

They run on ipywidgets 7.7 (Colab) and 8.  Where nobody can move a slider (COURSE_STATIC=1) only the
picture is drawn.
"""

from collections.abc import Collection

import matplotlib.pyplot as plt
import torch
from ipywidgets import Dropdown, FloatSlider, IntSlider, interact

from helpers.classifiers.dogs import COMBINATIONS
from helpers.data.synthetic_dogs import COATS, EARS, GROUNDS, caption
from helpers.diffusion.parts import sample
from helpers.env import is_static
from helpers.show.plots import LINES, draw_images, draw_latent_map, image_rows, show_figure

# --- codes of two or more dimensions (notebooks 1 and 2) ---


@torch.no_grad()
def _decode(model, z: torch.Tensor) -> torch.Tensor:
    """Images (B, 1, 28, 28) in [0, 1] of codes (B, latent); the model decodes logits."""
    return torch.sigmoid(model.decode(z.to(next(model.parameters()).device))).cpu()


def draw_latent_point(
    model, codes: torch.Tensor, labels: torch.Tensor, x: float, y: float
) -> plt.Figure:
    """The map of codes (N, 2) with a cross at (x, y), beside the image that is decoded there."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.5, 4), width_ratios=(1.25, 1))
    draw_latent_map(left, codes, labels, "where the images are")
    left.plot(x, y, "+", color="black", markersize=22, markeredgewidth=3)
    decoded = _decode(model, torch.tensor([[x, y]]))
    draw_images(right, decoded, 1, f"decoded at ({x:.1f}, {y:.1f})")
    return fig


def latent_explorer(
    model, codes: torch.Tensor, labels: torch.Tensor, start: tuple[float, float] = (0.0, 0.0)
) -> None:
    """Move a cross over a latent space of two dimensions and see what is decoded there.

    codes: (N, 2), labels: (N,) digits.
    """

    def draw(x: float, y: float) -> None:
        alt = f"Map of the two-dimensional codes with a cross at ({x:.1f}, {y:.1f}), "
        alt += "and the image decoded there."
        show_figure(draw_latent_point(model, codes, labels, x, y), alt)

    draw(*start)
    if is_static():
        return
    sliders = []
    for value, column in zip(start, codes.T, strict=True):
        low = column.min().item()
        high = column.max().item()
        step = (high - low) / 100
        sliders.append(FloatSlider(value, min=low, max=high, step=step, continuous_update=False))
    interact(draw, x=sliders[0], y=sliders[1])


def draw_interpolation(
    model, start: torch.Tensor, end: torch.Tensor, steps: int = 11, at: int | None = None
) -> plt.Figure:
    """The images decoded on the straight line from code `start` (latent,) to `end`.

    at: the step that is also drawn large, by default the middle one.
    """
    share = torch.linspace(0, 1, steps)[:, None]  # (steps, 1)
    images = _decode(model, (1 - share) * start + share * end)
    fig, (strip, large) = plt.subplots(2, 1, figsize=(7.5, 3.2), height_ratios=(1, 2.4))
    draw_images(strip, images, steps, "from one image to another")
    at = steps // 2 if at is None else at
    draw_images(large, images[at : at + 1], 1, f"step {at} of {steps - 1}")
    return fig


def interpolation_slider(model, start: torch.Tensor, end: torch.Tensor, steps: int = 11) -> None:
    """Slide from one code (latent,) to another."""

    def draw(at: int) -> None:
        alt = f"{steps} images decoded on the line between two codes, "
        alt += f"and number {at} of 0 to {steps - 1} enlarged."
        show_figure(draw_interpolation(model, start, end, steps, at), alt)

    draw(steps // 2)
    if not is_static():
        interact(draw, at=IntSlider(steps // 2, min=0, max=steps - 1))


# --- channels of a ConvVAE's latent (notebook 8) ---


def _latent(model, image: torch.Tensor) -> torch.Tensor:
    """The posterior's mode of an image (1, 3, H, W) in [0, 1]: (1, C, h, w)."""
    return model.encode(image.to(next(model.parameters()).device)).mode()


@torch.no_grad()
def draw_channels(model, image: torch.Tensor) -> plt.Figure:
    """One row per latent channel: an image decoded with that channel moved, everywhere.

    It is moved from -3 to +3 of its own standard deviations; image: (1, 3, H, W) in [0, 1].
    """
    z = _latent(model, image)
    rows = {}
    for channel in range(z.shape[1]):
        step = torch.zeros_like(z)
        step[:, channel] = z[:, channel].std()
        moved = torch.cat([z + amount * step for amount in range(-3, 4)])
        rows[f"channel {channel}: -3 … +3 standard deviations"] = model.decode(moved)
    return image_rows(rows, size=1.05)


@torch.no_grad()
def draw_edited(
    model, image: torch.Tensor, channel: int, amount: float, place: tuple
) -> plt.Figure:
    """The decoded image (1, 3, H, W), and the same with one channel moved at `place`.

    amount: in standard deviations of the channel.  place: (row, column) of the latent, each an
    index or a slice.
    """
    z = _latent(model, image)
    edited = z.clone()
    edited[(0, channel, *place)] += amount * z[:, channel].std()
    decoded = model.decode(torch.cat([z, edited]))
    return image_rows(
        {f"decoded, and with channel {channel} moved by {amount:+.1f}": decoded}, size=2.4
    )


def channel_editor(model, image: torch.Tensor) -> None:
    """Move a channel of an image's latent, everywhere or at one place, and see what is decoded.

    model: a ConvVAE; image: (1, 3, H, W) in [0, 1].
    """
    channels = model.config.latent_channels
    factor = model.config.factor
    alt = f"{channels} rows, one for each latent channel: "
    alt += "one picture decoded with that channel moved down and up."
    show_figure(draw_channels(model, image), alt)
    if is_static():
        return

    def draw(channel: int, amount: float, everywhere: bool, row: int, column: int) -> None:
        place = (slice(None), slice(None)) if everywhere else (row, column)
        alt = f"A picture, and the same with channel {channel} moved."
        show_figure(draw_edited(model, image, channel, amount, place), alt)

    interact(
        draw,
        channel=IntSlider(0, min=0, max=channels - 1),
        amount=FloatSlider(2.0, min=-4, max=4, step=0.25, continuous_update=False),
        everywhere=True,
        row=IntSlider(0, min=0, max=image.shape[2] // factor - 1),
        column=IntSlider(0, min=0, max=image.shape[3] // factor - 1),
    )


# --- prompts (notebook 10) ---


def draw_all_prompts(
    pipeline, framed: Collection[tuple[str, str, str]], seed: int = 0, steps: int = 20
) -> plt.Figure:
    """One picture of each of the 48 prompts: a row per coat, a column per ears and ground.

    Those of the combinations (coat, ears, ground) in `framed` get a frame.
    """
    prompts = [caption(*combination) for combination in COMBINATIONS]
    pictures = sample(pipeline, prompts, steps=steps, seed=seed)
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


def prompt_gallery(
    pipeline, framed: Collection[tuple[str, str, str]] = (), steps: int = 20
) -> None:
    """All 48 prompts, those in `framed` in a frame; then choose words and seed of six pictures."""
    alt = "48 drawn dogs: six coats, one under another, with two kinds of ears on four grounds; "
    alt += f"{len(framed)} are framed."
    show_figure(draw_all_prompts(pipeline, framed, steps=steps), alt)
    if is_static():
        return

    def draw(coat: str, ears: str, ground: str, seed: int) -> None:
        prompt = caption(coat, ears, ground)
        rows = {f"{prompt}, seed {seed}": sample(pipeline, [prompt] * 6, seed=seed)}
        show_figure(image_rows(rows, size=1.3), f"Six drawn dogs for: {prompt}.")

    interact(
        draw,
        coat=Dropdown(options=COATS),
        ears=Dropdown(options=EARS),
        ground=Dropdown(options=GROUNDS),
        seed=IntSlider(0, min=0, max=20, continuous_update=False),
    )
