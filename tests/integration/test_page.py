"""The page in a real browser, before a real proxy and a real node: what a viewer sees, does and is protected from."""

import json
import random
import re
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from opensearchpy import OpenSearch
from playwright.sync_api import Browser, FilePayload, Page, Request, expect

from benchmarks.pictures.made import SCENES, SIDE, draw, png
from bridge.evaluation.judgement_files import read_judgement_list, read_topics
from bridge.node.node import EmbeddedNode
from bridge.profile import (
    META_KEY,
    FusionSettings,
    GateRecord,
    ImageSettings,
    Measurement,
    ModelReference,
    RerankSettings,
    StageVerdict,
    TunedPoint,
    TuningRecord,
)
from bridge.settings import ClusterSettings
from tests.browser import headless_browser
from tests.proxy_stack import NESTED, ProxyStack, proxy_stack
from tests.servers import client

pytestmark = [pytest.mark.slow]

INDEX = "page-test"
BESIDE = "page-test-beside"
WAIT_MS = 120_000
"""Tests share the machine with a search engine and a browser."""
INJECTION = "<img src=x onerror=\"document.title='injected'\"> red"
PICTURE = b64encode(png(draw(SCENES[0], random.Random(1)))).decode()
DOCUMENTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "wing": (
        {
            "title": "wing pressure",
            "body": "supersonic flow over a wing. red line",
            "kind": "paper",
            "photo": f"data:image/png;base64,{PICTURE}",
        },
        ["heat"],
    ),
    "plate": (
        {
            "title": "flat plate",
            "body": "boundary layer. wing flow on a plate",
            "kind": "paper",
            "photo": "http://pictures.example/plate.png",
        },
        ["cheap wing"],
    ),
    "shoe": (
        {"title": "red shoe", "body": "cheap shoe for the garden", "kind": "ad", "photo": PICTURE},
        ["blue dress"],
    ),
    "dress": ({"title": "blue dress", "body": "a dress and a shoe", "kind": "ad"}, []),
    "markup": ({"title": INJECTION, "body": "<script>document.title='injected'</script> house", "kind": "ad"}, []),
}
MEASURED = Measurement("judgements.csv", 40, "nDCG@10", "2026-01-02T03:04:05Z")
GATE = GateRecord(
    [
        StageVerdict("lexical", enabled=True, mean=0.41, p50_ms=4.0, p95_ms=9.0),
        StageVerdict("hybrid", True, 0.52, 12.0, 20.0, against="lexical", difference=0.11, low=0.05, high=0.17),
        StageVerdict("rerank", False, 0.47, 60.0, 90.0, against="hybrid", difference=-0.05, low=-0.09, high=-0.01),
    ],
    tolerance=0.01,
    measurement=MEASURED,
)
TUNING = TuningRecord(
    MEASURED, 5, 100.0, 0.52, 0.55, 0.01, 0.05, [TunedPoint(20.0, 0.52, "rrf"), TunedPoint(60.0, 0.55, "z")]
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with headless_browser() as running:
        yield running


@pytest.fixture(scope="module")
def stack(browser: Browser, node: EmbeddedNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyStack]:
    """A proxy before an index of which one document carries no stamp yet."""
    settings = ClusterSettings(url=node.url)
    with (
        proxy_stack(settings, tmp_path_factory.mktemp("models"), budget_ms=60_000) as running,
        client(node.url) as direct,
    ):
        running.fill(
            direct,
            INDEX,
            DOCUMENTS,
            properties={"kind": {"type": "keyword"}},
            passages=NESTED,
            rerank=RerankSettings(depth=10),
            gate=GATE,
            # The page shows pictures; this sidecar has no encoder that finds them.
            image=ImageSettings("photo", ModelReference("clip", "3" * 12), 4),
            fusion=FusionSettings(weights={**FusionSettings().weights, "image": 0.0}),
            tuning=TUNING,
            stages=["lexical", "expansion", "vector", "hybrid"],
        )
        running.fill_beside(direct, BESIDE, DOCUMENTS, passages=NESTED)
        direct.index(index=INDEX, id="new", body={"title": "horse", "body": "a cow", "kind": "late"}, refresh=True)
        yield running
        direct.indices.delete(index=f"{INDEX},{BESIDE},neural-bridge.{BESIDE}")


@pytest.fixture(scope="module")
def through(stack: ProxyStack) -> Iterator[OpenSearch]:
    with client(stack.url) as through_proxy:
        yield through_proxy


class Opened:
    """The page as opened for one test, with what it asked for and what went wrong in it."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.origin = origin
        self.requests: list[Request] = []
        self.complaints: list[str] = []
        page.set_default_timeout(WAIT_MS)
        page.on("request", lambda request: self.requests.append(request))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        page.goto(f"{origin}/_bridge/", timeout=WAIT_MS)
        expect(page.locator("#index-name")).to_have_value(INDEX)

    def search(self, words: str) -> None:
        self.page.get_by_label("Query", exact=True).fill(words)
        with self.page.expect_response("**/_search"), self.page.expect_response("**/_search"):
            self.page.get_by_role("button", name="Search").click()
        expect(self.page.locator("#notice")).to_contain_text("hits shown")

    def ids(self, column: str) -> list[str]:
        return self.page.locator(f"#{column} .id").all_inner_texts()

    def view(self, name: str) -> None:
        self.page.get_by_role("navigation").get_by_role("link", name=name).click()


@pytest.fixture
def opened(browser: Browser, stack: ProxyStack) -> Iterator[Opened]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    expect.set_options(timeout=WAIT_MS)
    opened = Opened(context.new_page(), stack.admin_url)
    yield opened
    complaints = opened.complaints
    context.close()
    assert complaints == []


def match(words: str) -> dict[str, Any]:
    return {"query": {"multi_match": {"query": words, "fields": ["title", "body"]}}, "size": 10}


def ids(through: OpenSearch, body: dict[str, Any], control: str) -> list[str]:
    answer = through.search(index=INDEX, body=body, headers={"x-bridge": control})
    return [hit["_id"] for hit in answer["hits"]["hits"]]


def test_both_rankings_are_those_that_an_application_gets(opened: Opened, through: OpenSearch) -> None:
    opened.search("blue dress")

    plain, bridged = ids(through, match("blue dress"), "off"), ids(through, match("blue dress"), "explain")
    assert opened.ids("left") == plain
    assert opened.ids("right") == bridged
    assert plain != bridged
    moves = opened.page.locator("#right .move .unseen").all_inner_texts()
    for rank, (doc_id, told) in enumerate(zip(bridged, moves, strict=True), 1):
        if doc_id not in plain:
            assert told == "not among the hits on the left"
        elif (rank_there := plain.index(doc_id) + 1) == rank:
            assert told == "the same rank on the left"
        else:
            assert told.endswith(f"from rank {rank_there} on the left")
            assert told.startswith("up" if rank_there > rank else "down")


@pytest.mark.parametrize("stage", ["expansion", "vector", "hybrid", "rerank"])
def test_a_column_goes_as_far_as_it_is_told(opened: Opened, through: OpenSearch, stage: str) -> None:
    opened.page.get_by_label("Right ranking").select_option(stage)

    opened.search("wing flow")

    assert opened.ids("right") == ids(through, match("wing flow"), stage)
    expect(opened.page.locator("#right .done")).to_have_text("hybrid+rerank" if stage == "rerank" else stage)


def test_pictures_in_documents_are_shown_and_others_are_not_fetched(opened: Opened) -> None:
    opened.search("wing flow shoe")

    for doc_id in ("wing", "shoe"):
        shown = opened.page.locator("#right .hit", has=opened.page.get_by_text(doc_id, exact=True)).locator(
            "img.picture"
        )
        expect(shown).to_have_js_property("naturalWidth", SIDE)
    plate = opened.page.locator("#right .hit", has=opened.page.get_by_text("plate", exact=True))
    expect(plate).to_contain_text("http://pictures.example/plate.png")
    assert plate.locator("img").count() == 0
    assert {request.url.partition(":")[0] for request in opened.requests} <= {"http", "data"}
    assert not [request.url for request in opened.requests if "pictures.example" in request.url]


def test_each_hit_tells_why_it_is_there(opened: Opened, through: OpenSearch) -> None:
    opened.page.get_by_label("Right ranking").select_option("rerank")
    opened.search("wing flow")

    answer = through.search(index=INDEX, body=match("wing flow"), headers={"x-bridge": "rerank, explain"})
    first = answer["hits"]["hits"][0]
    card = opened.page.locator("#right .hit").first
    expect(card.locator("mark")).to_have_text(first["_bridge"]["passage"]["text"])
    told = card.locator(".scores").inner_text()
    for leg, name in (("lexical", "own words"), ("expansion", "predicted queries"), ("vector", "vectors")):
        assert name in told
        assert f"#{first['_bridge']['legs'][leg]['rank']} ·" in told
    assert "reranker" in told
    stages = opened.page.locator("#right .timings dt").all_inner_texts()
    assert stages[0] == "embed the query"
    assert "rerank" in stages


def test_predicted_queries_that_matched_are_shown(opened: Opened) -> None:
    opened.search("blue dress")

    shoe = opened.page.locator("#right .hit", has=opened.page.locator(".id", has_text="shoe"))
    expect(shoe.locator("q")).to_have_text(["blue dress"])


def test_the_applications_own_body_is_searched_with(opened: Opened, through: OpenSearch) -> None:
    body = {"query": {"bool": {"must": match("%SearchText%")["query"], "filter": {"term": {"kind": "ad"}}}}, "size": 3}
    opened.page.locator("#body-details summary").click()
    opened.page.get_by_label("Request body as JSON").fill(json.dumps(body))

    opened.search('shoe "wing" \\ $&')

    words = json.dumps(body).replace("%SearchText%", json.dumps('shoe "wing" \\ $&')[1:-1])
    assert opened.ids("left") == ids(through, json.loads(words), "off") != []
    assert set(opened.ids("left")) <= {"shoe", "dress", "markup"}


def test_a_body_that_is_no_json_is_told_and_not_sent(opened: Opened) -> None:
    opened.page.locator("#body-details summary").click()
    opened.page.get_by_label("Request body as JSON").fill("{query:")
    opened.page.get_by_role("button", name="Search").click()

    expect(opened.page.locator("#notice")).to_contain_text("no JSON")
    assert not [request for request in opened.requests if request.url.endswith("_search")]


def test_text_of_documents_is_never_markup(opened: Opened) -> None:
    opened.search("red house")

    expect(opened.page.locator("#left .hit h2", has_text=INJECTION)).to_be_visible()
    assert opened.page.title() == "neural-bridge: compare rankings"
    assert opened.page.locator("main img:not(.picture), main script").count() == 0


def test_nothing_is_fetched_from_elsewhere(opened: Opened) -> None:
    opened.search("red shoe")
    for name in ("Judgements", "Measurements", "Index"):
        opened.view(name)

    assert {re.match(r"\w+://[^/]+", request.url)[0] for request in opened.requests} == {opened.origin}  # type: ignore[index]


def test_credentials_go_with_the_searches_and_stay_nowhere(opened: Opened) -> None:
    opened.search("red shoe")
    assert all("authorization" not in request.headers for request in opened.requests)

    opened.page.locator("#sign-in summary").click()
    opened.page.get_by_label("User").fill("ann")
    opened.page.get_by_label("Password").fill("sécret")
    opened.page.get_by_role("button", name="Use for my searches").click()
    expect(opened.page.locator("#viewer")).to_have_text("ann")
    opened.requests.clear()
    opened.search("red shoe")

    searches = [request for request in opened.requests if request.url.endswith("_search")]
    assert {request.headers["authorization"] for request in searches} == {"Basic YW5uOnPDqWNyZXQ="}
    kept = opened.page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    assert kept == '[{},{},""]'


def test_a_cluster_that_asks_who_is_there_leads_to_the_sign_in(opened: Opened) -> None:
    opened.page.route("**/_search", lambda route: route.fulfill(status=401, body="{}"))
    opened.page.get_by_label("Query", exact=True).fill("red shoe")
    opened.page.get_by_role("button", name="Search").click()

    expect(opened.page.locator("#notice")).to_contain_text("sign in")
    expect(opened.page.get_by_label("Password")).to_be_visible()
    opened.complaints.clear()  # the browser notes every 401


def test_judgements_stay_and_leave_as_qrels_and_for_quepid(opened: Opened, tmp_path: Path) -> None:
    query = 'red "shoe", cheap'
    opened.search(query)
    shown = opened.ids("right")
    for rank, grade in ((1, 3), (2, 1), (3, 0)):
        opened.page.locator(f"#right label[for=right-{rank}-{grade}]").click()
    opened.page.locator("#right label[for=right-3-0]").click()  # taken back
    expect(opened.page.locator("#judged-quality")).to_contain_text("1.00 right")

    opened.page.reload()
    expect(opened.page.locator("#judged-count")).to_have_text("2")
    opened.view("Judgements")

    def saved(button: str, name: str) -> Path:
        with opened.page.expect_download() as download:
            opened.page.get_by_role("button", name=button).click()
        assert download.value.suggested_filename == name
        download.value.save_as(tmp_path / name)
        return tmp_path / name

    grades = {shown[0]: 3, shown[1]: 1}
    quepid = read_judgement_list(saved("Quepid CSV", f"{INDEX}-quepid.csv"))
    assert (quepid.queries, quepid.qrels) == ({query: query}, {query: grades})
    queries = saved("queries", f"{INDEX}-queries.jsonl")
    trec = read_topics(queries, saved("TREC qrels", f"{INDEX}-qrels.txt"))
    assert (trec.queries, trec.qrels) == ({"q1": query}, {"q1": grades})


def test_everything_can_be_done_with_the_keyboard(opened: Opened) -> None:
    page = opened.page
    expect(page.get_by_label("Query", exact=True)).to_be_focused()
    page.keyboard.type("red shoe")
    page.keyboard.press("Enter")
    expect(page.locator("#notice")).to_contain_text("hits shown")

    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('#left .grade') !== null"):
            break
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")

    first = opened.ids("left")[0]
    stored = json.loads(page.evaluate("localStorage.getItem('neural-bridge judgements')"))
    assert stored == {INDEX: {"red shoe": {first: 1}}}


def test_the_index_view_counts_what_is_enriched(opened: Opened) -> None:
    opened.view("Index")

    expect(opened.page.locator(".coverage")).to_contain_text("5 of 6 documents carry a stamp")
    expect(opened.page.locator(".stage.on")).to_have_count(4)
    expect(opened.page.locator(".stage.off")).to_contain_text("rerank")
    expect(opened.page.locator(".facts")).to_contain_text("nested")


def test_an_index_that_is_enriched_beside_is_offered_by_its_own_name(opened: Opened) -> None:
    opened.page.locator("#index-name").fill(BESIDE)
    opened.page.locator("#index-name").press("Enter")
    opened.view("Index")

    expect(opened.page.locator(".coverage")).to_contain_text("5 of 5 documents carry a stamp")
    expect(opened.page.locator(".facts")).to_contain_text(f"beside, in neural-bridge.{BESIDE}")
    offered = opened.page.locator("#index-names option").evaluate_all("all => all.map(each => each.value)")
    # Other tests' indices may be on the node, too.
    assert [name for name in offered if INDEX in name] == [INDEX, BESIDE]


def test_a_profile_of_an_earlier_version_is_completed_with_the_defaults(opened: Opened) -> None:
    sparse = {"text_fields": [{"name": "title"}], "encoder": {"name": "e", "digest": "0"}, "dimension": 3, "version": 1}
    sparse["fusion"] = {"weights": {"vector": 2.0}}
    mapping = {"old": {"mappings": {"_meta": {META_KEY: sparse}}}}
    opened.page.route("**/_mapping?*", lambda route: route.fulfill(json=mapping))
    opened.page.locator("#index-name").fill("old")
    opened.page.locator("#index-name").press("Enter")
    opened.view("Index")

    facts = opened.page.locator(".facts")
    expect(facts.locator("dd").nth(2)).to_have_text("title")
    expect(facts).to_contain_text(f"the first {RerankSettings().depth}")
    expect(facts.get_by_text(f"{FusionSettings().method}: vector 2", exact=True)).to_be_visible()
    # There is no index of that name whose documents could be counted: the page says so, and so does the browser.
    expect(opened.page.locator(".coverage .problem")).to_contain_text("no such index")
    opened.complaints.clear()


def test_the_evidence_of_gate_and_tuning_is_drawn(opened: Opened) -> None:
    opened.view("Measurements")

    section = opened.page.locator("#measurements")
    expect(section.get_by_role("row", name="rerank")).to_contain_text("held back")
    expect(section.get_by_role("row", name="rerank")).to_contain_text("-0.050 [-0.090, -0.010] to hybrid")
    expect(section.locator("svg")).to_have_count(3)
    expect(section).to_contain_text("0.520 before, 0.550 tuned")


def test_results_of_evaluate_are_shown_from_a_file(opened: Opened) -> None:
    figures = {"ndcg@10": 0.66, "mrr@10": 0.6, "recall@100": 0.9, "p50_ms": 5.0, "p95_ms": 9.0}
    stages = {"bm25": figures, "hybrid": figures | {"ndcg@10": 0.71, "p95_ms": 20.0}}
    result = {"collection": "tiny", "documents": 10, "queries": 3, "stages": stages}
    opened.view("Measurements")

    def choose(content: object) -> None:
        file = FilePayload(name="result.json", mimeType="application/json", buffer=json.dumps(content).encode())
        opened.page.locator("input[type=file]").set_input_files(file)

    choose(result)
    expect(opened.page.get_by_role("heading", name="tiny: 3 queries")).to_be_visible()
    expect(opened.page.locator("#measurements").get_by_role("row", name="hybrid 0.710")).to_be_visible()
    choose({"what": "is this"})
    expect(opened.page.get_by_role("alert")).to_contain_text("result.json cannot be shown")


@pytest.mark.parametrize("view", ["Compare", "Judgements", "Measurements", "Index"])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_no_view_has_a_known_barrier(opened: Opened, view: str, colours: str) -> None:
    opened.page.emulate_media(color_scheme=colours)  # type: ignore[arg-type]
    opened.search("red shoe")
    opened.page.locator("#left label[for=left-1-2]").click()
    opened.view(view)
    if view == "Index":
        expect(opened.page.locator(".coverage")).to_contain_text("documents")

    found = Axe().run(opened.page)

    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("view", ["Compare", "Judgements", "Measurements", "Index"])
def test_a_phone_shows_every_view_without_scrolling_sideways(opened: Opened, view: str) -> None:
    opened.page.set_viewport_size({"width": 360, "height": 740})
    opened.search("red shoe")
    opened.page.locator("#left label[for=left-1-2]").click()
    opened.view(view)

    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 360
