"""`neural-bridge index`, as it is typed."""

from pathlib import Path

import msgspec
import pytest
from opensearchpy import OpenSearch

from bridge.cluster.index import look
from bridge.cluster.schema import Bm25
from bridge.errors import UsageError
from bridge.profile import META_KEY, Calibration, Measurement
from tests.bridge.commands.products import Call, printed
from tests.command_line import answer, output, run
from tests.fake_bulk import FakeCluster


def test_show_counts_documents_and_names_models(cluster: FakeCluster) -> None:
    shown = answer("index", "show", "shop")
    assert (shown["index"], shown["documents"]) == ("shop", 2)
    assert shown["profile"]["encoder"]["name"] == "toy"
    assert "  encoder      toy@000000000000, 4 dimensions" in output("index", "show", "shop").splitlines()


@pytest.mark.parametrize(("encoder", "shown"), [("toy@000000000000", True), ("another@000000000000", False)])
def test_show_names_a_calibration_if_it_counts(cluster: FakeCluster, encoder: str, shown: bool) -> None:
    made = Calibration(40.0, 0.7, encoder, 1, 0.974, 0.95, 0.99, 148, Measurement("by hand", 40, "AUC", ""))
    cluster.mapping["_meta"][META_KEY]["calibration"] = msgspec.to_builtins(made)
    lines = output("index", "show", "shop").splitlines()
    assert ("  confidence   calibrated, AUC 0.974" in lines) == shown


def test_an_index_without_a_profile_is_not_enriched(cluster: FakeCluster) -> None:
    cluster.mapping = {"properties": {"title": {"type": "text"}}}
    assert output("index", "show", "shop") == "shop: 2 documents; not enriched by the bridge\n"


def test_rules_change_alone_and_stay(cluster: FakeCluster) -> None:
    changed = answer("index", "rules", "shop", "--quoted", "upgrade", "--scripts", "Latin, greek")["rules"]
    assert (changed["leave_quoted"], changed["scripts"]) == (False, ["latin", "greek"])
    assert cluster.mapping["_meta"][META_KEY]["rules"]["scripts"] == ["latin", "greek"]
    lines = output("index", "rules", "shop", "--scripts", "any").splitlines()
    assert "quoted          upgrade" in lines
    assert "scripts         any" in lines


@pytest.mark.parametrize("rule", ["boosts", "diversity"])
def test_how_much_something_counts_is_a_rule(cluster: FakeCluster, rule: str) -> None:
    assert answer("index", "rules", "shop", f"--{rule}", "0.5")["rules"][rule] == 0.5
    assert f"{rule:<15} 0.5" in output("index", "rules", "shop").splitlines()
    assert cluster.mapping["_meta"][META_KEY]["rules"][rule] == 0.5


def test_whether_sentences_are_shown_is_a_rule(cluster: FakeCluster) -> None:
    assert answer("index", "rules", "shop", "--sentences", "show")["rules"]["sentences"] is True
    assert "sentences       show" in output("index", "rules", "shop").splitlines()
    assert answer("index", "rules", "shop", "--sentences", "omit")["rules"]["sentences"] is False


def test_repair_is_a_rule_that_is_turned_on_and_off(cluster: FakeCluster) -> None:
    assert "repair          off" in output("index", "rules", "shop").splitlines()
    assert answer("index", "rules", "shop", "--repair", "on")["rules"]["repair"] is True
    assert "repair          on" in output("index", "rules", "shop", "--boosts", "1").splitlines()
    assert answer("index", "rules", "shop", "--repair", "off")["rules"]["repair"] is False


def test_rules_that_contradict_each_other_are_refused(cluster: FakeCluster) -> None:
    with pytest.raises(UsageError, match="--always and --confident-lead contradict each other"):
        run("index", "rules", "shop", "--always", "--confident-lead", "2")


def test_delete_asks_unless_told_not_to(cluster: FakeCluster) -> None:
    with pytest.raises(UsageError, match="give --yes"):
        run("index", "delete", "shop", input="")
    assert all(request.method != "DELETE" for request in cluster.requests)
    assert answer("index", "delete", "shop", "--yes") == {"index": "shop", "deleted": True, "documents": 2}
    assert any(request.method == "DELETE" for request in cluster.requests)


@pytest.mark.parametrize(("content", "message"), [("{", "is not JSON"), ("[]", "expected")])
def test_a_mapping_file_that_is_none_is_refused(
    cluster: FakeCluster, tmp_path: Path, content: str, message: str
) -> None:
    file = tmp_path / "mapping.json"
    file.write_text(content)
    with pytest.raises(UsageError, match=message):
        run("index", "create", "new", "--text-field", "title", "--mapping", str(file))
    assert all(request.method == "GET" for request in cluster.requests)


def test_rules_of_an_index_that_is_enriched_beside_are_in_its_companion(call: Call, products_beside: str) -> None:
    assert printed(call("index", "rules", products_beside, "--quoted", "upgrade", "--json"))["index"] == products_beside
    profile = printed(call("index", "show", products_beside, "--json"))["profile"]
    assert (profile["rules"]["leave_quoted"], profile["beside"]) == (False, products_beside)


def test_an_index_scores_words_by_the_parameters_it_was_created_with(
    call: Call, opensearch: OpenSearch, fresh_index: str
) -> None:
    call("index", "create", fresh_index, "--text-field", "title", "--b", "0.4")
    assert Bm25.of(look(opensearch, fresh_index).settings) == Bm25(1.2, 0.4)
    assert "scored by BM25, k1 1.2, b 0.4" in call("plan", fresh_index, "--text-field", "title").stdout
