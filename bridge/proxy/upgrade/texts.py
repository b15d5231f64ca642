"""What is read of documents: the passages nearest to the query, as far as the caller may see them."""

from collections.abc import Sequence

from bridge.errors import StageFailed
from bridge.proxy.upgrade.cluster_client import OwnSearches
from bridge.proxy.upgrade.planning import Plan
from bridge.proxy.upgrade.ranked import Ranked
from bridge.records import Passage, RankedHit
from bridge.search import legs
from bridge.search.legs import Key
from bridge.search.response import ShownHit, nearest_passages, source_texts


class Texts:
    """Fetches texts in the caller's name."""

    def __init__(self, searches: OwnSearches) -> None:
        self._searches = searches

    async def passages(
        self, plan: Plan, hits: Sequence[RankedHit], ranked: Ranked, *, deadline: float, per_document: int = 1
    ) -> dict[Key, list[Passage]]:
        """What to read of each document, in the order of `hits`: its nearest passages, best first, or its whole
        text where it has no passages or the query no embedding.

        A document without text that the caller may see cannot be judged, and is left out.

        Raises:
            StageFailed: `texts_unavailable`, `texts_slow`, `texts_forbidden`; `texts_hidden` where none is visible.
        """
        body = legs.texts(plan.profile, [hit.key for hit in hits], ranked.embedding, passages=per_document)
        with ranked.timed("texts"):
            found = await self._searches.hits(plan, body, stage="texts", deadline=deadline)
        try:
            passages = {hit.key: _passages(plan, hit) for hit in found}
        except ValueError as error:
            raise StageFailed("texts_unavailable", f"a document's source cannot be read: {error}") from error
        visible = {hit.key: passages[hit.key] for hit in hits if passages.get(hit.key)}
        if not visible:
            raise StageFailed("texts_hidden", "the caller may see no text of the documents found")
        return visible


def _passages(plan: Plan, hit: ShownHit) -> list[Passage]:
    text = source_texts(hit, plan.profile.text_fields)
    if not text:
        return []
    nearest = [
        Passage(stretch, start, end)
        for start, end in nearest_passages(hit, plan.profile.passages_field)
        # Where the caller sees less of the text than was embedded, offsets lead nowhere.
        if (stretch := text[start:end])
    ]
    return nearest or [Passage(text, 0, len(text))]
