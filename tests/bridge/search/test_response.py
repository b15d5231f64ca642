import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import AnswerNotUnderstood
from bridge.records import Document, Hit, SourcePosition
from bridge.search.filter_path import filtered
from bridge.search.response import (
    PASSAGE_HIGHLIGHT,
    OwnAnswer,
    ShownHit,
    doc_values,
    hidden,
    highlighted,
    hit_without,
    hits_of_legs,
    inner_hits,
    leg_rankings,
    nearest_passages,
    passages_to_read,
    scored_terms,
    shown_hit,
    source_texts,
    with_inner_hits,
    without_member,
)
from bridge.text import digest_in_stamp, field_texts, replace_lone_surrogates, source_digest
from ingest.sources.json_bytes import parse_object
from ingest.stages.stamps import text_stamp
from tests.bridge.proxy.scripted_index import PROFILE

POSITION = SourcePosition("docs", 0)

SOURCE = b'{ "n":12345678901234567890123 ,"d":1.10000000000000000001,"e":"\\u00e9","t":"red shoe","a":{"b":[1.0,1]}'
HIT = b'{"_index":"docs","_id":"1","_score":3.5,"_source":' + SOURCE + b',"neural":{"embedding":[0.5]}}}'


def answer(*hits: bytes) -> bytes:
    return (
        b'{"took":3,"timed_out":false,"_shards":{"total":1,"successful":1,"skipped":0,"failed":0},'
        b'"hits":{"total":{"value":7,"relation":"eq"},"max_score":3.5,"hits":[' + b",".join(hits) + b"]},"
        b'"aggregations":{"sterms#x":{"sum":1.0}}}'
    )


@pytest.mark.case("P24")
def test_everything_but_the_score_stays_byte_for_byte() -> None:
    own = OwnAnswer(answer(HIT))
    shown = shown_hit(own.hits[0], score=2.25, explanation=None)

    body = own.with_hits([shown], max_score=2.25, more={})

    expected = HIT.replace(b'"_score":3.5', b'"_score":2.25')
    assert body == answer(expected).replace(b'"max_score":3.5', b'"max_score":2.25')


def test_an_explanation_is_added_to_the_hit() -> None:
    shown = shown_hit(OwnAnswer(answer(HIT)).hits[0], score=1.0, explanation={"rank": 1})

    assert json.loads(bytes(shown["_bridge"])) == {"rank": 1}


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"hits":[]}', b'{"hits":{"hits":[{"_id":7}]}}', b'{"hits":{"total":1}}']
)
def test_what_is_no_search_answer_is_refused(body: bytes) -> None:
    with pytest.raises(AnswerNotUnderstood):
        OwnAnswer(body)


@pytest.mark.parametrize(
    ("total", "expected"), [(7, 9), ({"value": 7, "relation": "gte"}, {"value": 9, "relation": "gte"})]
)
def test_what_was_found_beyond_counts_in_the_total(total: Any, expected: Any) -> None:
    own = OwnAnswer(json.dumps({"hits": {"total": total, "hits": []}}).encode())

    assert json.loads(own.with_hits([], max_score=None, beyond=2, more={}))["hits"]["total"] == expected


@pytest.mark.parametrize(("hits", "own", "expected"), [(b"", b"null", 2.0), (HIT, b"null", None), (HIT, b"3.5", 2.0)])
def test_sorted_hits_have_no_best_score(hits: bytes, own: bytes, expected: float | None) -> None:
    body = b'{"hits":{"max_score":' + own + b',"hits":[' + hits + b"]}}"

    assert json.loads(OwnAnswer(body).with_hits([], max_score=2.0, more={}))["hits"]["max_score"] == expected


def test_a_total_that_was_not_wanted_is_not_added() -> None:
    assert (
        OwnAnswer(b'{"hits":{"hits":[]}}').with_hits([], max_score=None, beyond=2, more={}) == b'{"hits":{"hits":[]}}'
    )


def test_a_passage_stands_beside_the_applications_own_highlights() -> None:
    hit = OwnAnswer(answer(HIT[:-1] + b',"highlight":{"t":["<em>red</em>"]}}')).hits[0]

    shown = shown_hit(hit, score=1.0, passage="red shoe")

    assert json.loads(bytes(shown["highlight"])) == {"t": ["<em>red</em>"], PASSAGE_HIGHLIGHT: ["red shoe"]}


def test_text_is_read_as_ingest_reads_it() -> None:
    source = b'{"title":"A title","a.b":"dotted","c":[{"d":"one"},{"d":"two"}],"year":2020,"price":12.50}'
    hit = OwnAnswer(answer(b'{"_index":"docs","_id":"1","_source":' + source + b"}")).hits[0]

    assert (
        source_texts(hit, ["title", "a.b", "c.d", "gone", "year", "price"]) == "A title. dotted. one\ntwo. 2020. 12.50"
    )


@pytest.mark.parametrize(
    "source",
    [
        b'{"t": "a", "a": {"b.c": "half-dotted"}}',
        b'{"t": ["a", null, ["b", ""]], "a": [{"b": {"c": "x"}}, {"b": [{"c": 1.50}]}]}',
        b'{"t": null, "a": {"b": null}, "a.b.c": 1e400}',
        b'{"t": "rain \\ud83d", "a.b": {"c": "\xed\xa0\xbd"}}',
        b'{"t": true}',
        b"{}",
    ],
)
def test_a_text_that_is_shown_has_the_digest_of_one_that_was_read(source: bytes) -> None:
    fields = ["t", "a.b.c"]
    read = Document("1", source, field_texts(parse_object(replace_lone_surrogates(source)), fields), POSITION)

    assert source_digest(source, fields) == digest_in_stamp(text_stamp("recipe", read))


@pytest.mark.parametrize("source", [b'{"title":NaN-}', b'{"title":' + b"[" * 100_000, b"\xff", b""])
def test_texts_that_cannot_be_read_are_those_of_no_document(source: bytes) -> None:
    assert source_digest(source, ["title"]) is None


def test_nearest_passage_is_read_from_inner_hits() -> None:
    inner = (
        b'{"neural.passages":{"hits":{"hits":[{"fields":{"neural.passages.start":[7],"neural.passages.end":[12]}}]}}}'
    )
    hit = OwnAnswer(answer(HIT[:-1] + b',"inner_hits":' + inner + b"}")).hits[0]

    assert nearest_passages(hit, "neural.passages")[0] == (7, 12)
    assert nearest_passages(hit, "other.passages") == []
    assert nearest_passages(OwnAnswer(answer(HIT)).hits[0], "neural.passages") == []


def explained(value: float, description: str, *details: dict[str, Any]) -> dict[str, Any]:
    return {"value": value, "description": description, "details": list(details)}


def of_term(term: str, score: float) -> dict[str, Any]:
    described = f"Linear function on the _neural.terms field for the {term} feature, computed as w * S from:"
    weights = [explained(2.0, "w, weight of this function"), explained(score / 2, "S, feature value")]
    return explained(score, described, *weights)


@pytest.mark.parametrize(
    ("explanation", "scores"),
    [
        pytest.param(
            explained(4.0, "sum of:", explained(0.0, "match on required clause, product of:"), of_term("shoe", 4.0)),
            {"shoe": 4.0},
            id="one term",
        ),
        pytest.param(
            explained(5.0, "sum of:", explained(5.0, "sum of:", of_term("##s", 1.0), of_term("shoe", 4.0))),
            {"shoe": 4.0, "##s": 1.0},
            id="several",
        ),
        pytest.param(explained(4.0, "a score in other words"), {}, id="words that nobody knows"),
        pytest.param(["no", "tree"], {}, id="no explanation"),
    ],
)
def test_what_each_term_gave_is_read_from_the_clusters_explanation(explanation: Any, scores: dict[str, float]) -> None:
    hit = ShownHit(("docs", "a"), 1.0, {"_explanation": msgspec.Raw(msgspec.json.encode(explanation))})
    assert list(scored_terms(hit).items()) == list(scores.items())
    assert scored_terms(ShownHit(("docs", "a"), 1.0, {})) == {}


def test_legs_keep_the_first_of_a_document_found_twice() -> None:
    found = ((1, 3), (2, 2), (1, 1))
    hits = b",".join(b'{"_index":"d","_id":"%d","_score":%d}' % each for each in found)
    body = b'{"responses":[{"hits":{"hits":[' + hits + b']},"status":200}]}'

    assert leg_rankings(body, ["vector"]) == {"vector": [Hit("d", "1", 3.0), Hit("d", "2", 2.0)]}


def test_a_leg_has_the_doc_values_and_the_document_that_it_asked_for() -> None:
    hit = b'{"_index":"d","_id":"1","_score":1.0,"fields":{"s":["r.t"]},"_source":{"t":"rain \\ud83d"}}'

    found = leg_rankings(b'{"responses":[{"hits":{"hits":[%b]},"status":200}]}' % hit, ["vector"])

    assert found == {"vector": [Hit("d", "1", 1.0, {"s": ["r.t"]}, b'{"t":"rain \\ufffd"}')]}


def test_a_leg_that_asks_for_doc_values_alone_has_its_ids_there() -> None:
    hits = b",".join(b'{"_index":"d","_score":%d,"fields":{"i":["%d"]}}' % each for each in ((3, 1), (2, 2)))
    body = b'{"responses":[{"hits":{"hits":[%b]},"status":200}]}' % hits

    found = leg_rankings(body, ["vector"], id_field="i")

    assert found == {"vector": [Hit("d", "1", 3.0, {"i": ["1"]}), Hit("d", "2", 2.0, {"i": ["2"]})]}


def test_hits_of_legs_are_shown_as_the_cluster_wrote_them() -> None:
    hits = [
        b'{"_index":"d","_id":"%d", "_version":3,"_score":%b,"_source":{"t": 1.50, "u":"\\u00e9"}}' % each
        for each in ((1, b"2.5"), (2, b"null"))
    ]
    body = b'{"responses":[{"hits":{"hits":[%b]}},{"error":{},"status":500},{"hits":{"hits":[%b]}}]}' % tuple(hits)

    shown = hits_of_legs(body)

    assert [(hit.key, hit.score) for hit in shown] == [(("d", "1"), 2.5), (("d", "2"), 0.0)]
    assert [bytes(hit.members["_source"]) for hit in shown] == [b'{"t": 1.50, "u":"\\u00e9"}'] * 2
    assert [list(hit.members) for hit in shown] == [["_index", "_id", "_version", "_score", "_source"]] * 2


def test_hits_of_legs_with_halves_of_surrogate_pairs_are_left_out() -> None:
    hit = b'{"_index":"d","_id":"1","_score":1.0,"_source":{"t":"rain \\ud83d"}}'

    assert hits_of_legs(b'{"responses":[{"hits":{"hits":[%b]},"status":200}]}' % hit) == []


def test_a_leg_that_failed_tells_why() -> None:
    cause = b'{"type":"number_format_exception","reason":"For input string: red shoe"}'
    error = b'{"root_cause":[%b],"type":"query_shard_exception","reason":"red shoe","caused_by":%b}' % (cause, cause)
    body = (
        b'{"responses":[{"error":%b,"status":400},{"status":500},'
        b'{"_shards":{"failed":2},"hits":{"hits":[]},"status":200}]}' % error
    )

    assert leg_rankings(body, ["a", "b", "c"]) == {
        "a": "malformed: query_shard_exception, number_format_exception",
        "b": "no hits",
        "c": "2 shards failed",
    }


@pytest.mark.parametrize("body", [b'{"responses":[]}', b"{}", b'{"responses":[{"hits":{"hits":[]}},{"hits"'])
def test_a_msearch_answer_with_another_number_of_items_is_refused(body: bytes) -> None:
    with pytest.raises(AnswerNotUnderstood):
        leg_rankings(body, ["a"])


OURS = b',"neural":{"embedding":[0.5]}'
STORED_HIT = b'{ "_index":"docs", "_id":"1","_score":3.5,"_source":' + SOURCE + OURS + b"}}"
TOP_HITS = b'"aggregations":{"top_hits#x":{"hits":{"hits":[' + STORED_HIT + b"]}}}"
INNER = b'{"_index":"docs","_id":"2","inner_hits":{"same":{"hits":{"hits":[' + STORED_HIT + b"]}}}}"


def test_our_object_is_cut_out_wherever_documents_are_shown() -> None:
    body = b'{"took":1, "hits" : {"hits": [' + STORED_HIT + b",\n" + INNER + b"]}," + TOP_HITS + b"}"

    assert hidden(body, ["neural"]) == body.replace(OURS, b"")


def test_our_fields_are_left_out_of_fields_and_highlights() -> None:
    hit = b'{"_index":"d","fields":{"neural.stamp":["x"],"t":["y"]},"highlight":{"neural.predicted_queries":["z"]}}'

    assert hidden(hit, ["neural"]) == b'{"_index":"d","fields":{"t":["y"]},"highlight":{}}'
    # `filter_path` may have left no index.
    nameless = b'{"hits":{"hits":[{"fields":{"neural.stamp":["x"],"t":["y"]}}]}}'
    assert hidden(nameless, ["neural"]) == b'{"hits":{"hits":[{"fields":{"t":["y"]}}]}}'
    aggregations = b'{"aggregations":{"fields":{"neural.stamp":{"value":1}}}}'
    assert hidden(aggregations, ["neural"]) == aggregations


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>neural</html>",
        b'{"hits":"neural"',
        b'{"hits":{"hits":[{"_source":{"t":"neural","neuralgic":1}}]}}',
        b'{"hits":{"hits":[{"_source":{"t":"a \\"neural\\":{} b"}}]}}',
        b'{"suggest":{"neural":[{"fields":{"neural":1}}]}}',
    ],
)
def test_what_is_not_ours_stays(body: bytes) -> None:
    assert hidden(body, ["neural"]) == body


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(max_size=8), _values, max_size=4),
    _values,
    st.integers(0, 4),
    st.sampled_from([(",", ":"), (", ", ": "), (" ,", " :")]),
)
def test_a_member_can_be_cut_out_of_any_object(
    others: dict[str, Any], ours: Any, position: int, separators: tuple[str, str]
) -> None:
    others.pop("neural", None)
    members = list(others.items())
    members.insert(position, ("neural", ours))
    source = json.dumps(dict(members), separators=separators).encode()

    assert json.loads(without_member(source, "neural")) == others


HALF_HIT = (
    b'{"_index":"docs","_id":"1","_score":1.0,"_source":{"t":"rain \\ud83d","neural":{"stamp":"s"}},'
    b'"highlight":{"t":["<em>rain</em> \\ud83d"]},"sort":["\\uDE00"]}'
)


def test_inner_hits_of_a_group_stand_beside_those_of_the_query() -> None:
    [of_group, head] = OwnAnswer(
        answer(
            b'{"_index":"d","_id":"1","fields":{"n":[7]},"inner_hits":{"nested":{"a":1},"all":{"b": 2.0}}}',
            b'{"_index":"d","_id":"2","inner_hits":{"nested":{"c":"\\ud83d"}}}',
        )
    ).hits

    inner = inner_hits(of_group, ["all", "newest"])

    assert doc_values(of_group) == {"n": [7]}
    assert inner == b'{"all":{"b": 2.0}}'
    assert with_inner_hits(head, inner).members["inner_hits"] == msgspec.Raw(
        b'{"nested":{"c":"\\ud83d"},"all":{"b": 2.0}}'
    )
    assert (inner_hits(head, ["all"]), doc_values(head)) == (b"{}", {})


@pytest.mark.case("P54")
def test_halves_of_surrogate_pairs_come_back_byte_for_byte() -> None:
    own = OwnAnswer(answer(HALF_HIT))

    assert own.with_hits([hit.members for hit in own.hits], max_score=3.5, more={}) == answer(HALF_HIT)
    assert hidden(answer(HALF_HIT), ["neural"]) == answer(HALF_HIT.replace(b',"neural":{"stamp":"s"}', b""))
    assert hit_without(own.hits[0].members, "neural")["_source"] == msgspec.Raw(b'{"t":"rain \\ud83d"}')
    shown = shown_hit(own.hits[0], score=1.0, passage="rain")
    assert shown["highlight"] == msgspec.Raw(b'{"t":["<em>rain</em> \\ud83d"],"_bridge.passage":["rain"]}')
    assert filtered(answer(HALF_HIT), "hits.hits.sort") == b'{"hits":{"hits":[{"sort":["\\uDE00"]}]}}'


@pytest.mark.case("P54")
def test_halves_of_surrogate_pairs_are_read_as_replacement_characters() -> None:
    hit = OwnAnswer(answer(HALF_HIT)).hits[0]

    assert source_texts(hit, ["t"]) == "rain \ufffd"
    assert highlighted(hit, "t") == ["<em>rain</em> \ufffd"]


@pytest.mark.case("P54")
@pytest.mark.parametrize("source", [b'{"title":NaN-}', b'{"title":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"\xff"])
def test_a_document_that_cannot_be_read_is_left_out_alone(source: bytes) -> None:
    hits = [
        ShownHit(("docs", doc_id), 1.0, {"_source": msgspec.Raw(each)})
        for doc_id, each in [("a", source), ("b", b'{"title":"red"}')]
    ]

    assert list(passages_to_read(hits, [hit.key for hit in hits], PROFILE)) == [("docs", "b")]
