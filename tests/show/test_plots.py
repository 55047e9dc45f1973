"""Figures are drawn without a warning, carry their alt text, and show what is where."""

import base64
import io
import itertools
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.pylabtools import select_figure_formats
from IPython.utils.capture import capture_output
from matplotlib.colors import to_rgb
from PIL import Image
from skimage.color import deltaE_cie76, rgb2lab
from traitlets.config import Config

from helpers.data.synthetic_dogs import load_synthetic_dogs
from helpers.show import plots
from helpers.training.history import History
from tests.show.small_figures import render, sheet_of

pytestmark = pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")


# --- figures ---


@pytest.mark.parametrize("channels", [1, 3])
def test_images_stand_in_rows_in_reading_order(channels):
    images = torch.zeros(5, channels, 2, 3)
    for i in range(5):
        images[i, :, 0, 0] = (i + 1) / 10  # the upper left pixel tells which image it is
    fig, ax = plt.subplots()
    plots.draw_images(ax, images.requires_grad_(), columns=3, title="five")
    sheet = sheet_of(ax)
    assert sheet.shape == ((4, 9) if channels == 1 else (4, 9, 3))
    corners = sheet[::2, ::3].reshape(6, -1)[:, 0]
    assert corners == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 1.0])  # what is missing is white
    assert ax.images[0].get_clim() == (0, 1)
    render(fig)


def test_rows_of_images():
    rows = {"originals": torch.rand(4, 1, 5, 7), "copies": 3 * torch.rand(8, 3, 5, 7) - 1}
    fig = plots.image_rows(rows, columns=4)
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["originals", "copies"]
    assert [sheet_of(ax).shape for ax in fig.axes] == [(5, 28), (10, 28, 3)]
    assert sheet_of(fig.axes[1]).min() == 0 and sheet_of(fig.axes[1]).max() == 1  # clipped
    render(fig)


def test_the_latent_map_has_a_numeral_for_each_digit_that_there_is():
    fig, ax = plt.subplots()
    plots.draw_latent_map(ax, torch.randn(40, 2), torch.tensor([3, 7]).repeat(20), "map")
    assert sorted(text.get_text() for text in ax.texts) == ["3", "7"]
    render(fig)


def test_the_latent_map_shows_the_middle_share():
    points = torch.linspace(0, 1, 1001)[:, None].expand(-1, 2)
    _, ax = plt.subplots()
    plots.draw_latent_map(ax, points, torch.arange(1001) % 10, share=0.8)
    limits = [*ax.get_xlim(), *ax.get_ylim()]
    np.testing.assert_allclose(limits, [0.1, 0.9, 0.1, 0.9], atol=2e-3)
    assert [text.get_text() for text in ax.texts] == [str(digit) for digit in range(10)]


def test_the_decoded_grid_shows_each_point_where_the_map_has_it():
    """A decoder that paints z1 into the upper and z2 into the lower half of its image."""

    class Painter(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(1))

        def decode(self, z):
            upper, lower = (z[:, i, None, None, None].expand(-1, 1, 14, 28) for i in (0, 1))
            return torch.cat([upper, lower], dim=2)

    fig, ax = plt.subplots()
    plots.draw_decoded_grid(ax, Painter(), (-4.0, 4.0, -1.0, 3.0), n=4)
    sheet = torch.logit(torch.from_numpy(sheet_of(ax).astype(np.float64)))
    assert sheet.shape == (4 * 28, 4 * 28)
    x = sheet[0::28, 5::28]
    y = sheet[20::28, 5::28]
    across = torch.tensor([[-3.0, -1, 1, 3]]).double().expand(4, 4)
    down = torch.tensor([[2.5], [1.5], [0.5], [-0.5]]).double().expand(4, 4)
    torch.testing.assert_close((x, y), (across, down), rtol=1e-4, atol=1e-4)
    assert ax.images[0].get_extent() == [-4, 4, -1, 3] and ax.images[0].origin == "upper"
    render(fig)


@pytest.mark.parametrize("with_validation", [True, False])
def test_the_history_has_a_panel_for_each_term(with_validation):
    held_out = {"val_loss": 10.0, "val_kl": 1.0} if with_validation else {}
    rows = [{"epoch": i, "seconds": i, "lr": 0.1, "loss": 9.0 - i, "kl": i} for i in (1, 2, 3)]
    fig = plots.plot_history(History([row | held_out for row in rows]), ("loss", "kl"))
    assert [ax.get_title() for ax in fig.axes] == ["loss", "kl"]
    assert "nats per image" in fig.axes[0].get_ylabel()
    assert [len(ax.lines) for ax in fig.axes] == [1 + with_validation] * 2
    assert list(fig.axes[0].lines[0].get_ydata()) == [8, 7, 6]
    render(fig)


# --- style ---

# What is left of linear RGB: Machado, Oliveira & Fernandes 2009, table 1, severity 1
VISION = {
    "full": np.eye(3),
    "without red cones": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "without green cones": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "without blue cones": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}


def nearest(colours: list[str], seen: np.ndarray) -> float:
    """The smallest distance of two of the colours, as such an eye sees them (ΔE in CIELAB)."""
    rgb = np.array([to_rgb(colour) for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = (linear @ seen.T).clip(0, 1)
    rgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return min(deltaE_cie76(a, b) for a, b in itertools.combinations(rgb2lab(rgb), 2))


@pytest.mark.parametrize("seen", VISION.values(), ids=VISION)
def test_colours_differ_for_every_eye(seen):
    assert nearest(plots.LINES, seen) > 15 and nearest(plots.DIGITS, seen) > 15


def test_the_test_of_colours_would_see_red_and_green():
    worst = min(nearest(["#d62728", "#2ca02c"], seen) for seen in VISION.values())
    assert nearest(["#d62728", "#2ca02c"], VISION["full"]) > 100 and worst < 10


def test_figures_are_white_also_on_dark_pages():
    fig, ax = plt.subplots()
    assert to_rgb(fig.get_facecolor()) == to_rgb(ax.get_facecolor()) == (1, 1, 1)
    assert to_rgb(plt.rcParams["savefig.facecolor"]) == (1, 1, 1)


# --- display ---


@pytest.fixture
def outputs(monkeypatch, tmp_path):
    """A function that calls another one as a notebook does: the list of its outputs."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # the shell puts its own
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    select_figure_formats(shell, {"png"})

    def call(function, *arguments) -> list:
        with capture_output() as captured:
            function(*arguments)
        assert not captured.stderr
        return captured.outputs

    yield call
    InteractiveShell.clear_instance()


def test_curves_are_stored_as_png_with_their_alt_text_and_the_figure_is_closed(outputs):
    fig, ax = plt.subplots()
    ax.plot([1, 2])
    (shown,) = outputs(plots.show_figure, fig, "a line")
    assert "image/png" in shown.data and shown.metadata["image/png"]["alt"] == "a line"
    assert not plt.fignum_exists(fig.number)


def test_colour_pictures_are_stored_as_jpeg_with_their_alt_text(outputs):
    fig = plots.image_rows({"drawings": load_synthetic_dogs(6).pixels()}, size=1.0)
    (shown,) = outputs(plots.show_figure, fig, "six dogs")
    assert shown.data.keys() == {"image/jpeg", "text/plain"}
    assert shown.metadata == {"image/jpeg": {"alt": "six dogs"}}
    assert shown.data["text/plain"] == "six dogs"
    picture = Image.open(io.BytesIO(base64.b64decode(shown.data["image/jpeg"])))
    assert picture.format == "JPEG" and picture.width > 500 > picture.height > 80
    assert not plt.fignum_exists(fig.number)
