"""Pictures of synthetic dogs: every factor shows, and is easy to recognise."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from helpers import CourseError
from helpers.data.synthetic_dogs import COATS, EARS, GROUNDS, POSES, RANGES, draw_dog
from tests.data.small_data import one_sentence


def silhouette(**factors) -> torch.Tensor:
    """bool (R, R): where a black dog and a white one differ."""
    black, white = (draw_dog(coat=coat, **factors).float() for coat in ("black", "white"))
    return (black - white).abs().amax(0) > 20


def middle(mask: torch.Tensor) -> torch.Tensor:
    """(x, y) of a mask, in picture sides."""
    return mask.nonzero().float().mean(0).flip(0) / len(mask)


def test_a_chosen_dog():
    image = draw_dog(coat="red", ears="pointy", ground="snow", resolution=256)
    assert image.shape == (3, 256, 256) and image.dtype == torch.uint8 and image.is_contiguous()
    assert torch.equal(image, draw_dog("red", "pointy", "snow", resolution=256))
    assert draw_dog(resolution=16).shape == (3, 16, 16)


OTHER = {
    "coat": "red",
    "ears": "pointy",
    "ground": "snow",
    "pose": "lying",
    "mirrored": True,
    "tongue": False,
    "size": 0.8,
    "x": 0.04,
    "y": -0.03,
    "lighting": -0.5,
    "details": 1,
}


@pytest.mark.parametrize("name", OTHER)
def test_every_factor_shows(name):
    changed = (draw_dog(**{name: OTHER[name]}).int() - draw_dog().int()).abs().amax(0) > 8
    assert changed.float().mean() > 0.005


@pytest.mark.parametrize("pose", POSES)
def test_size_place_and_side_are_what_they_say(pose):
    here = silhouette(pose=pose, size=0.8)
    larger = silhouette(pose=pose, size=0.9).sum() / here.sum()
    assert larger == pytest.approx((0.9 / 0.8) ** 2, rel=0.05)
    for name, axis in (("x", 0), ("y", 1)):
        moved = middle(silhouette(pose=pose, size=0.8, **{name: 0.02})) - middle(here)
        assert moved[axis] == pytest.approx(0.02, abs=0.004) and abs(moved[1 - axis]) < 0.004
    mirrored = silhouette(pose=pose, size=0.8, mirrored=True)
    assert (mirrored.flip(1) ^ here).sum() < 0.05 * here.sum() < (mirrored ^ here).sum()


def test_light_is_bright_and_warm_or_dim_and_cool():
    difference = draw_dog(lighting=1.0).float() - draw_dog(lighting=-1.0).float()
    red, _, blue = difference.mean((1, 2))
    assert red > 15 and red > blue + 10


@pytest.mark.parametrize("pose", POSES)
def test_ears_are_readable_at_64_pixels(pose):
    """Pointy ears rise above the head; in every coat, on every ground, dozens of pixels differ."""
    floppy, pointy = (silhouette(pose=pose, ears=ears, resolution=64) for ears in EARS)
    assert floppy.any(1).nonzero().min() >= pointy.any(1).nonzero().min() + 3

    every = list(itertools.product(COATS, GROUNDS))
    for details, (coat, ground) in enumerate(every[POSES.index(pose) :: len(POSES)]):
        factors = dict(coat=coat, ground=ground, pose=pose, details=details, resolution=64)
        one, other = (draw_dog(ears=ears, **factors).float() for ears in EARS)
        assert ((one - other).abs().amax(0) > 50).sum() > 60, (coat, ground)


@pytest.mark.parametrize("pose", POSES)
def test_a_coat_cannot_be_taken_for_another_in_any_light_on_any_ground(pose):
    ears = EARS[POSES.index(pose) % 2]
    body = silhouette(pose=pose, ears=ears, resolution=64)

    def colour(coat, **more):
        image = draw_dog(coat, ears=ears, pose=pose, resolution=64, **more)
        return image[:, body].float().median(1).values

    known = torch.stack([colour(coat, lighting=0.0) for coat in COATS])
    scenes = list(itertools.product(GROUNDS, (-1.0, 1.0)))[POSES.index(pose) :: len(POSES)]
    for (ground, light), (number, coat) in itertools.product(scenes, enumerate(COATS)):
        apart = (colour(coat, ground=ground, lighting=light) - known).norm(dim=1)
        nearest = apart.argsort()
        assert nearest[0] == number, (coat, ground, light, apart)
        assert apart[nearest[1]] > 1.5 * apart[number], (coat, ground, light, apart)


def test_coats_have_their_colours():
    body = silhouette()
    colours = {coat: draw_dog(coat)[:, body].float().median(1).values for coat in COATS}
    brightness = {coat: colour.mean() for coat, colour in colours.items()}
    assert brightness["black"] < brightness["gray"] < brightness["white"]
    assert brightness["brown"] < brightness["red"] < brightness["golden"]
    for coat in ("black", "gray", "white"):
        assert colours[coat].max() - colours[coat].min() < 30
    for coat in ("brown", "red", "golden"):
        red, green, blue = colours[coat]
        assert red > green > blue and red - blue > 50


@pytest.mark.parametrize("ground", GROUNDS)
def test_a_dog_stands_out_from_its_ground(ground):
    """Across the rim of the dog the picture changes by much, all the way round, in every coat."""
    body = silhouette(ground=ground, resolution=128).float()[None]
    thick = F.max_pool2d(body, 5, 1, 2)
    thin = -F.max_pool2d(-body, 7, 1, 3)
    rim = (thick - thin).bool()[0]
    for coat in COATS:
        image = draw_dog(coat, ground=ground, resolution=128).float()
        contrast = (F.max_pool2d(image, 7, 1, 3) + F.max_pool2d(-image, 7, 1, 3)).amax(0)
        assert contrast[rim].quantile(0.05) > 30, coat


@pytest.mark.parametrize("pose", POSES)
def test_no_dog_leaves_the_picture(pose):
    largest = dict(pose=pose, ears="pointy", size=RANGES["size"][1], resolution=64)
    for x, y, details in itertools.product(RANGES["x"], RANGES["y"], range(4)):
        body = silhouette(mirrored=details % 2 == 1, details=details, x=x, y=y, **largest)
        assert body.any()
        assert not (body[0].any() or body[-1].any() or body[:, 0].any() or body[:, -1].any())


def test_the_same_details_change_nothing_but_the_factors():
    dog = silhouette(details=3).float()[None]
    background = ~F.max_pool2d(dog, 5, 1, 2)[0].bool()
    red = draw_dog("red", details=3)
    gray = draw_dog("gray", details=3)
    assert background.sum() > 4000 and torch.equal(red[:, background], gray[:, background])

    inside = -F.max_pool2d(-dog, 3, 1, 1)[0] > 0
    for ground in GROUNDS[1:]:
        other = draw_dog(ground=ground, details=3)
        assert torch.equal(other[:, inside], draw_dog(details=3)[:, inside])


BEYOND = [
    (name, value, tuple(map(str, limits)))
    for name, limits in RANGES.items()
    for value in (limits[0] - 0.01, limits[1] + 0.01)
]


@pytest.mark.parametrize(
    ("name", "value", "possible"),
    [
        ("coat", "pink", COATS),
        ("ears", "long", EARS),
        ("ground", "moon", GROUNDS),
        ("pose", "flying", POSES),
        ("lighting", float("nan"), ("-1.0", "1.0")),
        ("resolution", 15, ("16 or more",)),
        ("resolution", "64", ("whole number",)),
        *BEYOND,
    ],
)
def test_an_impossible_dog_is_one_sentence_that_lists_what_is_possible(name, value, possible):
    with pytest.raises(CourseError) as error:
        draw_dog(**{name: value})
    one_sentence(error, f"{name} is {value!r}", *possible)
