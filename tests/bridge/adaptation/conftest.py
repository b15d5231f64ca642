"""What training needs, for models that are trained on an index."""

from tests.bridge.training.conftest import toy_base

__all__ = ["toy_base"]
