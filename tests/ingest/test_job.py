"""Jobs do not share what one of them may set."""

from pathlib import Path

from opensearchpy import OpenSearch

from bridge.settings import IngestSettings
from ingest.job import Job
from ingest.stages.models import profile_for
from tests.ingest.toys import toy_models


def test_stopping_one_job_stops_no_other() -> None:
    models = toy_models()
    profile = profile_for(models, ["title"])
    one, other = (Job("things", profile, models, OpenSearch(), IngestSettings(), Path("state")) for _ in range(2))
    one.stopped.set()
    assert not other.stopped.is_set()
