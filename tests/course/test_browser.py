"""A learner's first exercise, solved in JupyterLab in headless Chromium."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from course.answers import model_cells
from course.question import read_source

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore")]
ROOT = Path(__file__).parents[2]
NAME = "q06_block_quantization"
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
START_SECONDS = 90


@pytest.fixture
def study_folder(tmp_path):
    subprocess.run([sys.executable, "-m", "course.cli", "study", str(tmp_path / "study")], check=True, cwd=ROOT)
    return tmp_path / "study"


@pytest.fixture
def lab(study_folder, tmp_path):
    """The address of JupyterLab on the study folder, with no settings of the user's."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "XDG"))}
    for name in ("CONFIG", "DATA", "RUNTIME"):
        environment[f"JUPYTER_{name}_DIR"] = str(tmp_path / name.lower())
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--port=0",
        "--ServerApp.ip=127.0.0.1",
    ]
    with (tmp_path / "lab.log").open("w") as log:
        server = subprocess.Popen(command, cwd=study_folder, env=environment, stdout=log, stderr=log)
    try:
        yield server_address(tmp_path / "runtime", server, tmp_path / "lab.log")
    finally:
        server.terminate()
        server.wait(20)


def server_address(runtime: Path, server: subprocess.Popen, log: Path) -> str:
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends and server.poll() is None:
        for path in runtime.glob("jpserver-*.json"):
            try:
                details = json.loads(path.read_text())
            except ValueError:
                continue  # half written
            return f"{details['url']}lab/tree/start.ipynb?token={details['token']}"
        time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


@pytest.fixture
def page():
    sync_api = pytest.importorskip("playwright.sync_api")
    executable = shutil.which("chromium")
    assert executable, "this test needs chromium; on Debian: apt-get install chromium"
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM)
        page = browser.new_page(viewport={"width": 1280, "height": 1400})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def wait_until(condition, page) -> None:
    ends = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < ends, "it did not happen in time"
        page.wait_for_timeout(100)


def run_cell(page, cell) -> str:
    """Run a cell, wait for its end, and return the text of its output."""
    prompt = cell.locator(".jp-InputPrompt").first
    before = prompt.inner_text()
    cell.locator(".cm-content").first.click()
    page.keyboard.press("Control+Enter")
    wait_until(lambda: re.fullmatch(r"\[\d+\]:", prompt.inner_text()) and prompt.inner_text() != before, page)
    return cell.locator(".jp-OutputArea").first.inner_text()


def test_a_learner_solves_the_first_exercise(lab, page, study_folder):
    model = model_cells(read_source(ROOT / "source" / NAME / f"{NAME}.py"))["q8_0"]
    page.goto(lab)
    page.get_by_role("link", name="Implementing block-wise quantization").click()
    cells = page.locator(".jp-NotebookPanel:has-text('Exercise (a)') .jp-CodeCell")
    imports = cells.filter(has_text="import torch").filter(has_text="import numpy as np").last
    blank = cells.filter(has_text="def q8_0_quantize(").first
    test = cells.filter(has_text="from course.checks import").first
    run_cell(page, imports)
    run_cell(page, blank)
    assert "NotImplementedError" in run_cell(page, test)

    blank.locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(model)
    run_cell(page, blank)
    assert "Error" not in run_cell(page, test)
    copy = study_folder / NAME / f"{NAME}.ipynb"
    page.keyboard.press("Control+s")
    wait_until(lambda: model.splitlines()[-1].strip() in copy.read_text(), page)
    if "SCREENSHOT" in os.environ:
        page.screenshot(path=os.environ["SCREENSHOT"])

    command = [sys.executable, "-m", "course.cli", "check", "q06", "--json", "--notebook", str(copy)]
    checked = subprocess.run(command, capture_output=True, text=True)
    points = {verdict["grade_id"]: verdict["points"] for verdict in json.loads(checked.stdout)}
    assert points["test-q8_0"] == 4 and sum(points.values()) == 4, checked.stdout
