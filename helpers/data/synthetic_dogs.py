"""Synthetic ("drawn") dogs with captions and known factors: data that nobody has to download."""

import math
import random
from dataclasses import dataclass, field, replace

import torch

from helpers import CourseError, check_choice
from helpers.data.dog_drawing import Dog, draw_picture
from helpers.data.image_set import ImageSet
from helpers.data.splits import SPLITS

COATS = ("brown", "black", "white", "golden", "gray", "red")
EARS = ("floppy", "pointy")
GROUNDS = ("grass", "sand", "snow", "night")
POSES = ("standing", "sitting", "lying")
# how a caption ends
PLACES = {"grass": "on grass", "sand": "on sand", "snow": "on snow", "night": "at night"}
RANGES = {"size": (0.75, 0.95), "x": (-0.04, 0.04), "y": (-0.04, 0.02), "lighting": (-1.0, 1.0)}
_NAMES = {"coat": COATS, "ears": EARS, "ground": GROUNDS, "pose": POSES}


@dataclass(frozen=True)
class SyntheticDogs(ImageSet):
    """An ImageSet of dogs (N, 3, R, R) with captions and factors; labels are the coats.

    factors: name → tensor (N,).
    coat, ears, ground, pose: int64 positions in COATS, EARS, GROUNDS, POSES.
    mirrored, tongue: bool.
    size (1 fills the picture's width), x and y (shift, in picture sides, y downwards) and lighting
    (-1 dim and cool, 1 bright and warm): float32 in RANGES.
    """

    captions: tuple[str, ...] = ()
    factors: dict[str, torch.Tensor] = field(default_factory=dict)

    def __getitem__(self, index) -> "SyntheticDogs":
        """The dogs at a slice, a mask, or a tensor of positions."""
        captions = tuple(self.captions[i] for i in torch.arange(len(self))[index].tolist())
        factors = {name: values[index] for name, values in self.factors.items()}
        return replace(super().__getitem__(index), captions=captions, factors=factors)


def load_synthetic_dogs(
    count: int = 4000,
    resolution: int = 64,
    split: str = "train",
    seed: int = 0,
    pose: str | None = None,
) -> SyntheticDogs:
    """`count` synthetic dogs.

    Dog i depends on (split, seed, i) alone, and is the same at every resolution from 16 on.
    Dogs 0 to 47, 48 to 95, … each show all 48 combinations of coat, ears and ground once.
    split: "train", "validation" or "test", which share no dog.
    pose: the same dogs, but all standing, sitting or lying.

    Raises CourseError for what cannot be drawn.
    """
    check_choice("split", split, SPLITS)
    check_choice("pose", pose, (None, *POSES))
    _check_number("count", count, 1, kind=int)
    _check_number("resolution", resolution, 16, kind=int)

    dogs = [_random_dog(split, seed, i) for i in range(count)]
    if pose is not None:
        dogs = [dog._replace(pose=pose) for dog in dogs]

    images = torch.empty(count, 3, resolution, resolution, dtype=torch.uint8)
    for i, dog in enumerate(dogs):
        images[i] = _image(dog, resolution)
    factors = _factors(dogs)
    captions = tuple(caption(dog.coat, dog.ears, dog.ground) for dog in dogs)
    source = "drawn dogs, embedded"
    return SyntheticDogs(images, factors["coat"], source, captions=captions, factors=factors)


def draw_dog(
    coat: str = "golden",
    ears: str = "floppy",
    ground: str = "grass",
    pose: str = "sitting",
    mirrored: bool = False,
    tongue: bool = True,
    size: float = 0.9,
    x: float = 0.0,
    y: float = 0.0,
    lighting: float = 0.5,
    details: int = 0,
    resolution: int = 128,
) -> torch.Tensor:
    """One dog as uint8 (3, resolution, resolution); factors as in `SyntheticDogs`, but by name.

    details: the seed of what is no factor (collar, tilt of the head, clouds …).  Two pictures with
    the same details differ in nothing but their factors.

    Raises CourseError for what cannot be drawn.
    """
    dog = Dog(coat, ears, ground, pose, mirrored, tongue, size, x, y, lighting, details)
    for name, names in _NAMES.items():
        check_choice(name, getattr(dog, name), names)
    for name, limits in RANGES.items():
        _check_number(name, getattr(dog, name), *limits)
    _check_number("resolution", resolution, 16, kind=int)
    return _image(dog, resolution)


def caption(coat: str, ears: str, ground: str) -> str:
    """For instance "a golden dog with floppy ears on grass"; CourseError for an unknown name."""
    for name, value in (("coat", coat), ("ears", ears), ("ground", ground)):
        check_choice(name, value, _NAMES[name])
    return f"a {coat} dog with {ears} ears {PLACES[ground]}"


def _check_number(
    name: str, value: float, low: float, high: float = math.inf, kind: type = float
) -> None:
    if not isinstance(value, (int, kind)) or not low <= value <= high:
        possible = f"{low} or more" if high == math.inf else f"from {low} to {high}"
        whole = " (a whole number)" if kind is int else ""
        raise CourseError(f"{name} is {value!r}; it can be {possible}{whole}.")


def _random_dog(split: str, seed: int, i: int) -> Dog:
    """Dog i: its combination comes from the shuffled 48 of its block, all else from `rng`."""
    combinations = len(COATS) * len(EARS) * len(GROUNDS)
    block = random.Random(f"{split} {seed} block {i // combinations}")
    rng = random.Random(f"{split} {seed} {i}")

    number = sorted(range(combinations), key=lambda _: block.random())[i % combinations]
    rest, ground = divmod(number, len(GROUNDS))
    coat, ears = divmod(rest, len(EARS))

    # the order of these draws decides which dogs there are
    pose = POSES[int(len(POSES) * rng.random())]
    mirrored = rng.random() < 0.5
    tongue = rng.random() < 0.5
    numbers = [rng.uniform(*limits) for limits in RANGES.values()]
    details = rng.getrandbits(32)
    names = (COATS[coat], EARS[ears], GROUNDS[ground], pose)
    return Dog(*names, mirrored, tongue, *numbers, details)


def _factors(dogs: list[Dog]) -> dict[str, torch.Tensor]:
    """The dogs as columns: name → tensor (N,); names become positions, and details are left out."""
    columns = {
        name: [getattr(dog, name) for dog in dogs] for name in Dog._fields if name != "details"
    }
    for name, names in _NAMES.items():
        columns[name] = [names.index(value) for value in columns[name]]
    return {name: torch.tensor(column) for name, column in columns.items()}


def _image(dog: Dog, resolution: int) -> torch.Tensor:
    picture = torch.from_numpy(draw_picture(dog, resolution))
    return picture.movedim(2, 0).contiguous()  # (R, R, 3) → (3, R, R)
