"""An instructor scores in formgrader what an honest and a hostile candidate handed in; each opens the feedback."""

import base64
import os
import shutil
from pathlib import Path

import nbformat
import nbformat.v4 as nbf
import pytest
from nbgrader.api import Gradebook

from .browser import headless_chromium, jupyter_lab, new_page, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore")]
ROOT = Path(__file__).parents[2]
NAME = "q90_sample"
RUN = "window.ran=true"
SVG = f'<svg xmlns="http://www.w3.org/2000/svg" onload="{RUN}"><script>{RUN}</script></svg>'
ELSEWHERE = "http://127.0.0.1:9/x.png"
HONEST = r"""The width fixes the **memory**: `a < b && c`, $\hat{x} = \frac{s}{2} \cdot q$, and

$$\operatorname{round}(x) = \begin{cases} \lfloor x \rfloor & \text{if } x \ge 0 \\ \lceil x \rceil \end{cases}$$

| format | error |
|--|--|
| Q4_0 | $\Delta^2 / 12$ |
"""
HOSTILE = [
    f"<script>{RUN}</script>",
    f'<img src=x onerror="{RUN}"> <img src="{ELSEWHERE}"> ![a]({ELSEWHERE})',
    f'<svg onload="{RUN}"></svg> <iframe srcdoc="<script>parent.ran = true</script>"></iframe>',
    f"[a link](javascript:{RUN}) [my page](answer.html)",
    f'<details open ontoggle="{RUN}"><summary>s</summary>d</details> <input autofocus onfocus="{RUN}">',
    f"<style>body {{ display: none; background: url({ELSEWHERE}) }}</style>",
    f'<meta http-equiv="refresh" content="0;{ELSEWHERE}">',
    rf"$\href{{javascript:{RUN}}}{{x}}$ $\text{{<img src=x onerror='{RUN}'>}}$",
    f'```mermaid\nA["<img src=x onerror={RUN!r}>"]\n```',
    '<h2 id="rubric-depth" class="score">a</h2><div class="full-credit">b</div>',
]
DISPLAY = f"""from IPython.display import HTML, Javascript, display
display(HTML("<script>{RUN}</script>"), Javascript("{RUN}"))
print("<script>{RUN}</script> \\x1b[31mred")
"""


def hand_in(course: Path, student: str, *cells, width: str) -> Path:
    """Hand in the released notebook with an answer to its first exercise, and cells below its first rubric cell."""
    notebook = nbformat.read(course / "release" / NAME / f"{NAME}.ipynb", as_version=4)
    names = [cell.metadata.get("nbgrader", {}).get("grade_id") for cell in notebook.cells]
    notebook.cells[names.index("width")].source = width
    place = names.index("rubric-depth") + 1
    notebook.cells[place:place] = cells
    folder = course / "submitted" / student / NAME
    folder.mkdir(parents=True)
    nbformat.write(notebook, folder / f"{NAME}.ipynb")
    return folder


@pytest.fixture
def course(sample_course):
    shutil.copy(ROOT / "nbgrader_config.py", sample_course)
    hand_in(sample_course, "ada", nbf.new_markdown_cell(HONEST), width="def width(n):\n    return 3")
    attachments = {"a.svg": {"image/svg+xml": base64.b64encode(SVG.encode()).decode()}}
    cells = [nbf.new_markdown_cell(source) for source in HOSTILE]
    cells += [nbf.new_markdown_cell("![x](attachment:a.svg)", attachments=attachments), nbf.new_code_cell(DISPLAY)]
    cheat = f"def width(n):\n    raise ValueError({f'<script>{RUN}</script>'!r})"
    folder = hand_in(sample_course, "eve", *cells, width=cheat)
    (folder / "answer.html").write_text(f"<title>before</title><script>document.title = 'ran'</script>{SVG}")
    return sample_course


@pytest.fixture
def browser():
    with headless_chromium() as browser:
        yield browser


@pytest.fixture
def page(course, tmp_path, browser):
    """Formgrader, where the instructor has logged in; `page.seen` lists dialogs, errors and requests elsewhere."""
    with jupyter_lab(course, tmp_path) as (address, token):
        page = new_page(browser, base_url=f"{address}formgrader/")
        page.seen = []
        page.on("dialog", lambda dialog: page.seen.append(dialog.message))
        page.on("pageerror", lambda error: page.seen.append(str(error)))
        page.goto(f"{address}login?next=/formgrader")
        page.locator("#password_input").fill(token)
        page.locator("#login_submit").click()
        page.on("request", lambda request: request.url.startswith(address) or page.seen.append(request.url))
        yield page


def press_for_all(page, what: str) -> None:
    """Press nbgrader's button of that name for each submission, and wait for its success."""
    page.goto(f"manage_submissions/{NAME}")
    for student in ("ada", "eve"):
        row = page.locator("#main-table tr", has=page.get_by_text(student, exact=True)).first
        row.locator(f".{what} a").click()
        page.locator("#success-modal").wait_for()
        page.locator("#success-modal .modal-footer button").click()
        page.locator("#success-modal").wait_for(state="detached")


def open_submission(page, course: Path, student: str) -> None:
    with Gradebook(f"sqlite:///{course}/gradebook.db") as gradebook:
        page.goto(f"submissions/{gradebook.find_submission_notebook(NAME, NAME, student).id}/")
    loaded = "formgrader.loaded && formgrader.grades.loaded && formgrader.comments.loaded"
    wait_until(lambda: page.evaluate(loaded), page)  # the page's policy forbids the eval of wait_for_function


def manual_score(course: Path, student: str) -> float | None:
    with Gradebook(f"sqlite:///{course}/gradebook.db") as gradebook:
        return gradebook.find_grade("rubric-depth", NAME, NAME, student).manual_score


def look(page, name: str) -> None:
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def type_score(page, score: str) -> None:
    page.locator("input#rubric-depth").click(click_count=3)
    page.keyboard.type(score)
    page.keyboard.press("Tab")


def test_an_instructor_scores_what_candidates_wrote(page, course, browser):
    press_for_all(page, "autograde")
    open_submission(page, course, "eve")
    look(page, "eve")
    shown = page.locator("body").inner_text()
    assert f"<script>{RUN}</script>\n" in shown and f'<svg onload="{RUN}"></svg>' in shown
    assert f"ValueError: <script>{RUN}</script>" in shown
    page.get_by_text("a link").click()
    page.get_by_text("b", exact=True).last.click()
    assert page.evaluate("window.ran") is None and page.locator(".score").count() == 6

    type_score(page, "99")
    page.get_by_role("alert").filter(has_text="The score 99 is above the cell's maximum of 7.").wait_for()
    look(page, "refused")
    assert manual_score(course, "eve") is None
    type_score(page, "-1")
    page.get_by_role("alert").filter(has_text="The score -1 is below 0.").wait_for()
    type_score(page, "5.5")
    wait_until(lambda: manual_score(course, "eve") == 5.5, page)
    page.get_by_role("alert").wait_for(state="detached")
    assert page.seen == []

    page.goto(page.url.partition("?")[0] + "answer.html")
    assert page.title() == "before"
    press_for_all(page, "generate-feedback")
    assert page.seen == []
    check_feedback(browser, course, "ada", formulas=3, text="Q4_0")
    check_feedback(browser, course, "eve", formulas=1, text=f"<script>{RUN}</script>")


def check_feedback(browser, course: Path, student: str, formulas: int, text: str) -> None:
    """Open a feedback page as a file, without the network: it is read whole, and asks for nothing."""
    page = new_page(browser, offline=True)
    requests, dialogs = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    page.goto((course / "feedback" / student / NAME / f"{NAME}.html").as_uri())
    page.wait_for_timeout(300)
    look(page, f"feedback_{student}")
    shown = page.locator("body").inner_text()
    assert text in shown and "HIDDEN TESTS" not in shown and "Strong (7)" not in shown
    drawn = [
        box for math in page.locator("math").all() if (box := math.bounding_box()) and box["width"] * box["height"]
    ]
    assert len(drawn) == formulas
    assert len(requests) == 1 and dialogs == [] and page.evaluate("window.ran") is None
