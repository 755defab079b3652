import base64

import pytest

from course.display.formulas import FORMULAS
from course.display.markdown import MAX_SOURCE, to_html

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()


@pytest.fixture(autouse=True)
def new_page():
    FORMULAS.start_page()


def test_text_tables_code_and_formulas_read_well():
    html = to_html(
        "**bold** `a < b` & c\n\n| a | b |\n|--|--|\n| $x_1$ | 2 |\n\n```python\nx = 1 < 2\n```\n\n- [x] done\n"
    )
    assert "<strong>bold</strong> <code>a &lt; b</code> &amp; c" in html
    assert "<td><math><msub><mi>x</mi><mn>1</mn></msub></math></td>" in html
    assert '<span class="o">&lt;</span>' in html
    assert "☑ done" in html


@pytest.mark.parametrize("source", ["$$x$$", r"\\[x\\]", "\\begin{align}\nx\n\\end{align}"])
def test_formulas_in_a_line_of_their_own(source):
    assert '<math display="block">' in to_html(source)


def test_formulas_inside_a_hint():
    html = to_html("<details><summary>Hint</summary>\n\nwith $x$\n</details>")
    assert html.startswith("<details><summary>Hint</summary>") and "<math><mi>x</mi></math>" in html


def test_pictures_are_inside(tmp_path):
    (tmp_path / "bits.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    source = '![one](attachment:a.png) ![two](bits.svg)\n\n<img src="bits.svg" width="30">'
    html = to_html(source, {"a.png": {"image/png": PNG}}, str(tmp_path))
    assert f'<img src="data:image/png;base64,{PNG}" alt="one">' in html
    assert html.count('src="data:image/svg+xml;base64,') == 2 and 'width="30"' in html


@pytest.mark.parametrize("source", ["![a plot](https://example.org/a.png)", "![a plot](attachment:gone.png)"])
def test_a_picture_that_is_not_there_is_named(source):
    html = to_html(source)
    assert "a plot" in html and "<img" not in html


def test_a_diagram_is_shown_as_its_source():
    assert to_html("```mermaid\nA --> B[<b>]\n```") == "<pre><code>A --&gt; B[&lt;b&gt;]\n</code></pre>\n"


def test_text_that_is_too_long_is_shown_as_it_was_typed_whatever_its_pictures_weigh():
    assert to_html("*a* " * MAX_SOURCE).startswith("<pre>*a* ")
    assert to_html(f"*a* ![b](data:image/png;base64,{'A' * 4 * MAX_SOURCE})").startswith("<p><em>a</em>")


@pytest.mark.parametrize("source", ["[" * 20_000, "> " * 9_000, "<div>" * 4_000, "<table><tr><td>" * 1_300])
def test_nothing_makes_it_fail(source):
    assert to_html(source)
