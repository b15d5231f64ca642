"""What a run works with: an index, how its documents are enriched, and where its books are."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from opensearchpy import OpenSearch

from bridge.profile import IndexProfile
from bridge.settings import IngestSettings
from ingest.books.ledger import Progress
from ingest.stages.models import Models


@dataclass(frozen=True, slots=True)
class Job:
    """One run into `index`, whose documents `models` enrich as `profile` and `settings` say.

    `state_folder` holds the checkpoint and the dead letters. `stopped`, once set, ends the run at the next
    opportunity; a run that ends early sets it itself. `from_start` ignores the checkpoint of an earlier run, `strict`
    stops at the first dead letter.
    """

    index: str
    profile: IndexProfile
    models: Models
    client: OpenSearch
    settings: IngestSettings
    state_folder: Path
    on_progress: Callable[[Progress], None] | None = None
    stopped: threading.Event = field(default_factory=threading.Event)
    from_start: bool = False
    strict: bool = False
