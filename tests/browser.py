"""A real browser without a window, for tests of the page: the system's own, driven by Playwright."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


@contextmanager
def headless_browser() -> Iterator[Browser]:
    """A browser that ends with the block; skips the test where the machine has none.

    `BRIDGE_TEST_BROWSER` names the program where it is not on the path.
    """
    program = os.environ.get("BRIDGE_TEST_BROWSER") or next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip(f"no browser on the path ({', '.join(_NAMES)}): `apt-get install chromium-headless-shell`")
    with sync_playwright() as playwright:
        # Chromium's own sandbox does not work for root, as which tests in a container run.
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=program, args=sandbox, timeout=120_000)
        yield browser
        browser.close()
