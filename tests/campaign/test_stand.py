"""Documents of the campaign's indices."""

import random

from tests.campaign.stand import N_DOCUMENTS, documents


def test_documents_are_the_same_each_time_and_hold_what_seldom_stands_in_one() -> None:
    made = documents(random.Random(1))

    assert made == documents(random.Random(1))
    assert len(made) == N_DOCUMENTS
    assert any("item.info" in document for document, _ in made.values())
    assert {bool(predicted) for _, predicted in made.values()} == {True, False}
