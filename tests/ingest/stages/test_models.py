"""Profiles name the models that enrich, whether these are opened or only looked up."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from bridge.errors import ModelError
from bridge.models.artifact import ModelFolder
from bridge.profile import STATIC_FUSION, FusionSettings, ModelReference, SparseSettings
from bridge.settings import IngestSettings
from ingest.stages.models import load_models, planned_profile, profile_for, profile_like
from tests.ingest.toys import models_with_terms, toy_models
from tests.toys import (
    make_toy_cross_encoder,
    make_toy_encoder,
    make_toy_query_generator,
    make_toy_sparse_encoder,
    make_toy_static_encoder,
)


def settings(folder: Path) -> IngestSettings:
    return IngestSettings(
        encoder=str(make_toy_encoder(folder / "encoder").path),
        generator=str(make_toy_query_generator(folder / "generator").path),
        filter_model=str(make_toy_cross_encoder(folder / "reader").path),
    )


def test_a_planned_profile_is_the_one_of_the_opened_models(tmp_path: Path) -> None:
    wanted = settings(tmp_path)
    models = load_models(wanted)
    assert models.scorer is not None
    assert planned_profile(wanted, ["title"]) == profile_for(models, ["title"], object_field=wanted.object_field)


@pytest.mark.parametrize(
    ("make", "fusion"), [(make_toy_encoder, FusionSettings()), (make_toy_static_encoder, STATIC_FUSION)]
)
def test_vectors_of_a_static_encoder_weigh_less_than_words(
    tmp_path: Path, make: Callable[[Path], ModelFolder], fusion: FusionSettings
) -> None:
    wanted = IngestSettings(encoder=str(make(tmp_path / "encoder").path), generator=None)
    assert profile_for(load_models(wanted), ["title"]).fusion == fusion
    assert planned_profile(wanted, ["title"]).fusion == fusion


def test_without_a_generator_no_model_for_queries_is_opened(tmp_path: Path) -> None:
    models = load_models(settings(tmp_path).model_copy(update={"generator": None}))
    assert (models.generator, models.generator_reference, models.scorer) == (None, None, None)


def test_a_sparse_encoder_is_opened_if_the_settings_name_one(tmp_path: Path) -> None:
    folder = make_toy_sparse_encoder(tmp_path / "sparse")
    update = {"sparse_encoder": str(folder.path), "top_terms": 64, "sparse_queries": "model"}
    wanted = settings(tmp_path).model_copy(update=update)
    models = load_models(wanted)
    assert models.sparse == SparseSettings(ModelReference(folder.manifest.name, folder.digest), 64, "model")
    assert models.sparse_encoder is not None
    assert models.sparse_encoder.encode(["cat cat dog"]) == [{"cat": 2.0, "dog": 1.0}]
    planned = planned_profile(wanted, ["title"])
    assert planned == profile_for(models, ["title"], object_field=wanted.object_field)
    assert planned.sparse == models.sparse


def test_only_an_index_that_has_terms_goes_on_with_them() -> None:
    models = models_with_terms()
    existing = profile_for(models, ["title"])
    assert profile_like(existing, models).sparse == models.sparse
    assert profile_like(msgspec.structs.replace(existing, sparse=None), models).sparse is None


def test_an_enriched_index_keeps_what_is_its_own() -> None:
    models = toy_models()
    first = profile_for(models, ["title"], object_field="ours")
    existing = msgspec.structs.replace(first, encoder=ModelReference("older", "2" * 12), generation=3)
    assert profile_like(existing, models) == msgspec.structs.replace(first, generation=3)
    assert profile_like(msgspec.structs.replace(existing, generator=None), models).generator is None
    again = profile_for(models, ["title"], kept=existing)
    assert (again.object_field, again.generation) == ("ours", 3)


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no-such-model"):
        planned_profile(IngestSettings(encoder=str(tmp_path / "no-such-model")), ["title"])
