"""Pictures are read within limits, as the model wants them, and embedded each by itself."""

import builtins
import random
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from benchmarks.pictures import SHAPES_CLIP
from benchmarks.pictures.made import HELD_OUT, draw, png
from bridge.errors import ModelError, PictureRefused, UsageError
from bridge.models.artifact import MANIFEST, PictureInput, read_folder
from bridge.models.encoder import Encoder
from bridge.models.image_encoder import FORMATS, ImageEncoder, read_picture
from bridge.models.sparse_encoder import SparseEncoder

WANTED = PictureInput(side=8, mean=[0.0, 0.0, 0.0], deviation=[1.0, 1.0, 1.0])
RED, BLUE = (255, 0, 0), (0, 0, 255)


def file_of(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    written = BytesIO()
    image.save(written, file_format, **options)
    return written.getvalue()


def halves(width: int, height: int) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    return ImageEncoder.load(str(SHAPES_CLIP), threads=2)


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_format_gives_the_same_pixels(file_format: str) -> None:
    options = {"quality": 100, "lossless": True} if file_format == "WEBP" else {}
    pixels = read_picture(file_of(Image.new("RGB", (20, 10), RED), file_format, **options), WANTED)
    assert pixels.shape == (3, 8, 8)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels.mean(axis=(1, 2)), [1, 0, 0], atol=0.01)


def test_the_middle_square_is_read_or_the_whole_picture_stretched() -> None:
    banner = Image.new("RGB", (60, 20), RED)
    banner.paste(BLUE, (20, 0, 40, 20))
    middle = read_picture(file_of(banner), WANTED)
    np.testing.assert_allclose(middle.mean(axis=(1, 2)), [0, 0, 1], atol=0.03)
    whole = read_picture(file_of(banner), msgspec.structs.replace(WANTED, share=None))
    np.testing.assert_allclose(whole.mean(axis=(1, 2)), [2 / 3, 0, 1 / 3], atol=0.05)


def test_pixels_are_centred_by_mean_and_deviation() -> None:
    wanted = PictureInput(side=4, mean=[0.5, 0.25, 0.0], deviation=[0.5, 0.25, 2.0])
    pixels = read_picture(file_of(Image.new("RGB", (4, 4), (255, 0, 255))), wanted)
    np.testing.assert_allclose(pixels[:, 0, 0], [1, -1, 0.5], atol=1e-6)


def test_a_picture_is_turned_as_its_camera_was_held() -> None:
    turned = Image.Exif()
    turned[0x0112] = 3  # upside down
    pixels = read_picture(file_of(halves(8, 8), "JPEG", exif=turned, quality=100, subsampling=0), WANTED)
    assert pixels[2, 0, 0] > 0.9  # blue is on the left
    assert pixels[0, 0, -1] > 0.9


def test_the_first_frame_of_several_and_other_modes_are_read() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    animated = file_of(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(read_picture(animated, WANTED).mean(axis=(1, 2)), [1, 0, 0], atol=0.01)
    for mode in ("1", "L", "LA", "P", "RGBA", "I;16"):
        assert read_picture(file_of(Image.new(mode, (9, 5))), WANTED).shape == (3, 8, 8)


def bomb() -> bytes:
    """A file of 100 KB that unpacks to 100 million pixels."""
    return file_of(Image.new("1", (10_000, 10_000)))


def strip() -> bytes:
    """A picture that scaled by its shorter side would have 8 million times 8 pixels."""
    return file_of(Image.new("1", (1_000_000, 1)))


def compressed_note() -> bytes:
    """A picture whose text unpacks to 10 MB."""
    note = PngImagePlugin.PngInfo()
    note.add_text("note", "a" * 10_000_000, zip=True)
    return file_of(Image.new("RGB", (8, 8)), pnginfo=note)


@pytest.mark.parametrize(
    ("content", "max_pixels", "message"),
    [
        (b"", 100, "none of BMP"),
        (b"<html>not found</html>", 100, "none of BMP"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", 100, "none of BMP"),
        (file_of(Image.new("RGB", (8, 8)), "TIFF"), 100, "none of BMP"),
        (file_of(Image.new("RGB", (64, 64)))[:60], 10_000, "cannot be read"),
        (file_of(halves(64, 64), "JPEG")[:400], 10_000, "cannot be read"),
        (file_of(Image.new("RGB", (11, 10))), 100, r"11 × 10 pixels, at most 100 are read"),
        (bomb(), 50_000_000, "pixels"),
        (compressed_note(), 100, "cannot be read"),
    ],
    ids=["empty", "page", "postscript", "tiff", "cut png", "cut jpeg", "too many pixels", "bomb", "compressed note"],
)
def test_what_is_damaged_or_too_large_is_refused(content: bytes, max_pixels: int, message: str) -> None:
    with pytest.raises(PictureRefused, match=message):
        read_picture(content, WANTED, max_pixels=max_pixels)


def test_a_long_strip_is_cut_before_it_is_scaled() -> None:
    assert read_picture(strip(), WANTED).shape == (3, 8, 8)


def test_embeddings_are_of_unit_length_and_a_pictures_own(encoder: ImageEncoder) -> None:
    chance = random.Random(1)
    pictures = [encoder.read(png(draw(scene, chance))) for scene in HELD_OUT[:5]]
    together = encoder.encode(pictures)
    assert together.shape == (5, 64)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for picture, embedding in zip(pictures, together, strict=True):
        np.testing.assert_array_equal(encoder.encode([picture])[0], embedding)
    assert encoder.encode([]).shape == (0, 64)


def test_a_text_and_its_picture_lie_together() -> None:
    pictures, texts = ImageEncoder.load(str(SHAPES_CLIP), threads=1), Encoder.load(str(SHAPES_CLIP), threads=1)
    assert pictures.identity == texts.identity
    assert pictures.dimension == texts.dimension
    circle, cross = (
        pictures.encode([pictures.read(png(draw(scene, random.Random(2))))])[0] for scene in (HELD_OUT[0], HELD_OUT[1])
    )
    scene = HELD_OUT[0]
    question = texts.encode([f"{scene.number} {scene.colour} {scene.shape} on a {scene.background} background"])[0]
    assert question @ circle > question @ cross


def changed_manifest(folder: Path, **pictures: Any) -> Path:
    shutil.copytree(SHAPES_CLIP, folder)
    manifest = msgspec.json.decode((SHAPES_CLIP / MANIFEST).read_bytes())
    manifest["pictures"] |= pictures
    (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return folder


def test_a_manifest_that_does_not_fit_its_tower_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="run failed"):
        ImageEncoder.load(str(changed_manifest(tmp_path / "side", side=40)))
    with pytest.raises(ModelError, match=r"no digest of other\.onnx"):
        read_folder(changed_manifest(tmp_path / "file", file="other.onnx"))
    with pytest.raises(ModelError, match="is of kind image_encoder, a sparse_encoder is needed"):
        SparseEncoder.load(str(SHAPES_CLIP))


def test_without_pillow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_pillow(name: str, *args: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "PIL":
            raise ModuleNotFoundError("No module named 'PIL'", name="PIL")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without_pillow)
    with pytest.raises(UsageError, match=r"pip install 'opensearch-neural-bridge\[images\]'"):
        ImageEncoder.load(str(SHAPES_CLIP))
