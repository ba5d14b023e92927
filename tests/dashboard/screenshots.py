"""Take screenshots of the dashboard: every scene in light, dark and on a phone.

`make screenshots` writes them to the folder `screenshots`, which is not committed.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Browser

from tests.browser import chromium
from tests.dashboard.playing import playing

DESKTOP = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
WINDOW = {"width": 1440, "height": 1010}
"""The part that a window shows without scrolling, as in the README."""

NAMES = {(1440, 1010): "window", (1440, 900): "desktop", (390, 844): "phone"}
PICTURES = [
    ("outage", "light", WINDOW),
    ("outage", "light", DESKTOP),
    ("outage", "dark", DESKTOP),
    ("outage", "light", PHONE),
    ("calm", "light", DESKTOP),
    ("many", "dark", DESKTOP),
]


def main(folder: Path) -> None:
    """Write all screenshots to a folder."""
    folder.mkdir(exist_ok=True)
    with TemporaryDirectory() as directory, chromium() as browser:
        for scene in sorted({scene for scene, _, _ in PICTURES}):
            with playing(scene, Path(directory)) as url:
                for each in PICTURES:
                    if each[0] == scene:
                        take(browser, url, folder, each)


def take(
    browser: Browser, url: str, folder: Path, picture: tuple[str, str, dict[str, int]]
) -> None:
    """Write one screenshot."""
    scene, theme, size = picture
    page = browser.new_page(
        viewport={"width": size["width"], "height": size["height"]},
        color_scheme="dark" if theme == "dark" else "light",
        timezone_id="Europe/Berlin",
        reduced_motion="reduce",
    )
    page.goto(f"{url}/dashboard")
    page.locator(".circuit").first.wait_for()
    page.wait_for_timeout(1500)
    if size is not WINDOW and scene != "many":
        # Content outside the viewport is not laid out, so the viewport includes the whole page.
        height = int(page.evaluate("document.documentElement.scrollHeight"))
        page.set_viewport_size({"width": size["width"], "height": 3 * height})
        page.wait_for_timeout(1500)
        height = int(page.evaluate("document.querySelector('main').getBoundingClientRect().bottom"))
        page.set_viewport_size({"width": size["width"], "height": height})
    name = f"{scene}-{theme}-{NAMES[size['width'], size['height']]}.png"
    page.screenshot(path=folder / name)
    sys.stdout.write(f"{folder / name}\n")
    page.close()


if __name__ == "__main__":
    main(Path("screenshots"))
