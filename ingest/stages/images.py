"""The pictures of documents: read from where their fields say, and embedded.

A field holds a path below one folder, a data URI, base64, or a URL. The documents are an application's, and their
fields may be anybody's: nothing is read outside of that folder, and only from hosts that the operator listed.
"""

import base64
import binascii
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

import numpy as np
import urllib3
from numpy.typing import NDArray

from bridge.errors import PictureRefused, SettingsError
from bridge.models.artifact import resolve
from bridge.models.image_encoder import ImageEncoder
from bridge.profile import ModelReference
from bridge.records import Document
from bridge.settings import IngestSettings, masked

_AT_ONCE = 32
"""Pictures that are held unpacked: each is 600 KB for a model that reads 224 pixels a side."""

_READING_THREADS = 4
_READ_BYTES = 1 << 16
_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S = 5.0, 10.0
_LONGEST_FETCH_S = 30.0
_MOST_REDIRECTS = 3
_ATTEMPTS = 3
_PAUSE_S = 0.5
_AGAIN = (429, 502, 503, 504)
_REDIRECTS = (301, 302, 303, 307, 308)
_PORTS = {"http": 80, "https": 443}
_SHOWN = 60
"""Characters of a field's value that a message shows."""

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_BASE64 = re.compile(r"(?:/9j/|iVBORw0KGgo|R0lGOD|UklGR|Qk)[A-Za-z0-9+/\s]{40,}=*\s*")
"""A JPEG, PNG, GIF, WebP or BMP file in base64; no path has this shape and a name's ending."""


@dataclass(frozen=True, slots=True)
class PictureFiles:
    """Gives the file that a field's value stands for, of `max_bytes` at most. `folder`: below which paths are read;
    None reads none. `hosts`: from which URLs are fetched, as HOST or HOST:PORT."""

    folder: Path | None
    hosts: Sequence[str]
    max_bytes: int

    def read(self, value: str) -> bytes:
        """The file's content.

        Raises:
            PictureRefused: there is none, it is too large, or it may not be read.
        """
        if value[:5].lower() == "data:":
            return self._from_data_uri(value)
        if _BASE64.fullmatch(value):
            return self._from_base64(value)
        if (scheme := _SCHEME.match(value)) is None:
            return self._from_folder(value)
        if scheme[1].lower() in _PORTS:
            return self._fetched(value)
        raise PictureRefused(
            f"{_shown(value)} is neither a path, nor a data URI, nor base64, nor a URL of http or https"
        )

    def _from_data_uri(self, value: str) -> bytes:
        head, comma, payload = value.partition(",")
        if not comma:
            raise PictureRefused(f"the data URI {_shown(value)} has no comma, after which its content would follow")
        if head.lower().endswith(";base64"):
            return self._from_base64(payload)
        return self._limited(unquote_to_bytes(payload))

    def _from_base64(self, value: str) -> bytes:
        if len(value) * 3 // 4 > self.max_bytes * 1.1:  # a tenth for line breaks
            raise self._too_large()
        try:
            return self._limited(base64.b64decode(re.sub(r"\s", "", value), validate=True))
        except (binascii.Error, ValueError) as error:
            raise PictureRefused(f"the picture in the field is no base64: {error}") from error

    def _from_folder(self, value: str) -> bytes:
        if self.folder is None:
            raise PictureRefused(
                f"{_shown(value)} is a path, and no folder of pictures is named: name it with --image-folder"
            )
        try:
            root = self.folder.resolve()
            file = (root / value).resolve()
            if not file.is_relative_to(root):
                raise PictureRefused(f"{_shown(value)} leads out of the folder of pictures: nothing is read there")
            if not file.is_file():
                raise PictureRefused(f"{_shown(value)} is no file below the folder of pictures")
            with file.open("rb") as opened:
                return self._limited(opened.read(self.max_bytes + 1))
        except (OSError, ValueError) as error:  # a null byte, or a name too long
            raise PictureRefused(f"{_shown(value)} cannot be read: {getattr(error, 'strerror', error)}") from error

    def _fetched(self, url: str) -> bytes:
        until = time.monotonic() + _LONGEST_FETCH_S
        timeout = urllib3.Timeout(connect=_CONNECT_TIMEOUT_S, read=_READ_TIMEOUT_S)
        with urllib3.PoolManager(timeout=timeout, retries=False) as pool:
            for _ in range(_MOST_REDIRECTS + 1):
                self._check_host(url)
                answer = _asked(pool, url)
                if answer.status not in _REDIRECTS:
                    return self._content(url, answer, until)
                answer.close()
                url = urljoin(url, answer.headers.get("Location", ""))
        raise PictureRefused(f"{_shown(masked(url))} leads on and on: more than {_MOST_REDIRECTS} redirects")

    def _check_host(self, url: str) -> None:
        """Redirects are checked, too: a listed host must not lead to one that is not."""
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").lower(), parts.port
        except ValueError as error:
            raise PictureRefused(f"{_shown(masked(url))} is no URL: {error}") from error
        standard = _PORTS.get(parts.scheme.lower())
        names = {f"{host}:{port or standard}"} | ({host} if port in (None, standard) else set())
        if standard is None or parts.username is not None or names.isdisjoint(each.lower() for each in self.hosts):
            listed = ", ".join(self.hosts) or "none"
            raise PictureRefused(
                f"{_shown(masked(url))} is on a host from which nothing is fetched: list it in ingest.image_hosts, "
                f"which has {listed}"
            )

    def _content(self, url: str, answer: urllib3.BaseHTTPResponse, until: float) -> bytes:
        content = bytearray()
        if answer.status == 200:
            while part := _next_part(url, answer):
                content += part
                if len(content) > self.max_bytes:
                    answer.close()
                    raise self._too_large()
                if time.monotonic() > until:
                    answer.close()
                    raise PictureRefused(f"{_shown(masked(url))} did not come within {_LONGEST_FETCH_S:g} s")
            return bytes(content)
        answer.close()
        raise PictureRefused(f"{_shown(masked(url))} was answered with status {answer.status}")

    def _limited(self, content: bytes) -> bytes:
        if len(content) > self.max_bytes:
            raise self._too_large()
        return content

    def _too_large(self) -> PictureRefused:
        return PictureRefused(
            f"the picture has more than {self.max_bytes:,} bytes: scale it down, or raise ingest.max_image_bytes"
        )


class Images:
    """Embeds the pictures of documents. Safe to use from several threads.

    Attributes:
        reference: the encoder, as profiles name it.
        dimension: numbers in an embedding.
    """

    def __init__(
        self, encoder: ImageEncoder, read: Callable[[str], bytes], *, max_pixels: int, reference: ModelReference
    ) -> None:
        """`read` gives the file that a field's value stands for, as `PictureFiles.read`."""
        self._encoder = encoder
        self._read = read
        self._max_pixels = max_pixels
        self._threads = ThreadPoolExecutor(_READING_THREADS, thread_name_prefix="pictures")
        self.reference = reference
        self.dimension = encoder.dimension

    @classmethod
    def load(cls, settings: IngestSettings) -> Self:
        """Opens the image encoder that the settings name.

        Raises:
            ModelError: it cannot be found or opened.
            SettingsError: none is named, or the folder of pictures is none.
            UsageError: Pillow is not installed.
        """
        if not settings.image_encoder:
            raise SettingsError(
                f"field {settings.image_field} is to give pictures, and no model reads them: name an image encoder "
                f"with --image-encoder"
            )
        folder = settings.image_folder
        if folder is not None and not folder.is_dir():
            raise SettingsError(f"ingest.image_folder: {folder} is no folder: name the one below which pictures lie")
        model = resolve(settings.image_encoder)
        return cls(
            ImageEncoder.load(model, threads=settings.threads, providers=settings.providers),
            PictureFiles(folder, settings.image_hosts, settings.max_image_bytes).read,
            max_pixels=settings.max_image_pixels,
            reference=ModelReference(model.manifest.name, model.digest),
        )

    def __call__(self, documents: Sequence[Document]) -> list[NDArray[np.float32] | None]:
        """The embedding of each document's picture, float32 (dimension,), of unit length; None if it has none.

        Raises:
            PictureRefused: one cannot be read.
            ModelError: the model failed.
        """
        rows = [row for row, document in enumerate(documents) if document.image]
        embeddings: list[NDArray[np.float32] | None] = [None] * len(documents)
        for begin in range(0, len(rows), _AT_ONCE):
            some = rows[begin : begin + _AT_ONCE]
            pictures = list(self._threads.map(lambda row: self._picture(documents[row].image or ""), some))
            for row, embedding in zip(some, self._encoder.encode(pictures), strict=True):
                embeddings[row] = embedding
        return embeddings

    def _picture(self, value: str) -> NDArray[np.float32]:
        return self._encoder.read(self._read(value), max_pixels=self._max_pixels)


def _asked(pool: urllib3.PoolManager, url: str) -> urllib3.BaseHTTPResponse:
    """The host's answer, unread. One that is busy or restarts is asked again; urllib3's own attempts would write to the
    log what addresses hold of keys.

    Raises:
        PictureRefused: there is none.
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            answer = pool.request(
                "GET", url, headers={"Accept-Encoding": "identity"}, redirect=False, preload_content=False
            )
            if answer.status not in _AGAIN or attempt == _ATTEMPTS:
                return answer
            answer.close()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            if attempt == _ATTEMPTS:
                raise _no_picture(url, error) from error
        time.sleep(_PAUSE_S * attempt)


def _next_part(url: str, answer: urllib3.BaseHTTPResponse) -> bytes:
    """As it came: nothing is unpacked on the way."""
    try:
        return answer.read(_READ_BYTES, decode_content=False)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise _no_picture(url, error) from error


def _no_picture(url: str, error: Exception) -> PictureRefused:
    return PictureRefused(f"{_shown(masked(url))} gives no picture: {type(error).__name__}")


def _shown(value: str) -> str:
    return repr(value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…")
