"""The house stays walkable: few files on the way of a search or a document, no wide folder, no circle.

`python -m tests.house` prints the figures. A limit that is met by stuffing is missed: merge what answers one question.
"""

from tests import house


async def test_a_reranked_search_enters_few_files() -> None:
    entered = await house.files_of_a_search()
    assert len(entered) <= house.LIMITS["search"], entered


def test_a_document_enters_few_files() -> None:
    entered = house.files_of_a_document()
    assert len(entered) <= house.LIMITS["document"], entered


async def test_a_rerank_request_enters_few_files() -> None:
    entered = await house.files_of_a_rerank_request()
    assert len(entered) <= house.LIMITS["rerank"], entered


def test_no_folder_is_wide() -> None:
    folder, width = house.widest_folder()
    assert width <= house.LIMITS["widest_folder"], folder


def test_files_do_not_import_each_other_in_circles() -> None:
    assert house.circles() == []


def test_every_module_has_a_test_file_of_its_own() -> None:
    assert house.untested() == []


def test_the_walk_is_traced_to_its_ends() -> None:
    """A tracer that sees nothing would meet every limit."""
    assert {"ingest/sources/files.py", "ingest/writing/writer.py"} <= set(house.files_of_a_document())
