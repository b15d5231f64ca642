"""The first documents of a fused ranking, read by the sidecar's cross-encoders: their scores and order."""

from collections.abc import Mapping, Sequence

from bridge.model_servers.shapes import CascadeRequest
from bridge.proxy.upgrade.cluster_client import OwnSearches, deadline_of_ranking
from bridge.proxy.upgrade.model_client import Sidecar
from bridge.proxy.upgrade.planning import Plan
from bridge.proxy.upgrade.ranked import Ranked
from bridge.proxy.upgrade.texts import Texts
from bridge.records import Passage, RankedHit
from bridge.search.legs import Key
from bridge.search.reranking import cascade, fused_scores, of_passages, rerank

# More than a cross-encoder reads of a passage; the rest of a long text need not travel.
_READ_CHARS = 2_000


class Reranker:
    """Orders the candidates by what the cross-encoders say of them."""

    def __init__(self, searches: OwnSearches, sidecar: Sidecar) -> None:
        self._texts = Texts(searches)
        self._sidecar = sidecar

    async def rerank(self, plan: Plan, fused: Sequence[RankedHit], ranked: Ranked) -> None:
        """The large cross-encoder over the first documents.

        Raises:
            StageFailed: no text could be had (see `Texts.passages`), or no scores (see `Sidecar.rerank`).
        """
        settings = plan.profile.rerank
        candidates = fused[: settings.depth]
        read = await self._texts.passages(
            plan, candidates, ranked, deadline=deadline_of_ranking(plan), per_document=settings.passages
        )
        scores = await self._scores(plan, read, ranked)
        _note_best(plan, read, scores, ranked)
        ranked.hits = rerank(
            fused, {key: of_passages(each, settings.passage_scores) for key, each in scores.items()}, settings
        )
        ranked.stages += "+rerank"

    async def cascade(self, plan: Plan, fused: Sequence[RankedHit], ranked: Ranked) -> None:
        """The small cross-encoder over many documents, one passage of each, the large one over the best of them.

        Raises:
            StageFailed: as `rerank`; `cascade_unavailable` where the sidecar has no small cross-encoder.
        """
        settings = plan.profile.rerank
        self._sidecar.check_cascade()
        candidates = fused[: settings.cascade.candidates]
        read = await self._texts.passages(plan, candidates, ranked, deadline=deadline_of_ranking(plan))
        prior = fused_scores([hit for hit in candidates if hit.key in read])
        scores = await self._scores(
            plan, read, ranked, cascade=CascadeRequest(settings.cascade.depth, prior, settings.blend)
        )
        _note_best(plan, read, scores, ranked)
        ranked.hits = cascade(fused, {key: score for key, [score] in scores.items()}, settings)
        ranked.stages += "+cascade"

    async def _scores(
        self,
        plan: Plan,
        read: Mapping[Key, Sequence[Passage]],
        ranked: Ranked,
        *,
        cascade: CascadeRequest | None = None,
    ) -> dict[Key, list[float]]:
        """The cross-encoders' logits of each document's passages, in their order."""
        texts = [passage.text[:_READ_CHARS] for passages in read.values() for passage in passages]
        with ranked.timed("rerank"):
            scores = iter(
                await self._sidecar.rerank(
                    plan.request.text, texts, cascade=cascade, deadline=deadline_of_ranking(plan)
                )
            )
        return {key: [next(scores) for _ in passages] for key, passages in read.items()}


def _note_best(
    plan: Plan, read: Mapping[Key, Sequence[Passage]], scores: Mapping[Key, Sequence[float]], ranked: Ranked
) -> None:
    """Notes which passage of each document was the best; a document of one passage has nothing to tell."""
    if plan.profile.passages.layout == "nested" and ranked.embedding is not None:
        for key, passages in read.items():
            of_this = scores[key]
            ranked.passages[key] = passages[of_this.index(max(of_this))]
