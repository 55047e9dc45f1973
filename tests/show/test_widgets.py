"""Explorers draw what they say, and redraw when a slider is moved."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from ipywidgets import interactive

from helpers.classifiers.dogs import COMBINATIONS, combination_numbers
from helpers.data.synthetic_dogs import COATS, caption
from helpers.models.conv_vae import ConvVAE, VAEConfig
from helpers.show import widgets
from tests.show.small_figures import codes, render, sheet_of, small_vae

pytestmark = pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")


def small_conv_vae() -> ConvVAE:
    torch.manual_seed(0)
    return ConvVAE(VAEConfig((8, 8), latent_channels=3, blocks=1, groups=2)).eval()


def picture() -> torch.Tensor:
    return torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def live(monkeypatch):
    """(what was shown: pairs of a PNG and its alt text; the widgets that were made)."""
    shown = []
    made = []

    def show_figure(fig, alt):
        shown.append((render(fig), alt))
        plt.close(fig)

    def interact(draw, **sliders):
        made.append(interactive(draw, **sliders))

    monkeypatch.delenv("COURSE_STATIC", raising=False)
    monkeypatch.setattr(widgets, "show_figure", show_figure)
    monkeypatch.setattr(widgets, "interact", interact)
    return shown, made


@pytest.fixture
def asked(monkeypatch) -> list[list[str]]:
    """What a pipeline is asked for that draws greys: by a prompt's number and the seed."""
    asked = []

    def sample(pipeline, prompts, steps=20, seed=0):
        asked.append(list(prompts))
        grey = combination_numbers(prompts).float() / 100 + seed / 200
        return grey.view(-1, 1, 1, 1).expand(-1, 3, 4, 4)

    monkeypatch.setattr(widgets, "sample", sample)
    return asked


def move(widget, name: str, value) -> None:
    """What a learner's hand does."""
    slider = next(child for child in widget.children if getattr(child, "description", "") == name)
    slider.value = value


def explore() -> None:
    widgets.latent_explorer(small_vae(), *codes(), start=(0.5, -0.5))


def slide() -> None:
    widgets.interpolation_slider(small_vae(), torch.zeros(2), torch.ones(2), steps=5)


def edit() -> None:
    widgets.channel_editor(small_conv_vae(), picture())


def choose() -> None:
    widgets.prompt_gallery(None, [COMBINATIONS[9]])


@pytest.mark.parametrize("explorer", [explore, slide, edit, choose])
def test_where_nobody_can_move_a_slider_the_picture_alone_is_drawn(
    live, asked, monkeypatch, explorer
):
    shown, made = live
    monkeypatch.setenv("COURSE_STATIC", "1")
    explorer()
    assert len(shown) == 1 and made == []


# --- codes of two dimensions ---


def test_the_explorer_decodes_where_the_cross_is():
    vae = small_vae()
    fig = widgets.draw_latent_point(vae, *codes(), 0.7, -1.2)
    decoded = torch.sigmoid(vae.decode(torch.tensor([[0.7, -1.2]])))[0, 0].detach()
    np.testing.assert_allclose(sheet_of(fig.axes[1]), decoded.numpy(), atol=1e-6)
    cross = fig.axes[0].lines[-1]
    assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (0.7, -1.2)


def test_moving_the_cross_redraws_and_the_sliders_span_the_codes(live):
    shown, made = live
    explore()
    assert len(made) == 1 and len(set(shown)) == 1 and "(0.5, -0.5)" in shown[0][1]
    points, _ = codes()
    sliders = made[0].children[:2]
    for slider, column in zip(sliders, points.T, strict=True):
        ends = column.min().item(), column.max().item()
        assert (slider.min, slider.max) == pytest.approx(ends)
        assert not slider.continuous_update
    move(made[0], "x", 1.5)
    move(made[0], "y", 0.8)
    assert len(set(shown)) == 3 and "(1.5, 0.8)" in shown[-1][1]
    x, y = (slider.value for slider in sliders)
    again = render(widgets.draw_latent_point(small_vae(), *codes(), x, y))
    assert again == shown[-1][0]


def test_interpolation_goes_straight_from_one_code_to_the_other():
    vae = small_vae()
    start = torch.tensor([-1.0, 2.0])
    end = torch.tensor([3.0, 0.0])
    fig = widgets.draw_interpolation(vae, start, end, steps=5, at=3)
    strip, large = map(sheet_of, fig.axes)
    with torch.no_grad():
        points = torch.stack([start + (end - start) * step / 4 for step in range(5)])
        decoded = torch.sigmoid(vae.decode(points))[:, 0].numpy()
    np.testing.assert_allclose(strip, np.concatenate(decoded, axis=1), atol=1e-5)
    np.testing.assert_allclose(large, decoded[3], atol=1e-5)
    assert "step 3 of 4" in fig.axes[1].get_title(loc="left")


def test_moving_along_the_line_redraws(live):
    shown, made = live
    slide()
    assert len(made) == 1 and len(set(shown)) == 1 and "number 2" in shown[0][1]
    move(made[0], "at", 4)
    assert shown[-1][0] != shown[0][0] and "number 4" in shown[-1][1]
    assert made[0].children[0].min == 0 and made[0].children[0].max == 4


# --- channels of a ConvVAE ---


def shown_images(fig: plt.Figure, row: int, count: int) -> list[np.ndarray]:
    """The pictures that stand side by side in one row of `image_rows`."""
    return np.split(sheet_of(fig.axes[row]), count, axis=1)


@torch.no_grad()
def decoded_image(vae: ConvVAE, z: torch.Tensor) -> np.ndarray:
    return vae.decode(z)[0].clamp(0, 1).movedim(0, 2).numpy()


@torch.no_grad()
def test_each_row_moves_one_channel_by_its_own_spread():
    vae = small_conv_vae()
    x = picture()
    fig = widgets.draw_channels(vae, x)
    z = vae.encode(x).mean
    for channel in range(3):
        for shown, amount in zip(shown_images(fig, channel, 7), range(-3, 4), strict=True):
            moved = z.clone()
            moved[:, channel] += amount * z[:, channel].std()
            np.testing.assert_allclose(shown, decoded_image(vae, moved), atol=1e-5)


def test_the_editor_moves_one_place_or_all(live):
    shown, made = live
    edit()
    everywhere = shown[-1][0]
    move(made[0], "everywhere", False)
    move(made[0], "row", 3)
    move(made[0], "column", 5)
    move(made[0], "channel", 2)
    assert [slider.max for slider in made[0].children[3:5]] == [3, 5]  # 4 × 6 places
    vae = small_conv_vae()
    x = picture()
    fig = widgets.draw_edited(vae, x, 2, 2.0, (3, 5))
    assert render(fig) == shown[-1][0] != everywhere
    with torch.no_grad():
        z = vae.encode(x).mean
        z[0, 2, 3, 5] += 2 * z[:, 2].std()
    np.testing.assert_allclose(shown_images(fig, 0, 2)[1], decoded_image(vae, z), atol=1e-5)


# --- prompts ---


def test_the_gallery_shows_each_prompt_in_its_place_and_frames_what_is_asked(asked):
    fig = widgets.draw_all_prompts(None, [COMBINATIONS[9], COMBINATIONS[47]])
    assert len(fig.axes) == 48
    greys = [float(sheet_of(ax).mean()) for ax in fig.axes]
    assert greys == pytest.approx([number / 100 for number in range(48)])
    framed = [n for n, ax in enumerate(fig.axes) if ax.spines["top"].get_visible()]
    assert framed == [9, 47]
    for number, (coat, ears, ground) in enumerate(COMBINATIONS):
        row, column = divmod(number, 8)
        assert fig.axes[8 * row].get_ylabel() == coat
        assert fig.axes[column].get_title() == f"{ears}\n{ground}"
    assert fig.axes[8].get_ylabel() == COATS[1]
    render(fig)


def test_choosing_words_draws_their_prompt(live, asked):
    shown, made = live
    widgets.prompt_gallery(None)
    assert "0 are framed" in shown[0][1] and asked[-1] == [caption(*COMBINATIONS[0])] * 6
    for name, value in zip(("coat", "ears", "ground"), COMBINATIONS[47], strict=True):
        move(made[0], name, value)
    prompt = caption(*COMBINATIONS[47])
    assert asked[-1] == [prompt] * 6 and prompt in shown[-1][1]
    before = shown[-1][0]
    move(made[0], "seed", 3)
    assert shown[-1][0] != before
