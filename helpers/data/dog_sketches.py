"""The parts of a synthetic dog as sketches: bodies in three poses, heads, ears, faces.

A sketch is a list of (colour name, polygon), drawn in this order.  A body has its feet at y = 0 and
is measured in pictures; a head is measured in its own radius, around its centre.
"""

from typing import NamedTuple

import numpy as np

from helpers.data.scenery import blob, oval

RADIUS = 0.205  # of a head, in pictures
_LINE = 0.011  # how far an outline stands out, in pictures
# size of a shape, and how far it is lifted, in outlines: from the shaded rim to the lit top
_SHADES = ((1.0, 0.0), (0.94, 0.35), (0.86, 0.75), (0.7, 1.3), (0.5, 1.8))
SHADES = len(_SHADES)

Sketch = list[tuple[str, np.ndarray]]


# --- how a sketch is made and moved ---


def _flat(colour: str, *shapes: np.ndarray) -> Sketch:
    return [(colour, shape) for shape in shapes]


def _round(tone: str, *shapes: np.ndarray, line: float = _LINE) -> Sketch:
    """Outlined, and lit from above; shapes that are given together have no lines between them."""
    sketch = _flat("line", *(_grown(shape, line) for shape in shapes))
    for level, (size, rise) in enumerate(_SHADES):
        for shape in shapes:
            smaller = (shape - shape.mean()) * size + shape.mean() - 1j * rise * line
            sketch.append((f"{tone} {level}", smaller))
    return sketch


def _grown(shape: np.ndarray, width: float) -> np.ndarray:
    """The shape with its edge moved outwards by `width`."""
    along = np.roll(shape, -1) - np.roll(shape, 1)
    clockwise = np.sign((shape.conj() * along).imag.sum())
    return shape - 1j * clockwise * width * along / abs(along)


def _both(shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return shape, -shape.conj()  # right, left


def flipped(sketch: Sketch) -> Sketch:
    """Mirrored left-right."""
    return [(colour, -shape.conj()) for colour, shape in sketch]


def moved(sketch: Sketch, turn: complex, shift: complex = 0j) -> Sketch:
    """Scaled by the length of `turn`, turned by its angle, then shifted."""
    return [(colour, shape * turn + shift) for colour, shape in sketch]


# --- bodies ---


class Pose(NamedTuple):
    """A body without its head, and where the moving parts are fixed to it."""

    body: Sketch
    tail: Sketch  # around the hinge
    hinge: complex
    collar: complex
    head: complex
    middle: float  # of the whole, left to right


def _tail(hinge: complex, path: str, tip: str) -> tuple[Sketch, complex]:
    tail = blob(path) - hinge
    sketch = [
        *_flat("line", _grown(tail, _LINE)),
        *_flat("base", tail),
        *_flat("light", blob(tip) - hinge),
    ]
    return sketch, hinge


def _standing() -> Pose:
    hind = blob(
        "-30 -34, -32 -22, -26 -14, -28 -3, -24 1, -18 1, -17 -3, -18 -12, -12 -24, -16 -34"
    )
    fore = blob("6 -32, 7 -16, 6 -3, 9 1, 15 1, 17 -3, 16 -16, 18 -32")
    neck = blob("5 -40, 2 -30, 12 -24, 22 -28, 25 -40, 23 -52, 8 -54")
    trunk = blob(
        "-28 -42, -18 -45, 0 -44, 16 -46, 22 -36, 20 -24, 10 -19, -7 -20, -18 -22, -28 -24, -32 -34"
    )
    belly = blob("-14 -22, 0 -23, 12 -25, 18 -23, 8 -19.5, -7 -20")
    body = [
        *_round("dark", hind + 0.08 - 0.012j, fore - 0.09 - 0.012j),  # the legs on the far side
        *_round("base", trunk, neck, hind, fore),
        *_flat("light", belly, neck * 0.8 + 0.035 - 0.065j),
        *_flat("light", oval(-23, -2, 5.5, 3), oval(11.5, -2, 5.5, 3)),
    ]
    tail = _tail(
        -0.27 - 0.35j,
        "-24 -34, -32 -39, -36 -48, -36 -58, -32 -68, -40 -65, -46 -56, -46 -45, -38 -34, -28 -30",
        tip="-36.5 -56, -32 -68, -40 -65, -45 -58, -40 -54",
    )
    return Pose(body, *tail, collar=0.145 - 0.375j, head=0.15 - 0.56j, middle=-0.045)


def _sitting() -> Pose:
    haunch = blob("20 -20, 28 -14, 30 -4, 24 0, 10 0, 8 -8, 12 -18")
    leg = blob("10 -30, 11 -12, 12 -3, 9 1, 2 1, 0 -3, 1 -14, 1 -30")
    trunk = blob("-12 -46, -18 -30, -22 -14, -20 -2, 0 0, 20 -2, 22 -14, 18 -30, 12 -46, 0 -48")
    chest = blob("0 -46, -11 -38, -9 -26, 0 -18, 9 -26, 11 -38")
    body = [
        *_round("base", trunk, *_both(haunch)),
        *_round("base", *_both(oval(22, -2.4, 8, 3.6))),
        *_round("base", *_both(leg)),
        *_flat("light", chest),
        *_round("light", *_both(oval(6, -2, 5.6, 3.4))),
    ]
    tail = _tail(
        0.15 - 0.02j,
        "13 -3, 24 -5, 29 -13, 32 -25, 39 -34, 43 -23, 42 -10, 34 -1, 18 2",
        tip="32 -24, 39 -34, 43 -23, 42.5 -18, 37 -19",
    )
    return Pose(body, *tail, collar=-0.37j, head=-0.56j, middle=0.04)


def _lying() -> Pose:
    trunk = blob("-34 -14, -28 -26, -12 -30, 8 -30, 20 -24, 22 -8, 16 0, -27 0, -34 -4")
    haunch = blob("-32 -14, -26 -23, -16 -22, -10 -12, -12 -3, -21 0, -30 -2")
    paw = blob("2 -12, 16 -14, 34 -8, 38 -3, 34 0, 10 0, 2 -4")
    chest = blob("8 -28, 4 -18, 10 -10, 18 -12, 22 -20, 20 -28")
    body = [
        *_round("dark", paw + 0.03 - 0.035j),  # the paw on the far side
        *_round("base", trunk),
        *_round("base", haunch),
        *_round("light", oval(-14, -2.6, 8, 3.4)),
        *_flat("light", chest),
        *_round("base", paw),
        *_flat("light", oval(33, -3.6, 5, 3.4)),
    ]
    tail = _tail(
        -0.3 - 0.01j,
        "-27 -3, -34 -5, -38 -12, -39 -20, -35 -29, -43 -25, -47 -16, -45 -5, -38 1, -28 1",
        tip="-39 -19, -35 -29, -43 -25, -45.5 -20, -42 -17",
    )
    return Pose(body, *tail, collar=0.14 - 0.2j, head=0.13 - 0.38j, middle=-0.045)


POSES = {"standing": _standing(), "sitting": _sitting(), "lying": _lying()}
COLLAR = [
    *_flat("collar", blob("-13 -4, 0 0, 13 -4, 13.5 .5, 0 5.5, -13.5 .5")),
    *_flat("tag", oval(0, 6, 3.4, 3.6)),
]
SHADOW = _flat("shadow", oval(0, 0, 37, 4.5))


# --- heads ---

EAR_HINGE = 0.6 - 0.5j


def _ear(tone: str, outer: str, *inner: str) -> Sketch:
    """The right ear, around its hinge."""
    ear = _round(tone, blob(outer) - EAR_HINGE, line=_LINE / RADIUS)
    return ear + _flat("inner ear", *(blob(path) - EAR_HINGE for path in inner))


EARS = {
    "floppy": _ear("dark", "50 -74, 82 -72, 112 -34, 120 18, 104 56, 80 48, 68 10, 58 -28"),
    "pointy": _ear(
        "base",
        "90 -16, 102 -66, 100 -122, 95 -134, 85 -128, 48 -102, 16 -74, 40 -40",
        "80 -46, 89 -84, 87 -110, 80 -108, 56 -88, 40 -74",
    ),
}
_SKULL = blob(
    "0 -82, -44 -77, -76 -48, -86 -6, -76 30, -46 60, 0 70, 46 60, 76 30, 86 -6, 76 -48, 44 -77"
)
SKULL = _round("base", _SKULL, line=_LINE / RADIUS)
MARKINGS = (
    [],
    _flat("dark", blob("10 -26, 22 -58, 52 -58, 76 -28, 70 10, 44 22, 16 8")),  # round one eye
    _flat("light", blob("0 -80, -13 -66, -10 -34, -22 0, 22 0, 10 -34, 13 -66")),  # a blaze
)


def _face() -> Sketch:
    muzzle = blob("0 -4, -26 6, -52 34, -48 62, -24 78, 0 80, 24 78, 48 62, 52 34, 26 6")
    face = [
        *_flat("jowl", _grown(muzzle, 0.03)),
        *_flat("light", muzzle),
        *_flat("blush", *_both(oval(60, 24, 12, 9))),
        *_flat("light", *_both(oval(34, -46, 9, 6))),
        *_flat("eye ring", *_both(oval(36, -15, 20, 23))),
        *_flat("eye", *_both(oval(36, -15, 16, 19))),
    ]
    for left in (0, -0.72):  # not mirrored: the light comes from one side
        face += _flat("white", oval(41, -22, 6.5, 7.5) + left)
        face += _flat("glint", oval(31, -6, 3.5, 3.5) + left)
    nose = blob("-28 4, -11 -5, 11 -5, 28 4, 22 24, 0 35, -22 24")
    return face + _flat("eye", nose) + _flat("shine", oval(-9, 5, 9, 4))


FACE = _face()
SMILE = _flat(
    "eye",
    oval(0, 46, 2.5, 12),
    blob("-32 46, -18 56, 0 58, 18 56, 32 46, 20 61, 0 64.5, -20 61"),
)
TONGUE = [
    *_flat("mouth", blob("-36 44, -18 52, 0 46, 18 52, 36 44, 27 64, 14 78, 0 82, -14 78, -27 64")),
    *_flat("tongue", blob("-17 60, 0 55, 17 60, 20 88, 12 106, 0 110, -12 106, -20 88")),
    *_flat("crease", oval(0, 80, 2, 17)),
]
