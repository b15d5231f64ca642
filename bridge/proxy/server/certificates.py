"""TLS on both sides, from files that are read again when they change: renewed certificates need no restart."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import structlog

from bridge.errors import SettingsError
from bridge.settings import ClusterSettings, ProxySettings

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 5.0


def cluster_context(settings: ClusterSettings) -> ssl.SSLContext:
    """How connections to the cluster are verified.

    Raises:
        SettingsError: the file of authorities cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"cluster.ca_file {settings.ca_file} cannot be used ({error}): expected a PEM file of certificates"
        ) from error
    if not settings.verify_tls:
        log.warning("the cluster's certificate is not verified: anybody may answer in its place (cluster.verify_tls)")
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def client_context(settings: ProxySettings) -> ssl.SSLContext | None:
    """What applications are shown; None where they speak plain HTTP.

    Raises:
        SettingsError: certificate and key cannot be used.
    """
    if settings.tls_certificate_file is None:
        if settings.tls_key_file is not None:
            raise SettingsError("proxy.tls_key_file is given without proxy.tls_certificate_file: name both, or neither")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(settings.tls_certificate_file, settings.tls_key_file)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"proxy.tls_certificate_file {settings.tls_certificate_file} and proxy.tls_key_file "
            f"{settings.tls_key_file} cannot be used ({error}): expected PEM files of a certificate chain and its key, "
            f"the key without a password"
        ) from error
    return context


async def renew(files: list[Path], load: Callable[[], None]) -> None:
    """Calls `load` whenever one of `files` has changed, until cancelled.

    Connections that are open go on; what cannot be loaded is left for the next change.
    """
    seen = _changed_at(files)
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        if (now := _changed_at(files)) == seen:
            continue
        seen = now
        try:
            load()
            log.info("certificates read again", files=[str(file) for file in files])
        except (OSError, ssl.SSLError) as error:
            log.warning("changed certificates cannot be used", files=[str(file) for file in files], detail=str(error))


def _changed_at(files: list[Path]) -> list[int]:
    return [file.stat().st_mtime_ns if file.exists() else 0 for file in files]
