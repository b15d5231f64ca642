"""The proxy before a scripted cluster, for commands that search."""

from tests.bridge.proxy.conftest import make_stack

__all__ = ["make_stack"]
