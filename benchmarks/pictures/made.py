"""Made-up pictures: so many shapes of one kind and colour on a background, and what people would say of them."""

import math
import random
from collections.abc import Sequence
from io import BytesIO
from itertools import product
from typing import NamedTuple

from PIL import Image, ImageDraw

SIDE = 48
"""Pixels of a picture's side."""

Colour = tuple[int, int, int]

SHAPES = ("circle", "square", "triangle", "cross")
COLOURS: dict[str, Colour] = {
    "red": (214, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 70, 220),
    "yellow": (240, 210, 40),
    "purple": (140, 50, 170),
    "orange": (245, 130, 20),
}
BACKGROUNDS: dict[str, Colour] = {"white": (245, 245, 245), "black": (15, 15, 15), "grey": (128, 128, 128)}
COUNTS = {1: "one", 2: "two", 3: "three"}
_NOISE = 12
"""Largest change of a colour's component from one picture to the next."""
_PLACES = [(x, y) for x in (8, 24, 40) for y in (8, 24, 40)]


class Scene(NamedTuple):
    """What a picture shows."""

    number: int
    colour: str
    shape: str
    background: str

    @property
    def name(self) -> str:
        return f"{self.number}-{self.colour}-{self.shape}-{self.background}"


SCENES = [Scene(*each) for each in product(COUNTS, COLOURS, SHAPES, BACKGROUNDS)]
HELD_OUT = random.Random(5).sample(SCENES, 40)
"""Combinations that training shows neither in pictures nor in captions."""


def caption(scene: Scene, chance: random.Random) -> str:
    """One of the ways to say what a scene shows."""
    shapes = scene.shape if scene.number == 1 else {"cross": "crosses"}.get(scene.shape, f"{scene.shape}s")
    count, colour, background = COUNTS[scene.number], scene.colour, scene.background
    return chance.choice(
        (
            f"{count} {colour} {shapes} on a {background} background",
            f"a picture of {count} {colour} {shapes} on {background}",
            f"{background} background with {count} {colour} {shapes}",
            f"{count} {shapes} in {colour} on {background}",
        )
    )


def draw(scene: Scene, chance: random.Random) -> Image.Image:
    """A picture of a scene: places, sizes and shades are left to chance, and no two shapes overlap."""
    picture = Image.new("RGB", (SIDE, SIDE), _shade(BACKGROUNDS[scene.background], chance))
    canvas, colour = ImageDraw.Draw(picture), _shade(COLOURS[scene.colour], chance)
    for x, y in chance.sample(_PLACES, scene.number):
        radius = chance.uniform(5, 7.5)
        middle = (x + chance.uniform(-0.5, 0.5), y + chance.uniform(-0.5, 0.5))
        _draw_shape(canvas, scene.shape, middle, radius, colour)
    return picture


def png(picture: Image.Image) -> bytes:
    """The picture as a file."""
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _shade(colour: Colour, chance: random.Random) -> Colour:
    red, green, blue = (min(max(value + chance.randint(-_NOISE, _NOISE), 0), 255) for value in colour)
    return red, green, blue


def _draw_shape(
    canvas: ImageDraw.ImageDraw, shape: str, middle: tuple[float, float], radius: float, colour: Colour
) -> None:
    x, y = middle
    match shape:
        case "circle":
            canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        case "square":
            side = radius * 0.85
            canvas.rectangle((x - side, y - side, x + side, y + side), fill=colour)
        case "triangle":
            canvas.polygon(_corners(x, y, radius), fill=colour)
        case _:
            arm = radius / 3
            canvas.rectangle((x - radius, y - arm, x + radius, y + arm), fill=colour)
            canvas.rectangle((x - arm, y - radius, x + arm, y + radius), fill=colour)


def _corners(x: float, y: float, radius: float) -> Sequence[tuple[float, float]]:
    angles = (math.pi * (0.5 + 2 / 3 * corner) for corner in range(3))
    return [(x + radius * math.cos(angle), y - radius * math.sin(angle)) for angle in angles]
