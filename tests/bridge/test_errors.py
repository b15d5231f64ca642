"""Exit codes and reasons."""

import pytest

from bridge import errors
from bridge.errors import BridgeError, exit_code


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.SettingsError, 2),
        (errors.IndexUnsuitable, 2),
        (errors.ClusterUnreachable, 4),
        (errors.SidecarUnreachable, 4),
        (errors.ClusterBlocked, 5),
        (errors.AnswerNotUnderstood, 1),
        (errors.ModelError, 1),
    ],
)
def test_the_nearest_class_decides_the_exit_code(kind: type[BridgeError], code: int) -> None:
    assert exit_code(kind("message")) == code


def test_a_failed_stage_has_a_reason_for_the_header_and_a_detail_for_the_log() -> None:
    failed = errors.CascadeMissing("the reranker knows no cascades")
    assert (failed.reason, str(failed)) == ("cascade_unavailable", "the reranker knows no cascades")


def test_the_outline_names_every_error() -> None:
    kinds = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, BridgeError)}
    assert all(name in (errors.__doc__ or "") for name in kinds)
