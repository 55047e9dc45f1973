"""Figures in one style: dark on white, so that they read in light and dark themes.

The colours are safe for colour-blind eyes.
"""

import base64
import io

import matplotlib.pyplot as plt
import torch
from IPython.display import display

# Okabe & Ito 2008 for lines; Paul Tol's "muted" and a near black for the ten digits
LINES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
DIGITS = [
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933",
    "#DDCC77", "#CC6677", "#882255", "#AA4499", "#111111",
]  # fmt: skip

plt.rcParams.update(
    {
        "figure.facecolor": "white",
        "figure.dpi": 100,
        "figure.constrained_layout.use": True,
        "savefig.facecolor": "white",
        "axes.facecolor": "white",
        "axes.prop_cycle": plt.cycler(color=LINES),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.titlesize": 12,
        "grid.alpha": 0.25,
        "font.size": 12,
        "legend.frameon": False,
        "image.cmap": "gray",
    }
)


def show_figure(fig: plt.Figure, alt: str) -> None:
    """Display a figure, with a text for those who cannot see it, and close it.

    Colour pictures are stored as JPEG, in a third of the space; curves and grey images as PNG.
    """
    if any(image.get_array().ndim == 3 for ax in fig.axes for image in ax.images):
        file = io.BytesIO()
        quality = {"quality": 90, "subsampling": 0}
        fig.savefig(file, format="jpeg", bbox_inches="tight", pil_kwargs=quality)
        data = {"image/jpeg": base64.b64encode(file.getvalue()).decode(), "text/plain": alt}
        display(data, raw=True, metadata={"image/jpeg": {"alt": alt}})
    else:
        display(fig, metadata={"image/png": {"alt": alt}})
    plt.close(fig)


def tile_images(images: torch.Tensor, columns: int) -> torch.Tensor:
    """Images (N, C, H, W) as one sheet (rows · H, columns · W, C), in reading order.

    Values are clipped to [0, 1]; where images are missing in the last row it is white.
    """
    n, c, h, w = images.shape
    rows = -(-n // columns)
    sheet = torch.ones(rows * columns, c, h, w)
    sheet[:n] = images.detach().float().cpu().clamp(0, 1)
    sheet = sheet.unflatten(0, (rows, columns)).permute(0, 3, 1, 4, 2)  # (rows, H, columns, W, C)
    return sheet.reshape(rows * h, columns * w, c)


def draw_images(ax: plt.Axes, images: torch.Tensor, columns: int, title: str = "") -> None:
    """Images (N, 1, H, W) or (N, 3, H, W) in [0, 1] as a grid of `columns` columns, into `ax`."""
    sheet = tile_images(images, columns).squeeze(-1)  # grey images without their channel
    ax.imshow(sheet.numpy(), vmin=0, vmax=1, interpolation="nearest")
    ax.set_title(title, loc="left")
    ax.axis("off")


def image_rows(
    rows: dict[str, torch.Tensor], columns: int | None = None, size: float = 0.62
) -> plt.Figure:
    """One labelled grid of images under another; rows: {label: (N, C, H, W) in [0, 1]}.

    columns: by default as many as the longest row has images.  size: of an image, in inches.
    """
    columns = columns or max(len(images) for images in rows.values())
    heights = [-(-len(images) // columns) for images in rows.values()]
    figsize = (columns * size, sum(heights) * size + 0.32 * len(rows))  # 0.32: a title
    fig, axes = plt.subplots(len(rows), 1, figsize=figsize, height_ratios=heights, squeeze=False)
    for ax, (label, images) in zip(axes[:, 0], rows.items(), strict=True):
        draw_images(ax, images, columns, label)
    return fig


def draw_latent_map(
    ax: plt.Axes, codes: torch.Tensor, labels: torch.Tensor, title: str = "", share: float = 1.0
) -> None:
    """Codes (N, 2) as dots in their digit's colour, with each digit's numeral at its median.

    share: the middle part of the codes, along each axis, that is shown.
    """
    codes = codes.cpu()
    labels = labels.cpu()
    ends = torch.tensor([0.5 - share / 2, 0.5 + share / 2]).clamp(0, 1)
    low, high = codes.quantile(ends, dim=0).tolist()
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    for digit in range(10):
        x, y = codes[labels == digit].T
        ax.scatter(x, y, s=4, alpha=0.5, color=DIGITS[digit], linewidths=0, rasterized=True)
    numeral = {"fontsize": 11, "weight": "bold", "ha": "center", "va": "center", "clip_on": True}
    for digit in labels.unique().tolist():
        x, y = codes[labels == digit].median(dim=0).values.tolist()
        disc = {"boxstyle": "circle,pad=0.12", "fc": "white", "ec": DIGITS[digit], "lw": 2}
        ax.text(x, y, str(digit), bbox=disc, **numeral)
    ax.set(title=title, xlabel="$z_1$", ylabel="$z_2$")


@torch.no_grad()
def draw_decoded_grid(
    ax: plt.Axes,
    model,
    extent: tuple[float, float, float, float],
    n: int = 20,
    title: str = "",
) -> None:
    """What a model of two latent dimensions decodes on an n × n grid.

    extent: (left, right, bottom, top) of the latent plane; model.decode gives logits.
    """
    left, right, bottom, top = extent
    x = torch.linspace(left, right, 2 * n + 1)[1::2]  # the middles of the cells
    y = torch.linspace(bottom, top, 2 * n + 1)[1::2].flip(0)  # top first
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 2)  # row by row
    images = torch.sigmoid(model.decode(grid.to(next(model.parameters()).device)))
    sheet = tile_images(images, n).squeeze(-1)  # (n · 28, n · 28)
    ax.imshow(sheet.numpy(), extent=extent, aspect="auto", vmin=0, vmax=1)
    ax.grid(False)
    ax.set(title=title, xlabel="$z_1$", ylabel="$z_2$")


def plot_history(
    history, terms: tuple[str, ...] = ("loss",), unit: str = "nats per image"
) -> plt.Figure:
    """Loss terms over epochs, one panel each; the held-out curve dashed where there is one."""
    fig, axes = plt.subplots(1, len(terms), figsize=(2.9 * len(terms), 2.9), squeeze=False)
    for ax, term in zip(axes[0], terms, strict=True):
        ax.plot(history["epoch"], history[term], label="training")
        if f"val_{term}" in history.rows[0]:
            ax.plot(history["epoch"], history[f"val_{term}"], "--", label="held out")
        ax.set(title=term, xlabel="epoch")
    axes[0, 0].set_ylabel(unit)
    axes[0, 0].legend()
    return fig
