"""The library: what `from bridge import …` gives a program."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bridge
from bridge import BridgeError, CrossEncoder, Encoder, backfill, connect, ingest, load_settings
from bridge.cluster import index as indices
from bridge.cluster.dialects import OpenSearchDialect
from bridge.cluster.schema import new_index
from bridge.errors import UsageError
from bridge.node.node import EmbeddedNode
from bridge.profile import companion_of
from bridge.settings import ClusterSettings, Settings
from ingest.books.ledger import Progress
from ingest.runs.backfill import BackfillReport
from ingest.stages.models import load_models, profile_for
from tests.fake_bulk import FakeCluster, fake_cluster
from tests.servers import unused_index_name
from tests.toys import make_toy_cross_encoder, make_toy_encoder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    encoder = make_toy_encoder(tmp_path / "encoder")
    return load_settings(None, ingest={"encoder": str(encoder.path), "generator": "", "threads": 1})


def at(cluster: FakeCluster, settings: Settings) -> Settings:
    return settings.model_copy(update={"cluster": settings.cluster.model_copy(update={"url": cluster.url})})


LOADED = """
import sys, bridge
print(sorted({name.split(".")[0] for name in sys.modules} & {"ingest", "numpy", "pydantic"}))
"""


def test_importing_the_library_loads_nothing_until_a_name_is_used() -> None:
    loaded = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"
    assert {"ingest", "backfill", "connect", "load_settings", "Encoder", "CrossEncoder"} < set(dir(bridge))
    with pytest.raises(AttributeError, match="has no attribute 'ingset': there are"):
        _ = bridge.ingset  # type: ignore[attr-defined]


def test_the_stub_names_what_the_package_gives() -> None:
    stub = Path(bridge.__file__).with_name("__init__.pyi").read_text()
    typed = {line.split(" as ")[-1] for line in stub.splitlines() if " as " in line}
    assert typed == set(vars(bridge)["__all__"]) - {"__version__"}
    for name in typed:
        assert getattr(bridge, name).__name__ == name


def test_ingest_writes_documents_and_leaves_them_alone_the_next_time(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "docs.jsonl"
    file.write_text("".join(json.dumps({"sku": f"s{i}", "title": "cat dog"}) + "\n" for i in range(3)))
    seen: list[Progress] = []
    profile = profile_for(load_models(settings.ingest), ["title"])
    with fake_cluster() as cluster:
        cluster.mapping = new_index(profile, OpenSearchDialect((3, 6, 0)))["mappings"]
        cluster.settings = {"index": {"knn": "true", "uuid": "u1"}}
        there, state = at(cluster, settings), tmp_path / "state"
        report = ingest([str(file)], "things", there, id_field="sku", state_folder=state, on_progress=seen.append)
        assert (report.ledger.read, report.ledger.written, report.complete) == (3, 3, True)
        assert sorted(cluster.documents) == ["s0", "s1", "s2"]
        assert seen[-1].answered == 3
        again = ingest([str(file)], "things", there, id_field="sku", state_folder=state)
        assert again.ledger.unchanged == 3


def test_backfill_enriches_an_index_that_an_application_wrote(
    node: EmbeddedNode, settings: Settings, tmp_path: Path
) -> None:
    index = unused_index_name()
    there = settings.model_copy(update={"cluster": ClusterSettings(url=node.url)})
    client = connect(there.cluster)
    client.indices.create(index=index, body={"settings": {"index.knn": True}})
    client.index(index=index, id="1", body={"title": "cat dog"}, params={"refresh": "true"})
    beside = backfill(index, there, text_fields=["title"], way="beside", state_folder=tmp_path / "beside")
    assert (beside.report.ledger.written, indices.count(client, companion_of(index, "neural-bridge."))) == (1, 1)
    assert "_neural" not in client.get(index=index, id="1")["_source"]
    client.indices.delete(index=companion_of(index, "neural-bridge."))
    done = backfill(index, there, text_fields=["title"], state_folder=tmp_path / "state")
    assert isinstance(done, BackfillReport)
    assert (done.report.ledger.written, done.left) == (1, 0)
    assert client.get(index=index, id="1")["_source"]["_neural"]["embedding"]


def test_errors_say_what_a_program_can_change(settings: Settings, tmp_path: Path) -> None:
    with fake_cluster() as cluster, pytest.raises(UsageError, match="text_fields"):
        ingest([str(tmp_path / "none.jsonl")], "things", at(cluster, settings))
    with pytest.raises(BridgeError, match="no connection"):
        backfill("things", load_settings(None, cluster={"url": "http://127.0.0.1:9"}))


def test_models_are_opened_by_name_or_path(tmp_path: Path) -> None:
    encoder = Encoder.load(str(make_toy_encoder(tmp_path / "e").path), threads=1)
    assert np.linalg.norm(encoder.encode(["cat"])[0]) == pytest.approx(1.0)
    reader = CrossEncoder.load(str(make_toy_cross_encoder(tmp_path / "c").path), threads=1)
    assert reader.score("cat", ["cat dog", "fish"]).shape == (2,)
