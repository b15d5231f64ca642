"""Only documents that the source wrote leave, and none that is written while the keys are read."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bridge.cluster.connection import connect
from bridge.cluster.dialects import OpenSearchDialect
from bridge.cluster.schema import new_index
from bridge.errors import IngestError
from bridge.settings import ClusterSettings, IngestSettings
from ingest.job import Job
from ingest.runs.removal import remove_gone
from ingest.sources.database import Database
from ingest.sources.documents import FieldChoice
from ingest.sources.rows import RowChoice, RowDocuments
from ingest.stages.models import profile_for
from tests.fake_bulk import FakeCluster, fake_cluster
from tests.ingest.toys import toy_models

pytest.importorskip("sqlalchemy", reason="needs the sources extra")


class Setting:
    """A table, and an index that holds documents of it."""

    def __init__(self, cluster: FakeCluster, folder: Path) -> None:
        self.cluster = cluster
        self.file = folder / "shop.sqlite"
        self.execute("CREATE TABLE item (id, name)")
        models = toy_models()
        profile = profile_for(models, ["text"])
        cluster.mapping = new_index(profile, OpenSearchDialect((3, 6, 0)))["mappings"]
        cluster.settings = {"index": {"knn": "true", "uuid": "u1"}}
        client = connect(ClusterSettings(url=cluster.url))
        self.job = Job("things", profile, models, client, IngestSettings(bulk_documents=2), folder / "state")
        choice = RowChoice("SELECT * FROM item", text_field="text")
        fields = FieldChoice(["text"], "id")
        self.rows = RowDocuments(Database(f"sqlite:///{self.file}"), choice, fields, max_doc_bytes=1000)

    def execute(self, statement: str) -> None:
        with closing(sqlite3.connect(self.file, isolation_level=None)) as connection:
            connection.execute(statement)

    def write(self, doc_id: str, origin: str | None) -> None:
        stamp = f"a.b.c.{origin}" if origin else "a.b.c"
        self.cluster.put(doc_id, b'{"_neural": {"stamp": "%s"}}' % stamp.encode())


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    with fake_cluster() as cluster:
        yield Setting(cluster, tmp_path)


def test_documents_of_this_source_leave_with_their_rows(setting: Setting) -> None:
    setting.execute("INSERT INTO item VALUES (1, 'a'), ('x', 'b')")
    for doc_id in ("1", "x", "2", "3", "4"):
        setting.write(doc_id, setting.rows.origin)
    setting.write("other source", "0123456789abcdef")
    setting.write("from files", None)
    setting.cluster.put("of an application", b"{}")
    assert remove_gone(setting.job, setting.rows) == 3
    assert sorted(setting.cluster.documents) == ["1", "from files", "of an application", "other source", "x"]


def test_a_query_without_rows_removes_nothing(setting: Setting) -> None:
    setting.write("1", setting.rows.origin)
    with pytest.raises(IngestError, match=r"has no row, .* nothing is removed"):
        remove_gone(setting.job, setting.rows)
    assert list(setting.cluster.documents) == ["1"]


def test_an_index_without_documents_of_an_empty_query_is_no_error(setting: Setting) -> None:
    setting.write("from files", None)
    assert remove_gone(setting.job, setting.rows) == 0


def test_a_deletion_holds_for_the_version_that_was_seen(setting: Setting) -> None:
    setting.execute("INSERT INTO item VALUES (1, 'a')")
    setting.write("2", setting.rows.origin)
    remove_gone(setting.job, setting.rows)
    (request,) = setting.cluster.bulk_requests()
    assert b'"if_seq_no":0' in request.body
