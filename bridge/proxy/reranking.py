"""The first documents of a fused ranking, read by the sidecar's cross-encoders: their texts, scores and order."""

from collections.abc import Mapping, Sequence

from bridge.proxy.own_searches import SHOWING_SHARE, OwnSearches
from bridge.proxy.planning import Plan
from bridge.proxy.ranked import Ranked
from bridge.proxy.sidecar import Sidecar, StageFailed
from bridge.records import Passage, RankedHit
from bridge.search import legs
from bridge.search.legs import Key
from bridge.search.reranking import cascade, rerank
from bridge.search.response import nearest_passage, source_texts

# More than a cross-encoder reads of a passage; the rest of a long text need not travel.
_READ_CHARS = 2_000


class Reranker:
    """Orders the candidates by what the cross-encoders say of them."""

    def __init__(self, searches: OwnSearches, sidecar: Sidecar) -> None:
        self._searches = searches
        self._sidecar = sidecar

    async def rerank(self, plan: Plan, fused: Sequence[RankedHit], ranked: Ranked) -> None:
        """The large cross-encoder over the first documents.

        Raises:
            StageFailed: no text could be had, or no scores (see `Sidecar.rerank`).
        """
        settings = plan.profile.rerank
        texts = await self._candidates(plan, fused[: settings.depth], ranked)
        scores = await self._scores(plan, texts, ranked, cascade_depth=None)
        ranked.hits = rerank(fused, scores, settings)
        ranked.stages += "+rerank"

    async def cascade(self, plan: Plan, fused: Sequence[RankedHit], ranked: Ranked) -> None:
        """The small cross-encoder over many documents, the large one over the best of them.

        Raises:
            StageFailed: as `rerank`; `cascade_unavailable` where the sidecar has no small cross-encoder.
        """
        settings = plan.profile.rerank
        self._sidecar.check_cascade()
        texts = await self._candidates(plan, fused[: settings.cascade.candidates], ranked)
        scores = await self._scores(plan, texts, ranked, cascade_depth=settings.cascade.depth)
        ranked.hits = cascade(fused, scores, settings)
        ranked.stages += "+cascade"

    async def _candidates(self, plan: Plan, candidates: Sequence[RankedHit], ranked: Ranked) -> dict[Key, str]:
        """What to read of each candidate, in their order: its text, or its nearest passage.

        A document without text that the caller may see cannot be judged; it is left out, and stays behind
        those that can.
        """
        body = legs.texts(plan.profile, [hit.key for hit in candidates], ranked.embedding)
        with ranked.timed("texts"):
            hits = await self._searches.hits(plan, body, stage="texts", deadline=_deadline(plan))
        fields = [text_field.name for text_field in plan.profile.text_fields]
        try:
            texts = {hit.key: source_texts(hit, fields) for hit in hits}
        except ValueError as error:
            raise StageFailed("texts_unavailable", f"a document's source cannot be read: {error}") from error
        for hit in hits:
            offsets = nearest_passage(hit, plan.profile.passages_field)
            # Where the caller sees less of the text than was embedded, offsets lead nowhere.
            if offsets is not None and (text := texts[hit.key][slice(*offsets)]):
                ranked.passages[hit.key] = Passage(text, *offsets)
                texts[hit.key] = text
        visible = {hit.key: texts[hit.key][:_READ_CHARS] for hit in candidates if texts.get(hit.key)}
        if not visible:
            raise StageFailed("texts_hidden", "the caller may see no text of the documents found")
        return visible

    async def _scores(
        self, plan: Plan, texts: Mapping[Key, str], ranked: Ranked, *, cascade_depth: int | None
    ) -> dict[Key, float]:
        with ranked.timed("rerank"):
            scores = await self._sidecar.rerank(
                plan.request.text, list(texts.values()), cascade_depth=cascade_depth, deadline=_deadline(plan)
            )
        return dict(zip(texts, scores, strict=True))


def _deadline(plan: Plan) -> float:
    return plan.deadline - plan.budget_s * SHOWING_SHARE
