"""The nodes of the one cluster: which of them to ask next, and which of them are away."""

from collections.abc import Sequence

from yarl import URL

from bridge.errors import SettingsError


class Nodes:
    """Origins (scheme, host, port) in the order of the settings."""

    def __init__(self, urls: Sequence[str]) -> None:
        """
        Raises:
            SettingsError: an address is no plain origin.
        """
        self.origins = tuple(dict.fromkeys(_origin(url) for url in urls))
        self._away: set[URL] = set()
        self._turn = 0

    @property
    def away(self) -> list[URL]:
        """Those that could not be connected to when they were tried last."""
        return [origin for origin in self.origins if origin in self._away]

    def in_turn(self) -> list[URL]:
        """Each node once, in the order in which to try them: another one first each time, those away last."""
        turn, self._turn = self._turn, (self._turn + 1) % len(self.origins)
        rotated = self.origins[turn:] + self.origins[:turn]
        if not self._away:
            return list(rotated)
        return sorted(rotated, key=self._away.__contains__)

    def lost(self, origin: URL) -> None:
        """No connection could be had."""
        self._away.add(origin)

    def found(self, origin: URL) -> None:
        """It answers."""
        self._away.discard(origin)


def _origin(url: str) -> URL:
    given = URL(url)
    if given.scheme not in ("http", "https") or not given.host:
        raise SettingsError(f"cluster.url is {url}: expected http://HOST:PORT or https://HOST:PORT")
    if given.raw_path_qs != "/" or given.user:
        raise SettingsError(
            "cluster.url may hold neither a path nor credentials: "
            "give scheme, host and port, and cluster.username and cluster.password beside it"
        )
    return given.origin()
