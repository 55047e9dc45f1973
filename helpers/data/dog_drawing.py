"""How a synthetic dog is drawn: its colours, and the whole picture out of the sketches."""

import random
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from helpers.data import dog_sketches as sketches
from helpers.data.dog_sketches import Sketch, flipped, moved
from helpers.data.scenery import SKIES, Pen, decorate, sky

Colour = tuple[int, int, int]

# RGB of the tones base, dark, light, and of the outline: that of black fur is lighter than the
# fur, so that it shows at night
FUR = {
    "brown": ((126, 79, 50), (88, 54, 35), (202, 164, 128), (50, 30, 20)),
    "black": ((43, 42, 51), (29, 28, 35), (126, 125, 136), (144, 146, 162)),
    "white": ((248, 245, 240), (222, 214, 208), (255, 255, 254), (126, 116, 118)),
    "golden": ((240, 180, 78), (208, 138, 46), (255, 228, 168), (124, 74, 22)),
    "gray": ((132, 137, 147), (97, 102, 113), (208, 211, 217), (54, 57, 68)),
    "red": ((210, 79, 36), (158, 48, 24), (252, 186, 138), (92, 26, 18)),
}
_COLLARS = ((66, 120, 206), (40, 156, 124), (146, 84, 184), (232, 92, 132))
_COLOURS = {  # of what is the same on every dog
    "white": (255, 255, 255),
    "eye": (34, 26, 30),
    "glint": (150, 128, 128),
    "shine": (160, 148, 154),
    "mouth": (112, 34, 46),
    "tongue": (250, 124, 144),
    "crease": (218, 84, 112),
    "tag": (252, 206, 70),
}


class Dog(NamedTuple):
    """The factors of a picture (see `SyntheticDogs`), and the seed of all that is not a factor."""

    coat: str
    ears: str
    ground: str
    pose: str
    mirrored: bool
    tongue: bool
    size: float
    x: float
    y: float
    lighting: float
    details: int


def draw_picture(dog: Dog, resolution: int) -> np.ndarray:
    """The dog on its ground as uint8 (resolution, resolution, 3).

    It is drawn at least three times as large and reduced, which makes smooth edges.
    """
    factor = max(3, -(-256 // resolution))
    canvas = sky(dog.ground, factor * resolution).copy()
    pen = Pen(canvas)
    rng = random.Random(dog.details)
    colours = _palette(dog.coat, dog.ground) | {"collar": rng.choice(_COLLARS)}

    sketch = moved(_sketch(dog, rng), dog.size)
    if dog.mirrored:
        sketch = flipped(sketch)
    decorate(pen, dog.ground, rng)  # after the sketch, which is then the same on every ground
    place = 0.5 + dog.x + 1j * (0.92 + dog.y)
    for colour, shape in sketch:
        pen.fill(colours[colour], shape + place)

    # gains of red, green and blue, at most 1
    gains = np.array([0.91, 0.915, 0.925]) + np.array([0.09, 0.065, 0.005]) * dog.lighting
    return (np.asarray(canvas.reduce(factor)) * gains).round().astype(np.uint8)


# --- colours ---


def _mix(first: Colour, second: Colour, share: float) -> Colour:
    return tuple(round(a + (b - a) * share) for a, b in zip(first, second))


@lru_cache(maxsize=32)
def _palette(coat: str, ground: str) -> dict[str, Colour]:
    """The colour names of the sketches → RGB; "base 0" to "base 4" go from shade to light."""
    base, dark, light, line = FUR[coat]
    colours = _COLOURS | {
        "line": line,
        "jowl": _mix(dark, light, 0.3),
        "blush": _mix(base, (255, 110, 120), 0.28),
        "inner ear": _mix(base, (244, 150, 146), 0.75),
        "eye ring": _mix(base, light, 0.4),
        "shadow": _mix(SKIES[ground][3], (0, 0, 40), 0.22),
    }
    for tone, colour in (("base", base), ("dark", dark), ("light", light)):
        colours[tone] = colour
        low = _mix(colour, line if tone == "dark" else dark, 0.35)
        high = _mix(colour, light, 0.16)
        for level in range(sketches.SHADES):
            colours[f"{tone} {level}"] = _mix(low, high, level / (sketches.SHADES - 1))
    return colours


# --- the dog ---


def _angle(rng: random.Random, most: float) -> complex:
    return np.exp(1j * rng.uniform(-most, most))


def _sketch(dog: Dog, rng: random.Random) -> Sketch:
    """The whole dog and its shadow, at size 1."""
    pose = sketches.POSES[dog.pose]
    tail = moved(pose.tail, _angle(rng, 0.2), pose.hinge)
    collar = moved(sketches.COLLAR, 1, pose.collar)
    head = moved(_head(dog, rng), _angle(rng, 0.2) * sketches.RADIUS, pose.head)
    return sketches.SHADOW + moved(tail + pose.body + collar + head, 1, -pose.middle)


def _head(dog: Dog, rng: random.Random) -> Sketch:
    right = moved(sketches.EARS[dog.ears], _angle(rng, 0.1), sketches.EAR_HINGE)
    ears = right + flipped(right)
    skull = sketches.SKULL + rng.choice(sketches.MARKINGS)
    mouth = sketches.TONGUE if dog.tongue else sketches.SMILE

    in_front = dog.ears == "floppy"
    return (skull + ears if in_front else ears + skull) + sketches.FACE + mouth
