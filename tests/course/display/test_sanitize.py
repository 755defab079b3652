import base64
import re
from pathlib import Path

import pytest
from bleach._vendor import html5lib
from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st

from course.display.markdown import to_html
from course.display.sanitize import MATH, MAX_DEPTH, MAX_TEXT, TEXT, as_text, clean, depth

HARMLESS = [
    "<b>bold</b> <i>and</i> <code>a &lt; b</code>",
    "<details open><summary>Hint</summary>text</details>",
    '<table border="1" class="dataframe"><tbody><tr><td align="right" colspan="2">1</td></tr></tbody></table>',
    '<a href="https://example.org/?a=1&amp;b=2" title="t">link</a>',
    '<img src="data:image/png;base64,iVBORw0KGgo=" alt="a" width="30">',
    '<div class="highlight"><pre><span class="kn">import</span></pre></div>',
    '<p style="text-align: center;">x</p>',
    '<math display="block"><mfrac><mi>a</mi><mn>2</mn></mfrac></math>',
]
AS_TEXT = [
    "<script>run()</script>",
    "<svg onload=run()></svg>",
    '<iframe srcdoc="x"></iframe>',
    "<style>body{display:none}</style>",
    '<meta http-equiv="refresh" content="0">',
    "<form><input autofocus onfocus=run()></form>",
    "<object data=x></object>",
    "<base href=x>",
    "<template><b>x</b></template>",
    "<video src onerror=run()></video>",
]
STRIPPED = {
    '<b onclick="run()">x</b>': "<b>x</b>",
    '<a href="javascript:run()">x</a>': "<a>x</a>",
    '<a href=" java\nscript:run()">x</a>': "<a>x</a>",
    '<a href="data:text/html,x">x</a>': "<a>x</a>",
    '<a href="answer.html">x</a>': "<a>x</a>",
    '<img src="http://example.org/x.png">': "<img>",
    '<img src="data:text/html;base64,eA==">': "<img>",
    '<h2 id="rubric-depth">x</h2>': "<h2>x</h2>",
    '<div class="full-credit highlight">x</div>': "<div>x</div>",
    '<div style="position: fixed; top: 0; background: url(//x)">x</div>': '<div style="">x</div>',
    '<math href="javascript:run()"><mi>x</mi></math>': "<math><mi>x</mi></math>",
    "<!-- hidden -->x": "x",
}
PIECES = (Path(__file__).parents[1] / "data" / "html_pieces.txt").read_text().splitlines()


@pytest.mark.parametrize("html", HARMLESS)
def test_what_is_harmless_stays(html):
    assert clean(html) == html


@pytest.mark.parametrize("html", AS_TEXT)
def test_other_elements_are_shown_as_text(html):
    assert BeautifulSoup(clean(html), "html.parser").find_all() == BeautifulSoup(html, "html.parser").find_all("b")
    assert html.split(">")[0] in BeautifulSoup(clean(html), "html.parser").text


@pytest.mark.parametrize("html", STRIPPED)
def test_other_attributes_go(html):
    assert clean(html) == STRIPPED[html]


def dangers(html):
    """What a browser would find in a page that the allow-list does not know."""
    page = html5lib.parse(f"<div>{html}</div>", namespaceHTMLElements=False)
    for element in page.iter():
        tag = re.sub(r"\{.*\}", "", str(element.tag))
        if tag not in TEXT | MATH | {"html", "head", "body"}:
            yield tag
        for name, value in element.attrib.items():
            if name.startswith("on") or name in ("id", "name", "action"):
                yield name
            if name in ("href", "src") and not value.strip().lower().startswith(
                ("http", "mailto:", "#", "data:image/")
            ):
                yield f"{name}={value}"


@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join).map(lambda text: text.replace("\\n", "\n")))
@settings(max_examples=300, deadline=None)
def test_no_mixture_gets_through_the_parsers_of_a_page(source):
    assert not list(dangers(str(BeautifulSoup(to_html(source), "html.parser"))))


def test_the_search_for_dangers_finds_them():
    assert set(dangers("<script>x</script><img onerror=x src=x><a href=javascript:x>")) == {
        "script",
        "onerror",
        "src=x",
        "href=javascript:x",
    }


def test_elements_that_stand_too_deep_are_shown_as_text():
    assert clean("<div>" * (MAX_DEPTH + 1)).startswith("<pre>&lt;div&gt;")
    assert depth("<p>" * 999 + "<br>" * 999) == 0
    assert depth("<b><i></i><i></i></b>") == 2


def test_long_text_is_shortened():
    shown = as_text("<" * (MAX_TEXT + 5))
    assert shown.endswith("\n... 5 more characters ...</pre>") and shown.count("&lt;") == MAX_TEXT


def test_a_picture_keeps_its_data():
    data = base64.b64encode(bytes(range(256)) * 4000).decode()
    assert data in clean(f'<img src="data:image/jpeg;base64,{data}">')
