"""TLS contexts from files that are read again when they change: renewed certificates need no restart.

A changed file is loaded into a fresh context first; the context before serves on until that succeeds. So a certificate
that is renewed before its key does no harm, and an authority that is taken out of a file is not trusted any more.
"""

import asyncio
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import structlog

from bridge.errors import SettingsError
from bridge.settings import ClusterSettings, ProxySettings, SidecarSettings

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 5.0
_KEPT = "changed certificates cannot be used: those before serve on"


def cluster_context(settings: ClusterSettings) -> ssl.SSLContext:
    """How connections to the cluster are verified.

    Raises:
        SettingsError: the file of authorities cannot be used.
    """
    if settings.ca_file is not None and not settings.ca_file.is_file():
        raise SettingsError(f"cluster.ca_file {settings.ca_file} does not exist or is no file")
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"cluster.ca_file {settings.ca_file} cannot be used ({error}): expected a PEM file of certificates"
        ) from error
    if not settings.verify_tls:
        log.warning("cluster.verify_tls is off: anybody on the way can read and change what is sent")
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Authorities:
    """Whom connections to the cluster trust, for clients without an event loop: they ask before a request."""

    def __init__(self, settings: ClusterSettings) -> None:
        """
        Raises:
            SettingsError: the file of authorities cannot be used.
        """
        self._settings = settings
        self._files = [settings.ca_file] if settings.ca_file is not None else []
        self._seen = _state(self._files)
        self._failed = False
        self._looked_at = time.monotonic()
        self._looking = threading.Lock()
        self.context = cluster_context(settings)

    def renewed(self) -> ssl.SSLContext | None:
        """Another context if the file has changed; None if it has not, cannot be used, or was looked at just now."""
        with self._looking:
            if not self._files or time.monotonic() - self._looked_at < LOOK_EVERY_S:
                return None
            self._looked_at = time.monotonic()
            is_new = (now := _state(self._files)) != self._seen
            if not is_new and not self._failed:
                return None
            self._seen = now
            try:
                self.context = cluster_context(self._settings)
            except SettingsError as error:
                self._failed = True
                _warn(self._files, error, is_new=is_new)
                return None
            self._failed = False
            return self.context


class ServerCertificate:
    """The certificate that a server shows its clients.

    Attributes:
        context: for the listener, for as long as it listens.
        files: the certificate's file, and its key's if that is another one.
    """

    def __init__(self, certificate: Path, key: Path | None, *, section: str) -> None:
        """`section` of the settings names both files.

        Raises:
            SettingsError: they cannot be used.
        """
        self.files = [file for file in (certificate, key) if file is not None]
        self._section = section
        self._certificate, self._key = certificate, key
        self._current = self.context = self._load()
        # Called at each handshake, also for clients that name no server.
        self.context.sni_callback = self._use_current

    @classmethod
    def of(cls, settings: ProxySettings | SidecarSettings, *, section: str) -> Self | None:
        """The certificate that the settings name; None if the server speaks plain HTTP.

        Raises:
            SettingsError: it cannot be used, or there is a key without a certificate.
        """
        if settings.tls_certificate_file is None:
            if settings.tls_key_file is not None:
                raise SettingsError(
                    f"{section}.tls_key_file is set without {section}.tls_certificate_file: name both, or neither"
                )
            return None
        return cls(settings.tls_certificate_file, settings.tls_key_file, section=section)

    def renew(self) -> None:
        """Reads the files again, for connections from now on.

        Raises:
            SettingsError: they cannot be used; the certificate before is shown on.
        """
        self._current = self._load()

    def _use_current(self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _: ssl.SSLContext) -> None:
        connection.context = self._current

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self._certificate, self._key)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"{self._section}.tls_certificate_file {self._certificate} with key "
                f"{self._key or '(in the same file)'} cannot be used ({error}): expected PEM files of a certificate "
                f"chain and its key, which belong together, the key without a password"
            ) from error
        return context


async def renew(files: Sequence[Path], load: Callable[[], None]) -> None:
    """Calls `load` whenever one of `files` has changed, until cancelled; what it cannot load it tries at each look.

    `load` raises `SettingsError`.
    """
    seen, failed = _state(files), False
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        is_new = (now := _state(files)) != seen
        if not is_new and not failed:
            continue
        seen = now
        try:
            load()
        except SettingsError as error:
            failed = True
            _warn(files, error, is_new=is_new)
        else:
            failed = False
            log.info("certificates read again", files=[str(file) for file in files])


def _warn(files: Sequence[Path], error: SettingsError, *, is_new: bool) -> None:
    """Once for each change, though a file that was read half-written may look the same when it is whole."""
    if is_new:
        log.warning(_KEPT, files=[str(file) for file in files], detail=str(error))


def _state(files: Sequence[Path]) -> list[tuple[int, ...]]:
    """What changes with the files; their times alone are as coarse as the system's clock."""
    found = [file.stat() if file.exists() else None for file in files]
    return [(each.st_mtime_ns, each.st_size, each.st_ino) if each else () for each in found]
