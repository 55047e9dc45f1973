"""Figures are drawn without a warning and carry their alt text; sliders redraw."""

import base64
import io
import json
import subprocess
import sys
import textwrap

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from ipywidgets import interactive
from matplotlib.colors import to_rgb
from PIL import Image

from helpers.classifiers.dogs import COMBINATIONS, combination_numbers
from helpers.data.synthetic_dogs import COATS, caption, load_synthetic_dogs
from helpers.models.conv_vae import ConvVAE, VAEConfig
from helpers.models.mlp_vae import MLPVAE
from helpers.show import plots, widgets
from helpers.training.history import History
from tests.conftest import ROOT

pytestmark = pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")


@pytest.fixture(autouse=True)
def closed():
    """Every test leaves no figure open."""
    yield
    plt.close("all")


def render(fig) -> bytes:
    """The figure as PNG: layout faults and missing glyphs warn only now."""
    file = io.BytesIO()
    fig.savefig(file, format="png")
    return file.getvalue()


def model() -> MLPVAE:
    torch.manual_seed(0)
    return MLPVAE(2, (8,))


def codes(count: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(0)), torch.arange(count) % 10


def history(with_validation: bool) -> History:
    rows = [{"epoch": i, "seconds": i, "rate": 0.1, "loss": 9.0 - i, "kl": i} for i in range(1, 4)]
    return History([row | {"val_loss": 10.0, "val_kl": 1.0} for row in rows] if with_validation else rows)


# --- figures ---


@pytest.mark.parametrize("channels", [1, 3])
def test_images_stand_in_rows_in_reading_order(channels):
    images = torch.zeros(5, channels, 2, 3)
    for i in range(5):
        images[i, :, 0, 0] = (i + 1) / 10  # the upper left pixel tells which image it is
    fig, ax = plt.subplots()
    plots.draw_images(ax, images.requires_grad_(), columns=3, title="five")
    sheet = np.asarray(ax.images[0].get_array())
    assert sheet.shape == ((4, 9) if channels == 1 else (4, 9, 3))
    corners = sheet[::2, ::3].reshape(6, -1)[:, 0]
    assert corners == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 1.0])  # what is missing is white
    assert ax.images[0].get_clim() == (0, 1)
    render(fig)


def test_rows_of_images():
    fig = plots.image_rows({"originals": torch.rand(4, 1, 5, 7), "copies": torch.rand(8, 3, 5, 7)}, columns=4)
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["originals", "copies"]
    render(fig)
    render(plots.image_rows({"one": torch.rand(2, 1, 5, 7) * 3 - 1}))  # out of range is clipped


@pytest.mark.parametrize("digits", [range(10), [3, 7]])
def test_the_latent_map_has_the_digits_that_there_are(digits):
    points = torch.randn(40, 2)
    labels = torch.tensor(list(digits)).repeat(20)[:40]
    fig, ax = plt.subplots()
    plots.draw_latent_map(ax, points, labels, "map")
    assert sorted(text.get_text() for text in ax.texts) == [str(d) for d in digits]
    render(fig)


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
    sheet = torch.logit(torch.from_numpy(np.asarray(ax.images[0].get_array(), dtype=np.float64)))
    assert sheet.shape == (4 * 28, 4 * 28)
    x, y = sheet[0::28, 5::28], sheet[20::28, 5::28]  # rows from the top
    torch.testing.assert_close(x, torch.tensor([[-3.0, -1, 1, 3]]).double().expand(4, 4), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(y, torch.tensor([[2.5], [1.5], [0.5], [-0.5]]).double().expand(4, 4), rtol=1e-4, atol=1e-4)
    assert ax.images[0].get_extent() == [-4, 4, -1, 3] and ax.images[0].origin == "upper"
    render(fig)


@pytest.mark.parametrize("with_validation", [True, False])
def test_the_history_has_a_panel_for_each_term(with_validation):
    fig = plots.plot_history(history(with_validation), ("loss", "kl"))
    assert [ax.get_title() for ax in fig.axes] == ["loss", "kl"] and "nats per image" in fig.axes[0].get_ylabel()
    assert [len(ax.lines) for ax in fig.axes] == [1 + with_validation] * 2
    assert list(fig.axes[0].lines[0].get_ydata()) == [8, 7, 6]
    render(fig)


def test_the_style_reads_on_dark_pages_and_without_colour_vision():
    fig, ax = plt.subplots()
    assert to_rgb(fig.get_facecolor()) == to_rgb(ax.get_facecolor()) == (1, 1, 1)
    for colours in (plots.LINES, plots.DIGITS):
        assert len(set(colours)) == len(colours)
    assert len(plots.DIGITS) == 10


# --- display ---


def test_show_hands_the_alt_text_to_the_display_and_closes_the_figure(monkeypatch):
    shown = []
    monkeypatch.setattr(plots, "display", lambda fig, metadata: shown.append((fig, metadata)))
    fig, _ = plt.subplots()
    plots.show_figure(fig, alt="an empty plot")
    assert shown == [(fig, {"image/png": {"alt": "an empty plot"}})]
    assert not plt.fignum_exists(fig.number)


def test_colour_pictures_are_shown_as_jpeg_with_their_alt_text(monkeypatch):
    shown = []
    monkeypatch.setattr(plots, "display", lambda data, raw, metadata: shown.append((data, raw, metadata)))
    fig = plots.image_rows({"drawings": load_synthetic_dogs(6).pixels()}, size=1.0)
    plots.show_figure(fig, alt="six dogs")
    ((data, raw, metadata),) = shown
    jpeg = base64.b64decode(data["image/jpeg"])
    assert raw and metadata == {"image/jpeg": {"alt": "six dogs"}} and data["text/plain"] == "six dogs"
    picture = Image.open(io.BytesIO(jpeg))
    assert picture.format == "JPEG" and picture.width > 500 > picture.height > 80
    assert not plt.fignum_exists(fig.number)


def test_a_notebook_stores_one_picture_with_its_alt_text(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    code = """
        import json
        from IPython.core.interactiveshell import InteractiveShell
        from IPython.core.pylabtools import select_figure_formats
        from IPython.utils.capture import capture_output
        shell = InteractiveShell.instance()
        select_figure_formats(shell, {"png"})
        with capture_output() as captured:
            shell.run_cell("from helpers import plots; fig, ax = plots.plt.subplots(); plots.show_figure(fig, alt='dots')")
        print(json.dumps([[sorted(o.data), o.metadata] for o in captured.outputs]), captured.stderr)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ((kinds, metadata),) = json.loads(done.stdout)
    assert "image/png" in kinds and metadata["image/png"]["alt"] == "dots"


# --- explorers ---


@pytest.fixture
def live(monkeypatch):
    """(what was shown: pairs of a PNG and its alt text; the widgets that were made)."""
    shown, made = [], []

    def show(fig, alt):
        shown.append((render(fig), alt))
        plt.close(fig)

    monkeypatch.setattr(widgets, "show", show)
    monkeypatch.setattr(widgets, "interact", lambda draw, **sliders: made.append(interactive(draw, **sliders)))
    return shown, made


def explore() -> None:
    widgets.latent_explorer(model(), *codes(), start=(0.5, -0.5))


def slide() -> None:
    widgets.interpolation_slider(model(), torch.zeros(2), torch.ones(2), steps=5)


def small_conv_vae() -> ConvVAE:
    torch.manual_seed(0)
    return ConvVAE(VAEConfig((8, 8), latent_channels=3, blocks=1, groups=2)).eval()


def picture() -> torch.Tensor:
    return torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(0))


def edit() -> None:
    widgets.channel_editor(small_conv_vae(), picture())


def prompted(monkeypatch) -> list[list[str]]:
    """A gallery of pictures that are as grey as their prompt's number and the seed say; what was asked for."""
    asked = []

    def sample(pipeline, prompts, steps=20, seed=0):
        asked.append(list(prompts))
        grey = combination_numbers(prompts).float() / 100 + seed / 200
        return grey.view(-1, 1, 1, 1).expand(-1, 3, 4, 4)

    monkeypatch.setattr(widgets, "sample", sample)
    return asked


def choose(monkeypatch) -> None:
    prompted(monkeypatch)
    widgets.prompt_gallery(None, [COMBINATIONS[9]])


@pytest.mark.parametrize("explorer", [explore, slide, edit, choose])
def test_where_nobody_can_move_a_slider_the_picture_alone_is_drawn(live, monkeypatch, explorer):
    shown, made = live
    monkeypatch.setenv("COURSE_STATIC", "1")
    explorer(monkeypatch) if explorer is choose else explorer()
    assert len(shown) == 1 and made == []


def move(widget, name: str, value) -> None:
    """What a learner's hand does."""
    slider = next(child for child in widget.children if getattr(child, "description", None) == name)
    slider.value = value


def test_moving_the_cross_redraws(live, monkeypatch):
    shown, made = live
    monkeypatch.delenv("COURSE_STATIC", raising=False)
    explore()
    assert len(made) == 1 and len(set(shown)) == 1 and "(0.5, -0.5)" in shown[0][1]
    move(made[0], "x", 1.5)
    move(made[0], "y", 0.8)
    assert len(set(shown)) == 3 and "(1.5, 0.8)" in shown[-1][1]
    again = render(widgets.draw_latent_point(model(), *codes(), *(child.value for child in made[0].children[:2])))
    assert again == shown[-1][0]


def test_the_gallery_shows_each_prompt_in_its_place_and_frames_what_is_asked(monkeypatch):
    prompted(monkeypatch)
    fig = widgets.draw_all_prompts(None, [COMBINATIONS[9], COMBINATIONS[47]])
    assert len(fig.axes) == 48 and "floppy\ngrass" == fig.axes[0].get_title() and fig.axes[8].get_ylabel() == COATS[1]
    shown = [float(np.asarray(ax.images[0].get_array()).mean()) for ax in fig.axes]
    assert shown == pytest.approx([number / 100 for number in range(48)])
    framed = [number for number, ax in enumerate(fig.axes) if ax.spines["top"].get_visible()]
    assert framed == [9, 47]
    for number, (coat, ears, ground) in enumerate(COMBINATIONS):
        assert fig.axes[number // 8 * 8].get_ylabel() == coat and fig.axes[number % 8].get_title() == f"{ears}\n{ground}"
    render(fig)


def test_choosing_words_draws_their_prompt(live, monkeypatch):
    shown, made = live
    asked = prompted(monkeypatch)
    monkeypatch.delenv("COURSE_STATIC", raising=False)
    widgets.prompt_gallery(None)
    assert "0 are framed" in shown[0][1] and asked[-1] == [caption(*COMBINATIONS[0])] * 6
    for name, value in zip(("coat", "ears", "ground"), COMBINATIONS[47], strict=True):
        move(made[0], name, value)
    assert asked[-1] == [caption(*COMBINATIONS[47])] * 6 and caption(*COMBINATIONS[47]) in shown[-1][1]
    before = shown[-1][0]
    move(made[0], "seed", 3)
    assert shown[-1][0] != before


def test_moving_along_the_line_redraws(live, monkeypatch):
    shown, made = live
    monkeypatch.delenv("COURSE_STATIC", raising=False)
    slide()
    assert len(made) == 1 and len(set(shown)) == 1 and "number 2" in shown[0][1]
    move(made[0], "at", 4)
    assert shown[-1][0] != shown[0][0] and "number 4" in shown[-1][1]
    assert made[0].children[0].min == 0 and made[0].children[0].max == 4


def test_the_sliders_span_the_codes(live, monkeypatch):
    _, made = live
    monkeypatch.delenv("COURSE_STATIC", raising=False)
    explore()
    points, _ = codes()
    for slider, column in zip(made[0].children, points.T, strict=False):
        assert (slider.min, slider.max) == pytest.approx((column.min().item(), column.max().item()))
        assert not slider.continuous_update


def shown_images(fig, row: int, count: int) -> list[np.ndarray]:
    """The pictures that stand side by side in one row of `image_rows`."""
    return np.split(np.asarray(fig.axes[row].images[0].get_array()), count, axis=1)


def test_each_row_moves_one_channel_by_its_own_spread():
    vae, x = small_conv_vae(), picture()
    fig = widgets.draw_channels(vae, x)
    with torch.no_grad():
        z = vae.encode(2 * x - 1).mean
        for channel in range(3):
            for shown, amount in zip(shown_images(fig, channel, 7), (-3, -2, -1, 0, 1, 2, 3), strict=True):
                moved = z.clone()
                moved[:, channel] += amount * z[:, channel].std()
                decoded = ((vae.decode(moved)[0] + 1) / 2).clamp(0, 1).movedim(0, 2)
                np.testing.assert_allclose(shown, decoded.numpy(), atol=1e-5)


def test_the_editor_moves_one_place_or_all(live, monkeypatch):
    shown, made = live
    monkeypatch.delenv("COURSE_STATIC", raising=False)
    edit()
    everywhere = shown[-1][0]
    move(made[0], "everywhere", False)
    move(made[0], "row", 3)
    move(made[0], "column", 5)
    move(made[0], "channel", 2)
    assert made[0].children[3].max == 3 and made[0].children[4].max == 5, "4 × 6 places"
    vae, x = small_conv_vae(), picture()
    fig = widgets.draw_edited(vae, x, 2, 2.0, (3, 5))
    assert render(fig) == shown[-1][0] != everywhere
    with torch.no_grad():
        z = vae.encode(2 * x - 1).mean
        z[0, 2, 3, 5] += 2 * z[:, 2].std()
        decoded = ((vae.decode(z)[0] + 1) / 2).clamp(0, 1).movedim(0, 2)
    np.testing.assert_allclose(shown_images(fig, 0, 2)[1], decoded.numpy(), atol=1e-5)


def test_interpolation_goes_straight_from_one_code_to_the_other():
    vae, start, end = model(), torch.tensor([-1.0, 2.0]), torch.tensor([3.0, 0.0])
    fig = widgets.draw_interpolation(vae, start, end, steps=5, at=3)
    strip, large = (np.asarray(ax.images[0].get_array()) for ax in fig.axes)
    for step in range(5):
        decoded = torch.sigmoid(vae.decode((start + (end - start) * step / 4)[None]))[0, 0].detach().numpy()
        np.testing.assert_allclose(strip[:, step * 28 : (step + 1) * 28], decoded, atol=1e-5)
        if step == 3:
            np.testing.assert_allclose(large, decoded, atol=1e-5)
    assert "step 3 of 4" in fig.axes[1].get_title(loc="left")


def test_the_explorer_decodes_where_the_cross_is():
    vae = model()
    fig = widgets.draw_latent_point(vae, *codes(), 0.7, -1.2)
    decoded = torch.sigmoid(vae.decode(torch.tensor([[0.7, -1.2]])))[0, 0].detach().numpy()
    np.testing.assert_allclose(np.asarray(fig.axes[1].images[0].get_array()), decoded, atol=1e-6)
    cross = fig.axes[0].lines[-1]
    assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (0.7, -1.2)


def test_the_latent_map_shows_the_middle_share_and_a_numeral_for_each_digit():
    points = torch.linspace(0, 1, 1001)[:, None].expand(-1, 2)
    _, ax = plt.subplots()
    plots.draw_latent_map(ax, points, torch.arange(1001) % 10, share=0.8)
    np.testing.assert_allclose([*ax.get_xlim(), *ax.get_ylim()], [0.1, 0.9, 0.1, 0.9], atol=2e-3)
    assert [text.get_text() for text in ax.texts if text.get_visible()] == [str(digit) for digit in range(10)]
    plt.close("all")
