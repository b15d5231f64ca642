"""What an installation weighs counts what the package needs, and nothing of its extras."""

from benchmarks.start import PACKAGE, needed


def test_all_that_is_needed_counts_and_no_extra() -> None:
    found = needed(PACKAGE)
    assert {PACKAGE, "numpy", "onnxruntime", "aiohttp", "frozenlist"} <= found.keys()  # the last one for aiohttp
    assert found.keys().isdisjoint({"torch", "ray", "pytest", "ruff"})


def test_what_is_not_installed_weighs_nothing() -> None:
    assert needed("no-such-package-here") == {}
