"""Diagrams of the first notebooks: nothing is cut off, and the text can be read on a phone."""

import pytest

from helpers.show import diagrams
from tests.show.small_figures import render

PHONE = 400  # pixels that a figure is wide there


@pytest.fixture(params=["autoencoder", "vae", "gradient"])
def figure(request):
    sizes = {"latent": 20, "hidden": (400,)}
    return {
        "autoencoder": lambda: diagrams.draw_autoencoder(**sizes),
        "vae": lambda: diagrams.draw_vae(**sizes),
        "gradient": diagrams.draw_gradient,
    }[request.param]()


def test_all_text_lies_inside_the_figure_and_is_legible(figure):
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
        assert inside or not text.get_text(), text.get_text()
        pixels = text.get_fontsize() * figure.dpi / 72 * PHONE / width
        assert pixels >= 9, text.get_text()
    render(figure)


def test_the_sizes_are_those_of_the_network():
    figure = diagrams.draw_vae(latent=20, hidden=(512, 256))
    words = " ".join(text.get_text() for text in figure.axes[0].texts)
    assert "512→256" in words and "256→512" in words and words.count("\n20") == 2
    render(figure)
