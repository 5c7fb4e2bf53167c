"""`examples/web_jobs` as a user has it: its page, in a real browser (headless Chromium, by the WebDriver protocol)."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import PATIENCE, until
from tests.web_jobs import Program

DRIVER = shutil.which("chromedriver")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(not (DRIVER and BROWSER), reason="chromium or chromedriver is not installed")

OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,900",
]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key by which WebDriver speaks of elements


class Browser:
    """A browser with one page, controlled by chromedriver (https://www.w3.org/TR/webdriver2/)."""

    def __init__(self, profile: Path) -> None:
        assert DRIVER
        assert BROWSER
        self._driver = subprocess.Popen([DRIVER, "--port=0"], text=True, stdout=subprocess.PIPE)
        self._session = ""
        try:
            assert self._driver.stdout is not None
            for line in self._driver.stdout:
                if "started successfully on port" in line:
                    self._port = int(line.split()[-1].rstrip("."))
                    break
            options = {"binary": BROWSER, "args": [*OPTIONS, f"--user-data-dir={profile}"]}
            wanted = {"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}
            self._session = self._call("POST", "/session", {"capabilities": wanted})["sessionId"]
        except BaseException:
            self.close()
            raise

    def _call(self, method: str, path: str, said: object = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        try:
            connection.request(method, path, None if said is None else json.dumps(said))
            told = json.loads(connection.getresponse().read())["value"]
        finally:
            connection.close()
        if isinstance(told, dict) and "error" in told:
            raise RuntimeError(f"{told['error']}: {told['message']}")
        return told

    def _ask(self, method: str, path: str, said: object = None) -> Any:
        return self._call(method, f"/session/{self._session}{path}", said)

    def open(self, url: str) -> None:
        self._ask("POST", "/url", {"url": url})

    def run(self, script: str) -> Any:
        return self._ask("POST", "/execute/sync", {"script": script, "args": []})

    def _find(self, selector: str) -> str:
        found: str = self._ask("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]
        return found

    def click(self, selector: str) -> None:
        self._ask("POST", f"/element/{self._find(selector)}/click", {})

    def type(self, selector: str, text: str) -> None:
        element = self._find(selector)
        self._ask("POST", f"/element/{element}/clear", {})
        self._ask("POST", f"/element/{element}/value", {"text": text})

    def text(self, selector: str) -> str:
        """What the user reads there."""
        text: str = self.run(f"return document.querySelector({json.dumps(selector)}).innerText")
        return text

    def screenshot(self) -> str:
        """In base64."""
        picture: str = self._ask("GET", "/screenshot")
        return picture

    def complaints(self) -> list[str]:
        """What the browser has written to its console since it was asked the last time."""
        return [entry["message"] for entry in self._ask("POST", "/se/log", {"type": "browser"})]

    def close(self) -> None:
        try:
            if self._session:
                self._ask("DELETE", "")
        finally:
            self._driver.terminate()
            self._driver.communicate(timeout=PATIENCE)


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    with Program(tmp_path / "jobs.sqlite") as program:
        yield program


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    browser = Browser(tmp_path / "profile")
    try:
        yield browser
    finally:
        browser.close()


def order(browser: Browser, title: str, width: int, detail: int) -> None:
    browser.type("#title", title)
    browser.run(f"document.querySelector('#width').value = '{width}'")
    browser.type("#detail", str(detail))
    browser.click("#start")


def state_is(browser: Browser, state: str) -> Callable[[], bool]:
    return lambda: browser.text("#state") == state


def picture_width(browser: Browser) -> int:
    """Pixels of the finished picture; 0 as long as it is not shown."""
    width: int = browser.run("const p = document.querySelector('#picture'); return p.hidden ? 0 : p.naturalWidth")
    return width


def test_a_picture_from_the_click_to_the_end(program: Program, browser: Browser) -> None:
    browser.open(f"http://127.0.0.1:{program.port}/")
    assert browser.text("#nothing") == "No job yet. Start one."
    title = "<img src=x onerror=alert(1)> & <b>mine</b>"
    order(browser, title, 320, 2000)
    seen: list[float] = []

    def shows_the_picture() -> bool:
        seen.append(browser.run("return document.querySelector('#bar').value"))
        return picture_width(browser) == 320

    until(shows_the_picture, "the finished picture")
    assert seen == sorted(seen)
    assert len(set(seen)) > 3, "the bar should move"
    assert (browser.text("#percent"), browser.text("#state")) == ("100 %", "done")
    assert browser.text("#counts") == "Tiles: 40 done"
    assert (browser.text("#name"), browser.text("#jobs span")) == (title, title)
    assert browser.run("return document.querySelectorAll('#name *, #jobs b').length") == 0
    assert browser.run("return document.querySelectorAll('.tile img').length") == 40
    assert not browser.complaints()


def test_failed_tiles_are_shown_and_retried(program: Program, browser: Browser) -> None:
    browser.open(f"http://127.0.0.1:{program.port}/")
    browser.click("#trouble")
    until(lambda: program.get("/api/jobs")[1]["trouble"], "trouble")
    order(browser, "Trouble", 320, 100)
    until(state_is(browser, "failed"), "the failure")
    assert "no paint left for tile 2" in browser.text("#failures")
    assert browser.run("return document.querySelectorAll('.tile.dead').length") == 13
    assert picture_width(browser) == 0
    browser.click("#trouble")
    until(lambda: not program.get("/api/jobs")[1]["trouble"], "the end of the trouble")
    browser.click("#retry")
    until(lambda: picture_width(browser) == 320, "the finished picture")
    assert browser.text("#failures") == ""
    assert not browser.complaints()


def test_cancelling_and_going_on(program: Program, browser: Browser) -> None:
    browser.open(f"http://127.0.0.1:{program.port}/")
    order(browser, "Long", 1280, 5000)
    until(lambda: browser.run("return document.querySelectorAll('.tile.running').length"), "a tile that runs")
    browser.click("#cancel")
    until(state_is(browser, "cancelled"), "the end")
    assert browser.run("return document.querySelector('#cancel').hidden")
    browser.click("#retry")
    until(state_is(browser, "running"), "going on")
    browser.click("#cancel")
    until(state_is(browser, "cancelled"), "the end")


def test_what_is_wrong_is_told(program: Program, browser: Browser) -> None:
    browser.open(f"http://127.0.0.1:{program.port}/#nobody")
    until(lambda: "no job 'nobody' is known" in browser.text("#message"), "the message")
    browser.run("document.querySelector('#detail').removeAttribute('max')")
    order(browser, "Too much", 320, 6000)
    until(lambda: browser.text("#message") == "detail: a whole number from 10 to 5,000", "the message")


def test_the_page_goes_on_by_itself_when_the_server_is_back(tmp_path: Path, browser: Browser) -> None:
    database = tmp_path / "jobs.sqlite"
    with Program(database) as program:
        port = program.port
        browser.open(f"http://127.0.0.1:{port}/")
        order(browser, "Interrupted", 320, 2000)
        until(lambda: browser.run("return document.querySelectorAll('.tile.done').length >= 3"), "three tiles")
        assert program.end()[0] == 0
    until(lambda: "does not answer" in browser.text("#message"), "the message")
    with Program(database, port):
        until(lambda: picture_width(browser) == 320, "the finished picture")
        assert not browser.run("return document.querySelector('#message').textContent")
