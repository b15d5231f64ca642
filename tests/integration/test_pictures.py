"""Questions find pictures: documents that say nothing of what their pictures show, enriched in place and beside."""

import base64
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
from mcp.client.client import Client
from opensearchpy import OpenSearch

from benchmarks.pictures import SHAPES_CLIP
from benchmarks.pictures.made import HELD_OUT, SCENES, Scene, caption, draw, png
from bridge.errors import EXIT_DEAD_LETTERS
from bridge.models.encoder import Encoder
from bridge.node.node import EmbeddedNode
from bridge.profile import IMAGE_WEIGHT
from bridge.settings import ClusterSettings
from tests.command_line import output, run
from tests.proxy_stack import PREFIX, ProxyStack, proxy_stack
from tests.servers import client, unused_index_name

pytestmark = [pytest.mark.slow, pytest.mark.node, pytest.mark.filterwarnings("ignore")]

BROKEN, EMPTY = "broken", "empty"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def stack(node: EmbeddedNode, models: Path) -> Iterator[ProxyStack]:
    """A proxy whose sidecar has the image encoder beside the toy encoder of texts."""
    reader = Encoder.load(str(SHAPES_CLIP), threads=1)
    with proxy_stack(ClusterSettings(url=node.url), models, more_encoders=[reader], budget_ms=60_000) as running:
        yield running


class Shop(NamedTuple):
    """`name` holds a document for each scene; `ours` is the index that holds the bridge's object; `report` is of the
    run."""

    name: str
    ours: str
    report: dict[str, Any]


def documents(folder: Path) -> dict[str, dict[str, Any]]:
    """A document for each scene: half name a file below `folder`, half hold the picture. One of each has a picture that
    nobody can read, and none."""
    chance = random.Random(8)
    made: dict[str, dict[str, Any]] = {}
    for number, scene in enumerate(SCENES):
        content = png(draw(scene, chance))
        if number % 2:
            (folder / f"{number}.png").write_bytes(content)
            image = f"{number}.png"
        else:
            image = f"data:image/png;base64,{base64.b64encode(content).decode()}"
        made[scene.name] = {"title": f"item {number}", "photo": {"main": image}}
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    made[BROKEN] = {"title": "item 998", "photo": {"main": "broken.png"}}
    made[EMPTY] = {"title": "item 999"}
    return made


@pytest.fixture(scope="module", params=["in place", "beside"])
def shop(
    node: EmbeddedNode,
    stack: ProxyStack,
    models: Path,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Shop]:
    name, folder = unused_index_name(), tmp_path_factory.mktemp("pictures")
    beside = request.param == "beside"
    text = {"type": "text"}
    photo = {"properties": {"main": {"type": "keyword", "index": False, "doc_values": False}}}
    with client(node.url) as direct:
        settings = {"number_of_replicas": 0, **({} if beside else {"index.knn": True})}
        mapping = {"properties": {"title": text, "photo": photo}}
        direct.indices.create(index=name, body={"settings": settings, "mappings": mapping})
        lines: list[dict[str, Any]] = []
        for doc_id, document in documents(folder).items():
            lines += [{"index": {"_id": doc_id}}, document]
        direct.bulk(index=name, body=lines, refresh=True)
        options = ["--text-field", "title", "--image-field", "photo.main", "--image-encoder", str(SHAPES_CLIP)]
        options += ["--image-folder", str(folder), "--no-expansion", "--beside" if beside else "--in-place"]
        encoder = {"BRIDGE_INGEST__ENCODER": str(models / "encoder"), "BRIDGE_CLUSTER__URL": node.url}
        state = ["--state-folder", str(tmp_path_factory.mktemp("state")), "--quiet"]
        enriched = run("backfill", name, *options, *state, "--json", env=encoder)
        assert enriched.exit_code == EXIT_DEAD_LETTERS, enriched.output
        report = json.loads(enriched.stdout)
        direct.indices.refresh(index="_all")
        ours = f"{PREFIX}{name}" if beside else name
        yield Shop(name, ours, report)
        direct.indices.delete(index=f"{name},{PREFIX}{name}", params={"ignore_unavailable": "true"})


def search(stack: ProxyStack, index: str, text: str, control: str, size: int = 3) -> requests.Response:
    body = {"query": {"match": {"title": text}}, "size": size}
    found = requests.post(f"{stack.url}/{index}/_search", json=body, headers={"x-bridge": control}, timeout=60)
    found.raise_for_status()
    return found


def ids(found: requests.Response) -> list[str]:
    return [hit["_id"] for hit in found.json()["hits"]["hits"]]


def test_each_document_gets_a_vector_of_its_picture_and_what_cannot_be_read_is_a_dead_letter(
    shop: Shop, opensearch: OpenSearch
) -> None:
    assert shop.report["ledger"]["written"] == len(SCENES) + 1
    assert shop.report["ledger"]["dead_lettered"] == 1
    with_picture = {"query": {"exists": {"field": "_neural.image_embedding"}}}
    assert opensearch.count(index=shop.ours, body=with_picture)["count"] == len(SCENES)
    assert opensearch.get(index=shop.ours, id=EMPTY)["_source"]["_neural"]["stamp"].count("-") == 0


def test_captions_that_training_never_showed_find_their_picture_first(stack: ProxyStack, shop: Shop) -> None:
    chance = random.Random(4)
    first = {}
    for scene in HELD_OUT:
        found = search(stack, shop.name, caption(scene, chance), "image")
        assert found.headers["X-Bridge"].startswith("image;"), found.headers["X-Bridge"]
        first[scene] = ids(found)[0]
    recall_at_1 = sum(first[scene] == scene.name for scene in HELD_OUT) / len(HELD_OUT)
    assert recall_at_1 >= 0.9, first


def test_the_leg_is_fused_with_the_others_by_its_weight_and_explained(stack: ProxyStack, shop: Shop) -> None:
    scene = Scene(2, "red", "circle", "white")
    question = "two red circles on a white background"
    without = search(stack, shop.name, question, "hybrid, image=0")
    assert scene.name not in ids(without)
    explained = search(stack, shop.name, question, "hybrid, image=5, explain").json()
    best = explained["hits"]["hits"][0]
    assert best["_id"] == scene.name
    assert best["_source"]["title"].startswith("item")
    assert "_neural" not in best["_source"]
    assert best["_bridge"]["legs"]["image"]["rank"] == 1
    # By the weight in the profile, too.
    assert scene.name in ids(search(stack, shop.name, question, "hybrid", size=10))


def test_the_conditions_of_the_application_hold_for_pictures(stack: ProxyStack, shop: Shop) -> None:
    question = "one blue square on a black background"
    number = SCENES.index(Scene(1, "blue", "square", "black"))
    others = {"bool": {"must": [{"match": {"title": question}}], "must_not": [{"match": {"title": str(number)}}]}}
    found = requests.post(
        f"{stack.url}/{shop.name}/_search",
        json={"query": others, "size": 50},
        headers={"x-bridge": "image"},
        timeout=60,
    )
    assert found.headers["X-Bridge"].startswith("image;"), found.headers["X-Bridge"]
    assert SCENES[number].name not in ids(found)
    assert ids(found)


QUESTION, WANTED = "three green triangles on a grey background", Scene(3, "green", "triangle", "grey").name


def test_retrieve_finds_pictures(stack: ProxyStack, shop: Shop) -> None:
    body = {"index": shop.name, "queries": [QUESTION], "size": 3, "stage": "image"}
    retrieved = requests.post(f"{stack.admin_url}/_bridge/retrieve", json=body, timeout=60).json()["results"][0]
    assert retrieved["degraded"] == []
    assert retrieved["passages"][0]["doc_id"] == WANTED


async def test_the_model_context_protocol_finds_pictures(stack: ProxyStack, shop: Shop) -> None:
    async with Client(f"{stack.admin_url}/_bridge/mcp") as session:
        described = await session.call_tool("describe_index", {"index": shop.name})
        assert "pictures" in described.structured_content["enriched_with"]
        found = await session.call_tool("search", {"index": shop.name, "question": QUESTION})
        assert not found.is_error, found.content
        assert WANTED in [document["doc_id"] for document in found.structured_content["documents"]]


def test_an_index_without_pictures_has_no_such_stage(
    stack: ProxyStack, opensearch: OpenSearch, fresh_index: str
) -> None:
    stack.fill(opensearch, fresh_index, {"a": ({"title": "red shoe", "body": "cheap"}, [])})
    assert not search(stack, fresh_index, "red shoe", "image").headers["X-Bridge"].startswith("image")


def test_the_profile_says_where_pictures_are(shop: Shop, opensearch: OpenSearch) -> None:
    meta = opensearch.indices.get_mapping(index=shop.ours)[shop.ours]["mappings"]["_meta"]["neural_bridge"]
    assert (meta["image"]["field"], meta["image"]["dimension"]) == ("photo.main", 64)
    assert meta["fusion"]["weights"]["image"] == IMAGE_WEIGHT


def neural(opensearch: OpenSearch, index: str, doc_id: str) -> dict[str, Any]:
    ours: dict[str, Any] = opensearch.get(index=index, id=doc_id)["_source"]["_neural"]
    return ours


def test_pictures_are_added_in_place_and_followed(
    node: EmbeddedNode, stack: ProxyStack, models: Path, opensearch: OpenSearch, fresh_index: str, tmp_path: Path
) -> None:
    chance = random.Random(3)
    one, other = (base64.b64encode(png(draw(scene, chance))).decode() for scene in HELD_OUT[:2])
    photo = {"type": "keyword", "index": False, "doc_values": False}
    body = {"settings": {"index.knn": True}, "mappings": {"properties": {"title": {"type": "text"}, "photo": photo}}}
    opensearch.indices.create(index=fresh_index, body=body)
    opensearch.index(index=fresh_index, id="a", body={"title": "item", "photo": one}, refresh=True)
    encoder = {"BRIDGE_INGEST__ENCODER": str(models / "encoder"), "BRIDGE_CLUSTER__URL": node.url}
    plain = ["--text-field", "title", "--no-expansion", "--in-place", "--quiet", "--state-folder"]
    pictured = ["--image-field", "photo", "--image-encoder", str(SHAPES_CLIP)]

    output("backfill", fresh_index, *plain, str(tmp_path / "plain"), env=encoder)
    assert "image_embedding" not in neural(opensearch, fresh_index, "a")

    output("backfill", fresh_index, *plain, str(tmp_path / "pictured"), *pictured, env=encoder)
    first = neural(opensearch, fresh_index, "a")
    opensearch.indices.refresh(index=fresh_index)
    [scene, _] = HELD_OUT[:2]
    assert ids(search(stack, fresh_index, caption(scene, chance), "image")) == ["a"]

    opensearch.update(index=fresh_index, id="a", body={"doc": {"photo": other}}, refresh=True)
    following = ["--once", "--quiet", "--image-encoder", str(SHAPES_CLIP), "--state-folder", str(tmp_path / "follow")]
    output("follow", fresh_index, *following, env=encoder)
    second = neural(opensearch, fresh_index, "a")
    assert second["image_embedding"] != first["image_embedding"]
    assert second["embedding"] == first["embedding"]

    opensearch.update(index=fresh_index, id="a", body={"doc": {"photo": None}}, refresh=True)
    output("follow", fresh_index, *following, env=encoder)
    assert neural(opensearch, fresh_index, "a").get("image_embedding") is None
    opensearch.indices.refresh(index=fresh_index)
    assert ids(search(stack, fresh_index, caption(scene, chance), "image")) == []
