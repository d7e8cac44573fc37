"""Chromium for tests, and what a page must never do in it."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FLAGS = (
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--autoplay-policy=no-user-gesture-required",
)
WAIT = 60_000  # ms; loaded machines are slow
PICTURES = os.environ.get("EXPLORER_PICTURES")  # a folder, for those who want to look


def executable() -> str:
    """Return Chromium's path; skip the test where there is none."""
    pytest.importorskip("playwright")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("Chromium is not installed")
    return found


@contextmanager
def started() -> Iterator["Browser"]:
    """Yield a browser without a window."""
    path = executable()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield Browser(browser)
        browser.close()


class Browser:
    """Opens pages, each of which must say nothing on the console and ask for nothing elsewhere."""

    def __init__(self, browser):
        self._browser = browser

    @contextmanager
    def open(self, path: Path | str, fragment: str = "", complaints=(), script="", **options):
        """Yield the page of a file, or of an address, once it is ready; a script runs before it."""
        address = path.as_uri() if isinstance(path, Path) else path
        size = {"width": options.pop("width", 1280), "height": options.pop("height", 800)}
        context = self._browser.new_context(viewport=size, accept_downloads=True, **options)
        context.set_default_timeout(WAIT)
        page, seen, asked = context.new_page(), [], []
        page.add_init_script(script)
        page.on("console", lambda message: seen.append(message.text))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on(
            "dialog", lambda dialog: (seen.append(f"dialog {dialog.message}"), dialog.dismiss())
        )
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address + fragment)
        page.wait_for_selector("html[data-ready]")
        yield page
        start = address.rsplit("/", 2)[0] if isinstance(path, Path) else address.partition("?")[0]
        elsewhere = [url for url in asked if not url.startswith((start, "blob:", "data:"))]
        assert not elsewhere, elsewhere
        unexpected = [text for text in seen if not any(word in text for word in complaints)]
        assert not unexpected, unexpected
        context.close()


def until(page, expression: str) -> None:
    """Wait until an expression is true; the page's policy lets nobody else evaluate one."""
    end = time.monotonic() + WAIT / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(20)


def picture(page, name: str) -> bytes:
    """Return what the page looks like; keep it where that is wanted."""
    content = page.screenshot()
    if PICTURES:
        Path(PICTURES).mkdir(parents=True, exist_ok=True)
        Path(PICTURES, f"{name}.png").write_bytes(content)
    return content


def download(page, button: str) -> str:
    """Press a button; return the text of the file that it saves."""
    with page.expect_download() as waiting:
        page.click(button)
    return Path(waiting.value.path()).read_bytes().decode("utf-8")


def rows_of(page, selector: str) -> list[int]:
    """Return which rows a list shows."""
    return page.eval_on_selector_all(f"{selector} li", "all => all.map(one => +one.dataset.row)")
