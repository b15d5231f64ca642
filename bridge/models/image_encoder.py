"""Pictures → embeddings in the space of texts (Radford et al. 2021, "CLIP": https://arxiv.org/abs/2103.00020).

Of an image encoder's two towers this is the one that reads pictures; `bridge.models.encoder` opens the one for texts.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bridge.errors import ModelError, PictureRefused, UsageError
from bridge.models.artifact import ModelFolder, PictureInput, resolve, verify
from bridge.models.session import CPU, Session, compute_threads

INPUT = "pixel_values"
"""What the tower takes: float32 (n_pictures, 3, side, side)."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")
"""Of files that are opened; other decoders of Pillow are never called."""

MAX_PIXELS = 50_000_000

_TINY = float(np.finfo(np.float32).tiny)


class ImageEncoder:
    """The tower for pictures. Safe to use from several threads."""

    def __init__(self, folder: ModelFolder, session: Session, pictures: PictureInput, *, threads: int) -> None:
        """See `load`, which also verifies the folder."""
        self._session = session
        self._pictures = pictures
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="image-encoder")
        self.dimension: int = folder.manifest.dimension or 0
        self.identity = folder.identity

    @classmethod
    def load(cls, model: ModelFolder | str, *, threads: int = 0, providers: Sequence[str] = (CPU,)) -> Self:
        """Opens a model: its folder, or what `resolve` takes. `threads` 0 takes the CPUs that this process may use.

        Raises:
            ModelError: the folder is not what its manifest says, or the model fails its self-test.
            SettingsError: a provider does not start.
            UsageError: Pillow is not installed.
        """
        pillow()
        folder = model if isinstance(model, ModelFolder) else resolve(model)
        verify(folder, kind="image_encoder")
        pictures = folder.manifest.pictures
        if pictures is None:
            raise ModelError(f"model {folder.path} does not say how it takes pictures: export it anew")
        session = Session(folder.path / pictures.file, inputs=frozenset({INPUT}), providers=providers)
        encoder = cls(folder, session, pictures, threads=compute_threads(threads))
        shape = session.run({INPUT: np.zeros((1, 3, pictures.side, pictures.side), dtype=np.float32)}).shape
        if shape != (1, encoder.dimension):
            raise ModelError(
                f"model {folder.path} gives an array of shape {shape} for a picture, expected (1, {encoder.dimension})"
                f": correct `dimension` in its manifest, or export it anew"
            )
        return encoder

    def read(self, content: bytes, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
        """A picture file as the model takes it, float32 (3, side, side).

        Raises:
            PictureRefused: as `read_picture`.
        """
        return read_picture(content, self._pictures, max_pixels=max_pixels)

    def encode(self, pictures: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Embeds what `read` gave: float32, (n_pictures, dimension), rows of unit length, input order.

        Raises:
            ModelError: the model failed or gave a value that is not finite.
        """
        embeddings = list(self._threads.map(self._embed, pictures))
        return np.stack(embeddings) if embeddings else np.zeros((0, self.dimension), dtype=np.float32)

    def _embed(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        embedding = self._session.run({INPUT: picture[None]})[0]
        length = max(float(np.linalg.norm(embedding)), _TINY)
        return np.asarray(embedding / length, dtype=np.float32)

    def close(self) -> None:
        """Ends the threads; the encoder cannot embed afterwards."""
        self._threads.shutdown()


def read_picture(content: bytes, wanted: PictureInput, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
    """A picture file as a model takes it, float32 (3, side, side): upright, the first frame of several.

    Its size is compared with `max_pixels` before anything is unpacked.

    Raises:
        PictureRefused: it is in none of `FORMATS`, damaged, or has more pixels.
    """
    image = pillow()
    try:
        with image.open(BytesIO(content), formats=FORMATS) as opened:
            width, height = opened.size
            if 0 < width * height <= max_pixels:
                turned = _upright(opened).convert("RGB")
                square = (wanted.side, wanted.side)
                scaled = turned.resize(square, image.Resampling[wanted.resample.upper()], box=_box(turned.size, wanted))
                values = np.asarray(scaled, dtype=np.float32) / 255
                centred = (values - np.array(wanted.mean)) / np.array(wanted.deviation)
                return np.ascontiguousarray(centred.transpose(2, 0, 1), dtype=np.float32)
    except Exception as error:  # each decoder raises its own, and a few that nobody foresaw
        raise PictureRefused(f"the picture cannot be read: {_reason(error)}") from error
    raise PictureRefused(
        f"the picture has {width:,} × {height:,} pixels, at most {max_pixels:,} are read: scale it down, or raise "
        f"ingest.max_image_pixels"
    )


def pillow() -> Any:
    """The module `Image` of Pillow, which only those need who read pictures.

    Raises:
        UsageError: it is not installed; names the extra.
    """
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise UsageError("reading pictures needs Pillow: pip install 'opensearch-neural-bridge[images]'") from error
    return Image


def _upright(opened: Any) -> Any:
    """The picture as its EXIF data say that it is held."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(opened)


def _box(size: tuple[int, int], wanted: PictureInput) -> tuple[float, float, float, float]:
    """The part of a picture that is read: left, top, right, bottom. It is cut before it is scaled: a narrow picture
    scaled by its shorter side would fill the memory."""
    width, height = size
    if wanted.share is None:
        return 0, 0, width, height
    side = min(size) * wanted.share
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def _reason(error: Exception) -> str:
    name = type(error).__name__
    if name == "UnidentifiedImageError":
        return f"it is none of {', '.join(FORMATS)}"
    return f"{error}" if str(error) else name
