"""Shapes, the pen that fills them, and the four grounds that synthetic dogs stand on.

A shape is a closed polygon of complex numbers x + iy; y points down and the picture's side is 1.
"""

import random
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

HORIZON = 0.62
SKIES = {  # RGB of the sky above and at the horizon, of the ground there and in front
    "grass": ((104, 180, 242), (208, 236, 250), (150, 208, 98), (84, 158, 66)),
    "sand": ((92, 196, 228), (224, 246, 240), (248, 228, 174), (224, 190, 126)),
    "snow": ((142, 178, 214), (222, 232, 244), (226, 236, 248), (192, 211, 235)),
    "night": ((20, 24, 74), (92, 78, 152), (52, 104, 108), (28, 64, 76)),
}
_CIRCLE = np.exp(2j * np.pi * np.arange(24) / 24)


def corners(path: str) -> np.ndarray:
    """The polygon with the corners "x y, x y, …" in hundredths."""
    return np.array(path.replace(",", " ").split(), float).view(complex) / 100


def blob(path: str) -> np.ndarray:
    """The smooth closed shape (Catmull-Rom) through the points of "x y, x y, …" in hundredths."""
    p1 = corners(path)
    p0 = np.roll(p1, 1)
    p2 = np.roll(p1, -1)
    p3 = np.roll(p1, -2)
    t = np.linspace(0, 1, 6, endpoint=False)[:, None]  # six points from each corner to the next

    square = 2 * p0 - 5 * p1 + 4 * p2 - p3
    cube = 3 * p1 - p0 - 3 * p2 + p3
    return (p1 + ((p2 - p0) * t + square * t**2 + cube * t**3) / 2).T.ravel()


def oval(x: float, y: float, rx: float, ry: float) -> np.ndarray:
    """An ellipse with centre (x, y), in hundredths."""
    return (_CIRCLE.real * rx + x + 1j * (_CIRCLE.imag * ry + y)) / 100


class Pen:
    """Fills shapes on a square canvas; their coordinates are shares of its side."""

    def __init__(self, canvas: Image.Image):
        self.polygon = ImageDraw.Draw(canvas).polygon
        self.side = canvas.width

    def fill(self, colour: tuple[int, int, int], *shapes: np.ndarray) -> None:
        for shape in shapes:
            self.polygon((shape * self.side).view(float).tolist(), colour)


@lru_cache(maxsize=4)
def sky(ground: str, side: int) -> Image.Image:
    """The empty scene: two gradients that meet at the horizon."""
    top, low, near, far = (np.array(colour, float) for colour in SKIES[ground])
    y = (np.arange(side) + 0.5)[:, None] / side
    above = y / HORIZON
    below = (y - HORIZON) / (1 - HORIZON)
    rows = np.where(y < HORIZON, top + (low - top) * above, near + (far - near) * below)
    return Image.fromarray(np.repeat(rows[:, None].round().astype(np.uint8), side, axis=1))


def decorate(pen: Pen, ground: str, rng: random.Random) -> None:
    """Draw sun or moon, hills, trees, flowers …, each time elsewhere."""
    {"grass": _grass, "sand": _sand, "snow": _snow, "night": _night}[ground](pen, rng)


# --- what several grounds have ---


def _spots(rng: random.Random, count: int, top: float, bottom: float) -> list[tuple[float, float]]:
    return [(rng.uniform(0, 100), rng.uniform(top, bottom)) for _ in range(count)]


def _sun_and_clouds(pen: Pen, rng: random.Random) -> None:
    x = rng.uniform(10, 90)
    pen.fill((255, 243, 184), oval(x, 14, 9, 9))
    pen.fill((255, 224, 100), oval(x, 14, 7, 7))

    for x, y in _spots(rng, 2, 8, 32):
        left = oval(x - 7, y + 1.6, 5, 3)
        right = oval(x + 7, y + 1.6, 5.5, 3.3)
        pen.fill((252, 254, 255), left, oval(x, y, 7.5, 4.5), right)


def _hills(pen: Pen, rng: random.Random, y: float, left: tuple, right: tuple) -> None:
    pen.fill(left, oval(rng.uniform(0, 50), y, 55, 12))
    pen.fill(right, oval(rng.uniform(50, 100), y + 3, 55, 13))


_TUFT = corners("-1.4 0, -2 -3.5, -.3 -1.2, .2 -4.5, .7 -1.2, 2.2 -3.8, 1.4 0")


def _tufts(pen: Pen, rng: random.Random, colour: tuple) -> None:
    pen.fill(colour, *(_TUFT + (x + 1j * y) / 100 for x, y in _spots(rng, 8, 68, 98)))


# --- the four grounds ---


_FLOWERS = ((255, 255, 255), (255, 218, 90), (250, 150, 180))


def _grass(pen: Pen, rng: random.Random) -> None:
    _sun_and_clouds(pen, rng)
    _hills(pen, rng, 67, (124, 190, 90), (136, 200, 92))
    _tufts(pen, rng, (64, 134, 54))

    for x, y in _spots(rng, 6, 70, 97):
        pen.fill(rng.choice(_FLOWERS), oval(x, y, 1.6, 1.6))
        pen.fill((242, 168, 50), oval(x, y, 0.6, 0.6))


_SHELLS = ((255, 248, 236), (244, 154, 132))


def _sand(pen: Pen, rng: random.Random) -> None:
    _sun_and_clouds(pen, rng)
    pen.fill((64, 156, 206), corners("0 53, 100 53, 100 64, 0 64"))  # the sea
    pen.fill((196, 232, 242), *(oval(x, y, 7, 0.45) for x, y in _spots(rng, 4, 54.5, 60)))

    x = rng.uniform(20, 80)
    pen.fill((255, 255, 255), oval(x, 66, 90, 4.2))  # surf, and the beach over it
    pen.fill((248, 228, 174), oval(x - 8, 67, 90, 4.2))

    pen.fill((214, 178, 112), *(oval(x, y, 8, 0.7) for x, y in _spots(rng, 5, 70, 97)))
    for x, y in _spots(rng, 3, 70, 97):
        pen.fill(rng.choice(_SHELLS), oval(x, y, 1.8, 1.4))


_BRANCH = corners("-36 0, 0 -50, 36 0")
_TOP = corners("-16 -28, 0 -50, 16 -28")


def _snow(pen: Pen, rng: random.Random) -> None:
    for left in (0, 35, 70):  # three firs
        foot = (rng.uniform(left, left + 30) + 62j) / 100
        height = rng.uniform(0.16, 0.26)
        for k in range(3):
            size = height * (1 - 0.2 * k)
            rise = 0.3j * k * height
            pen.fill((78, 126, 122), _BRANCH * size + foot - rise)
            pen.fill((240, 246, 252), _TOP * size + foot - rise)

    _hills(pen, rng, 70, (233, 241, 251), (223, 234, 248))
    pen.fill((255, 255, 255), *(oval(x, y, 1.1, 1.1) for x, y in _spots(rng, 18, 0, 100)))


def _night(pen: Pen, rng: random.Random) -> None:
    for x, y in _spots(rng, 16, 0, 52):
        radius = rng.uniform(0.4, 0.9)
        pen.fill((255, 246, 206), oval(x, y, radius, radius))

    x = rng.uniform(12, 88)
    pen.fill((58, 58, 122), oval(x, 15, 11, 11))  # the moon, with a halo and craters
    pen.fill((254, 244, 204), oval(x, 15, 8, 8))
    pen.fill((234, 220, 170), oval(x + 2, 14, 2, 2), oval(x - 3, 17, 1.4, 1.4))

    _hills(pen, rng, 67, (42, 88, 100), (46, 96, 102))
    _tufts(pen, rng, (22, 52, 62))
    for x, y in _spots(rng, 4, 50, 95):  # fireflies
        pen.fill((110, 140, 92), oval(x, y, 1.6, 1.6))
        pen.fill((230, 255, 130), oval(x, y, 0.8, 0.8))
