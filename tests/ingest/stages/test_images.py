"""Where pictures come from: one folder, the document itself, and hosts that are listed; nothing else is read."""

import base64
import random
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from benchmarks.pictures import SHAPES_CLIP
from benchmarks.pictures.made import HELD_OUT, draw, png
from bridge.errors import PictureRefused, SettingsError
from bridge.records import Document, SourcePosition
from bridge.settings import IngestSettings
from ingest.stages.images import Images, PictureFiles

PICTURES = [png(draw(scene, random.Random(6))) for scene in HELD_OUT[:3]]
PICTURE = PICTURES[0]
ENCODED = base64.b64encode(PICTURE).decode()
MOST_BYTES = 5_000


class Host(ThreadingHTTPServer):
    """Serves `/picture.png` and what else a host may do; remembers the paths that were asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Host)
        self.server.asked.append(self.path)
        place, _, target = self.path.partition("?to=")
        if place == "/redirect":
            self._answer(302, b"", Location=target)
        elif place == "/missing":
            self._answer(404, b"no such picture")
        elif place == "/large":
            self._answer(200, PICTURE + bytes(MOST_BYTES))
        elif place == "/zipped":
            self._answer(200, PICTURE, **{"Content-Encoding": "gzip"})
        else:
            self._answer(200, PICTURE)

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures, and beside them what nobody may read."""
    (tmp_path / "secret.png").write_bytes(PICTURE)
    pictures = tmp_path / "pictures"
    (pictures / "inner").mkdir(parents=True)
    (pictures / "a.png").write_bytes(PICTURE)
    (pictures / "inner" / "b c.png").write_bytes(PICTURE)
    (pictures / "large.png").write_bytes(PICTURE + bytes(MOST_BYTES))
    (pictures / "link.png").symlink_to(tmp_path / "secret.png")
    (pictures / "inside.png").symlink_to(pictures / "a.png")
    return pictures


def files(folder: Path | None = None, *hosts: str) -> PictureFiles:
    return PictureFiles(folder, hosts, MOST_BYTES)


@pytest.mark.parametrize("value", ["a.png", "./a.png", "inner/b c.png", "inner/../a.png", "inside.png"])
def test_paths_below_the_folder_are_read(folder: Path, value: str) -> None:
    assert files(folder).read(value) == PICTURE


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("../secret.png", "leads out of the folder"),
        ("inner/../../secret.png", "leads out of the folder"),
        ("/etc/passwd", "leads out of the folder"),
        ("link.png", "leads out of the folder"),
        ("inner", "is no file"),
        ("none.png", "is no file"),
        ("a\0.png", "cannot be read"),
        ("x" * 5_000, "cannot be read"),
        ("large.png", "more than 5,000 bytes"),
        ("file:///etc/passwd", "neither a path"),
        ("ftp://127.0.0.1/a.png", "neither a path"),
        ("gopher://127.0.0.1/a.png", "neither a path"),
    ],
)
def test_nothing_else_is_read_from_disk(folder: Path, value: str, message: str) -> None:
    with pytest.raises(PictureRefused, match=message):
        files(folder).read(value)


def test_without_a_folder_no_path_is_read() -> None:
    with pytest.raises(PictureRefused, match="--image-folder"):
        files().read("a.png")


@pytest.mark.parametrize(
    "value",
    [
        f"data:image/png;base64,{ENCODED}",
        f"DATA:;BASE64,{ENCODED}",
        ENCODED,
        "\n".join(ENCODED[start : start + 76] for start in range(0, len(ENCODED), 76)) + "\n",
        "data:image/png," + "".join(f"%{byte:02x}" for byte in PICTURE),
    ],
    ids=["data uri", "capitals", "base64", "lines of base64", "percent"],
)
def test_pictures_in_the_document_are_read(value: str) -> None:
    assert files().read(value) == PICTURE


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("data:image/png;base64", "no comma"),
        ("data:image/png;base64,iVBOR*w0", "no base64"),
        (f"data:image/png;base64,{base64.b64encode(bytes(MOST_BYTES + 1)).decode()}", "more than 5,000 bytes"),
        (f"{ENCODED.rstrip('=')}{'A' * 4 * MOST_BYTES}", "more than 5,000 bytes"),
        (f"data:,{'a' * (MOST_BYTES + 1)}", "more than 5,000 bytes"),
    ],
    ids=["no comma", "no base64", "large data", "large base64", "large text"],
)
def test_what_is_no_picture_in_the_document_is_refused(value: str, message: str) -> None:
    with pytest.raises(PictureRefused, match=message):
        files().read(value)


def test_a_listed_host_is_asked_and_may_lead_to_itself(host: Host) -> None:
    reader = files(None, host.address)
    assert reader.read(f"http://{host.address}/picture.png") == PICTURE
    assert reader.read(f"http://{host.address}/redirect?to=/picture.png") == PICTURE
    assert reader.read(f"http://{host.address}/zipped") == PICTURE  # nothing is unpacked on the way


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/missing", "status 404"),
        ("/large", "more than 5,000 bytes"),
        ("/redirect?to=/redirect?to=/redirect?to=/redirect?to=/redirect", "leads on and on"),
        ("/redirect?to=http://localhost:1/picture.png", "nothing is fetched"),
        ("/redirect?to=http://169.254.169.254/latest", "nothing is fetched"),
        ("/redirect?to=file:///etc/passwd", "nothing is fetched"),
        ("/redirect?to=", "leads on and on"),
    ],
)
def test_a_listed_host_gives_no_more_than_its_pictures(host: Host, path: str, message: str) -> None:
    with pytest.raises(PictureRefused, match=message):
        files(None, host.address).read(f"http://{host.address}{path}")


def test_no_other_host_is_asked(host: Host) -> None:
    for url in (
        f"http://{host.address}/picture.png",
        f"http://user@{host.address}/picture.png",
        f"http://pictures.example@{host.address}/picture.png",
        f"http://pictures.example:80@{host.address}/picture.png",
        f"http://localhost:{host.server_port}/picture.png",
        "http://[::1/picture.png",
        "http:///picture.png",
        "https://pictures.example:8443/picture.png",
    ):
        with pytest.raises(PictureRefused, match=r"ingest\.image_hosts|is no URL"):
            files(None, "pictures.example", "127.0.0.1").read(url)
    assert host.asked == []


def test_a_host_that_does_not_answer_is_named() -> None:
    with Host() as closed:
        address = closed.address
    with pytest.raises(PictureRefused, match=rf"http://{address}/picture\.png\?key=…' gives no picture"):
        files(None, address).read(f"http://{address}/picture.png?key=secret")


def document(image: str | None) -> Document:
    return Document("a", b"{}", {}, SourcePosition("memory", 0), image=image)


def test_each_document_gets_the_embedding_of_its_own_picture() -> None:
    images = Images.load(IngestSettings(image_encoder=str(SHAPES_CLIP), threads=1))
    values = [base64.b64encode(picture).decode() for picture in PICTURES]
    some: list[str | None] = [values[0], None, values[1], values[2]] * 12  # more than are unpacked at once
    embeddings = images([document(value) for value in some])
    assert [embedding is None for embedding in embeddings] == [value is None for value in some]
    for value, embedding in zip(some, embeddings, strict=True):
        if value is not None:
            [alone] = images([document(value)])
            assert embedding is not None
            assert alone is not None
            np.testing.assert_array_equal(embedding, alone)
    assert images.reference.identity.startswith("shapes-clip@")


def test_settings_that_lead_to_no_picture_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--image-encoder"):
        Images.load(IngestSettings(image_field="photo"))
    with pytest.raises(SettingsError, match="is no folder"):
        Images.load(IngestSettings(image_encoder=str(SHAPES_CLIP), image_folder=tmp_path / "none"))
