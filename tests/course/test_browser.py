"""A learner's first exercise, solved in JupyterLab in headless Chromium."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from course.answers import model_cells
from course.question import read_source

from .browser import headless_chromium, jupyter_lab, new_page, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore")]
ROOT = Path(__file__).parents[2]
NAME = "q06_block_quantization"


@pytest.fixture
def study_folder(tmp_path):
    subprocess.run([sys.executable, "-m", "course.cli", "study", str(tmp_path / "study")], check=True, cwd=ROOT)
    return tmp_path / "study"


@pytest.fixture
def lab(study_folder, tmp_path):
    """The address of the start page in JupyterLab on the study folder."""
    with jupyter_lab(study_folder, tmp_path) as (address, token):
        yield f"{address}lab/tree/start.ipynb?token={token}"


@pytest.fixture
def page():
    with headless_chromium() as browser:
        yield new_page(browser)


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
    test = cells.filter(has_text="Exercise (a): run this cell to test your answer").first
    run_cell(page, imports)
    run_cell(page, blank)
    assert not test.locator(".cm-content").is_visible()
    test.locator(".jp-InputPlaceholder").click()
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
