"""Only pages that were shown can be clicked, and not for ever."""

import base64
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bridge.errors import SettingsError
from bridge.proxy.experiments.impressions import MAX_AGE_S, MAX_CLICKS, MAX_DOCUMENTS, Impressions
from bridge.proxy.transport.refusals import Refused


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.case("S16")
def test_each_document_of_a_shown_page_is_clicked_once() -> None:
    impressions = Impressions(b"k" * 32)
    page = impressions.name(["a", "Ä/ö", ""])

    assert [impressions.clicked(page, document) for document in ("a", "Ä/ö", "", "a")] == [True, True, True, False]


@pytest.mark.case("S16")
def test_any_process_with_the_key_takes_the_click() -> None:
    page = Impressions(b"k" * 32).name(["a"])

    assert Impressions(b"k" * 32).clicked(page, "a")
    with pytest.raises(Refused, match="X-Bridge-Impression"):
        Impressions(b"l" * 32).clicked(page, "a")


@pytest.mark.case("S16")
@pytest.mark.parametrize("made_up", ["", "a", "0123456789abcdef", "é", "=" * 8, "AAAA" * 1000])
def test_made_up_impressions_are_refused(made_up: str) -> None:
    with pytest.raises(Refused, match="X-Bridge-Impression") as refused:
        Impressions(b"k" * 32).clicked(made_up, "a")
    assert refused.value.status == 400


@pytest.mark.case("S16")
def test_a_changed_impression_is_refused_whichever_byte_was_changed() -> None:
    impressions = Impressions(b"k" * 32)
    content = base64.urlsafe_b64decode(impressions.name(["a", "b"]) + "==")

    for at in range(len(content)):
        changed = content[:at] + bytes((content[at] ^ 1,)) + content[at + 1 :]
        with pytest.raises(Refused):
            impressions.clicked(base64.urlsafe_b64encode(changed).decode().rstrip("="), "a")


@pytest.mark.case("S16")
def test_documents_that_the_page_did_not_show_are_refused() -> None:
    impressions = Impressions(b"k" * 32)
    many = [str(i) for i in range(MAX_DOCUMENTS + 1)]

    with pytest.raises(Refused, match="document"):
        impressions.clicked(impressions.name(["a"]), "b")
    with pytest.raises(Refused, match=f"first {MAX_DOCUMENTS}"):
        impressions.clicked(impressions.name(many), many[-1])
    assert impressions.clicked(impressions.name(many), many[-2])
    assert len(impressions.name(many)) < 600


@pytest.mark.case("S16")
def test_a_page_is_clicked_within_a_day() -> None:
    clock = Clock()
    impressions = Impressions(b"k" * 32, clock=clock)
    page = impressions.name(["a"])

    clock.now += MAX_AGE_S
    assert impressions.clicked(page, "a")
    clock.now += 1
    with pytest.raises(Refused, match="older than a day"):
        impressions.clicked(page, "a")


@pytest.mark.case("S16")
def test_a_page_has_a_bounded_number_of_clicks() -> None:
    impressions = Impressions(b"k" * 32)
    page, other = impressions.name(["a"]), impressions.name(["a"])

    taken = [impressions.clicked(page, "a") for _ in range(MAX_CLICKS)]
    assert taken == [True] + [False] * (MAX_CLICKS - 1)
    with pytest.raises(Refused) as refused:
        impressions.clicked(page, "a")
    assert refused.value.status == 429
    assert impressions.clicked(other, "a")


@pytest.mark.case("S16")
def test_processes_share_one_key_that_nobody_else_reads(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    with ThreadPoolExecutor(8) as processes:
        together = list(processes.map(lambda _: Impressions.beside(log), range(8)))

    page = together[0].name(["a"])
    assert all(impressions.clicked(page, "a") for impressions in together)
    [file] = tmp_path.iterdir()
    assert (file.name, stat.S_IMODE(file.stat().st_mode)) == ("events.jsonl.key", 0o600)


@pytest.mark.case("S16")
def test_a_key_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl.key").write_bytes(b"short")

    with pytest.raises(SettingsError, match=r"events\.jsonl\.key holds no key of 32 bytes"):
        Impressions.beside(tmp_path / "events.jsonl")
    with pytest.raises(SettingsError, match=r"other\.jsonl\.key beside proxy\.event_log, cannot be made"):
        Impressions.beside(tmp_path / "nowhere" / "other.jsonl")
