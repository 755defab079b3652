"""A Jupyter server and headless Chromium, for the tests that use a page as a person does."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
START_SECONDS = 90


@contextlib.contextmanager
def jupyter_lab(folder: Path, home: Path):
    """Run JupyterLab in a folder, with no settings of the user's: its address, and its token."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "XDG"))}
    for name in ("CONFIG", "DATA", "RUNTIME"):
        environment[f"JUPYTER_{name}_DIR"] = str(home / name.lower())
    options = ["--no-browser", "--allow-root", "--port=0", "--ServerApp.ip=127.0.0.1"]
    with (home / "lab.log").open("w") as log:
        command = [sys.executable, "-m", "jupyterlab", *options]
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        yield server_address(home / "runtime", server, home / "lab.log")
    finally:
        server.terminate()
        server.wait(20)


def server_address(runtime: Path, server: subprocess.Popen, log: Path) -> tuple[str, str]:
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends and server.poll() is None:
        for path in runtime.glob("jpserver-*.json"):
            with contextlib.suppress(ValueError):  # half written
                details = json.loads(path.read_text())
                return details["url"], details["token"]
        time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


@contextlib.contextmanager
def headless_chromium():
    sync_api = pytest.importorskip("playwright.sync_api")
    executable = shutil.which("chromium")
    assert executable, "this test needs chromium; on Debian: apt-get install chromium"
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM)
        yield browser
        browser.close()


def new_page(chromium, **options):
    page = chromium.new_page(viewport={"width": 1280, "height": 1400}, **options)
    page.set_default_timeout(60_000)
    return page


def wait_until(condition, page) -> None:
    ends = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < ends, "it did not happen in time"
        page.wait_for_timeout(100)
