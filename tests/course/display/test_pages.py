import nbformat.v4 as nbf
import pytest
from bs4 import BeautifulSoup
from nbconvert.exporters.exporter import ResourcesDict
from nbgrader.converters import GenerateFeedback
from nbgrader.server_extensions.formgrader.handlers import template_path
from traitlets.config import Config

from course.display.pages import FeedbackPage, SubmissionPage
from course.examiner.nbgrader_plugin import configure

NAME = "<img src=x onerror=run()>"


@pytest.fixture
def page():
    config = Config()
    configure(config)
    converter = GenerateFeedback(config=config)
    return converter.exporter_class(config=converter.config)


def resources(**more):
    marks = {"notebook": "q90", "score": 1.0, "max_score": 2.0, "late_penalty": 0, "student": NAME}
    found = ResourcesDict()
    found.update({"nbgrader": marks, "inlining": {"css": []}, "metadata": {"path": ""}, **more})
    return found


def notebook():
    mark = {"grade_id": "answer", "solution": True, "grade": True, "points": 3, "score": 1, "comment": "*why* <script>"}
    return nbf.new_notebook(
        cells=[
            nbf.new_markdown_cell("**bold** $x_1$ <script>run()</script>", metadata={"nbgrader": mark}),
            nbf.new_raw_cell("<script>run()</script>", metadata={"raw_mimetype": "text/html"}),
            nbf.new_code_cell(
                "'<script>'", outputs=[nbf.new_output("display_data", {"text/html": "<script>x</script>"})]
            ),
        ],
        metadata={"title": NAME, "widgets": {"application/vnd.jupyter.widget-state+json": {"state": "</script>"}}},
    )


def test_feedback_holds_no_script_and_names_nothing_elsewhere(page):
    assert isinstance(page, FeedbackPage)
    html, _ = page.from_notebook_node(notebook(), resources())
    soup = BeautifulSoup(html, "html.parser")
    assert not soup.find_all(["script", "link", "iframe", "img"])
    assert soup.find("meta", {"http-equiv": "Content-Security-Policy"})["content"].startswith("default-src 'none'")
    assert soup.find("math") and soup.find("strong").text == "bold"
    assert soup.text.count("<script>run()</script>") == 2
    assert soup.find(class_="panel-footer").find("em").text == "why"


def test_only_nbgraders_scripts_have_the_nonce_of_a_submissions_page():
    page = SubmissionPage(
        config=Config(HTMLExporter={"template_name": "formgrade", "extra_template_basedirs": [template_path]})
    )
    page.nonce = "once"
    names = {"student": NAME, "notebook_id": "q90", "base_url": "", "submission_id": "1", "index": 0, "total": 1}
    html, _ = page.from_notebook_node(notebook(), resources(**names))
    soup = BeautifulSoup(html, "html.parser")
    scripts = soup.find_all("script")
    assert scripts and all(script["nonce"] == "once" for script in scripts)
    assert [script["src"] for script in scripts if "course" in script.get("src", "")]
    assert not soup.find_all("img") and NAME in soup.text
    assert not [tag for tag in soup.find_all() if any(name.startswith("on") for name in tag.attrs)]
