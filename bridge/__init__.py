"""Neural retrieval beside the search that a cluster already does.

    from bridge import load_settings, connect            # settings, and a client of the cluster in them
    from bridge import ingest, backfill                  # enrich files, or an index that exists
    from bridge import Encoder, CrossEncoder             # texts → embeddings; query, passages → scores
    from bridge import BridgeError                       # the root of everything that these raise

A name is imported when it is used first, so `import bridge` costs nothing; `__init__.pyi` has the types.
"""

import importlib

__version__ = "0.1.0"

_PLACES = {
    "BridgeError": "bridge.errors",
    "CrossEncoder": "bridge.models.cross_encoder",
    "Encoder": "bridge.models.encoder",
    "backfill": "bridge.api",
    "connect": "bridge.cluster.connection",
    "ingest": "bridge.api",
    "load_settings": "bridge.settings",
}

__all__ = ["__version__", *sorted(_PLACES)]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'bridge' has no attribute {name!r}: there are {', '.join(_PLACES)}")
    found = getattr(importlib.import_module(_PLACES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
