"""What the tests find and click on the dashboard's page."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page

TOKEN = "Zk3vq0YJ5b-8sWmR1tXeL9aHcU7dNfGi"
ALL_CLOSED = "All 2 circuits are closed"


def verdict(page: Page) -> Locator:
    """The sentence about what is wrong now."""
    return page.get_by_role("heading", level=1)


def circuit(page: Page, name: str) -> Locator:
    """The entry of one circuit in the list."""
    return page.locator(f'[id="circuit-{name}"]')


def switch(page: Page, mode: str) -> None:
    """Click a switch of the sandbox."""
    page.locator("#modes").get_by_text(mode, exact=True).click(force=True)


def unlock(page: Page, token: str = TOKEN) -> None:
    """Enter the token of the administration."""
    page.get_by_role("button", name="Unlock admin").click()
    page.get_by_role("textbox", name="Token").fill(token)
    page.get_by_role("button", name="Unlock", exact=True).click()


def findings(page: Page) -> list[str]:
    """The violations that axe-core finds."""
    violations = Axe().run(page).response["violations"]
    return [f"{rule['id']}: {[node['html'] for node in rule['nodes']]}" for rule in violations]
