"""Takes the pictures of the page that the documents show, from a stack that runs: `scripts/demo --keep` leaves one.

.venv/bin/python -m scripts.screenshots http://127.0.0.1:ADMIN_PORT INDEX "a query"
"""

import argparse
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser import headless_browser

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
WAIT_MS = 120_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("admin_url", help="Address of the proxy's admin listener.")
    parser.add_argument("index", help="An enriched index.")
    parser.add_argument("query", help="What to search for.")
    given = parser.parse_args()
    PICTURES.mkdir(exist_ok=True)
    expect.set_options(timeout=WAIT_MS)
    with headless_browser() as browser:
        page = browser.new_page(viewport={"width": 1360, "height": 940})
        page.set_default_timeout(WAIT_MS)
        page.goto(f"{given.admin_url}/_bridge/", timeout=WAIT_MS)
        page.locator("#index-name").fill(given.index)
        page.locator("#index-name").press("Enter")
        _search(page, given.query)
        _search(page, given.query)  # the first one loads what the second one finds in caches
        _take(page, "compare")
        page.get_by_role("navigation").get_by_role("link", name="Measurements").click()
        _take(page, "measurements")
        page.get_by_role("navigation").get_by_role("link", name="Index").click()
        expect(page.locator(".coverage").first).to_contain_text("documents carry a stamp")
        _take(page, "index")
        page.get_by_role("navigation").get_by_role("link", name="Compare").click()
        page.set_viewport_size({"width": 390, "height": 844})
        page.emulate_media(color_scheme="dark")
        _take(page, "phone")


def _search(page: Page, query: str) -> None:
    page.get_by_label("Query", exact=True).fill(query)
    with page.expect_response("**/_search"), page.expect_response("**/_search"):
        page.get_by_role("button", name="Search").click()
    expect(page.locator("#notice")).to_contain_text("hits shown")


def _take(page: Page, name: str) -> None:
    page.screenshot(path=PICTURES / f"{name}.png")


if __name__ == "__main__":
    main()
