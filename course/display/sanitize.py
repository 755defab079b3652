"""HTML that is safe to show: an allow-list of elements, attributes and styles; all else stays visible as text.

It allows nothing that runs, loads from the network, takes input, leaves its place on the page, or carries an id or a
class that formgrader's own script looks for.
"""

import re
from html import escape

from bleach.css_sanitizer import CSSSanitizer
from bleach.sanitizer import Cleaner
from pygments.token import STANDARD_TYPES


def _words(text: str) -> set[str]:
    return set(text.split())


TEXT = _words("""
    a abbr b big blockquote br caption center cite code col colgroup dd del details dfn div dl dt em figcaption figure
    font h1 h2 h3 h4 h5 h6 hr i img ins kbd li mark ol p pre q s samp small span strike strong sub summary sup table
    tbody td tfoot th thead tr tt u ul var
""")
MATH = _words("""
    math menclose merror mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow ms mspace
    msqrt mstyle msub msubsup msup mtable mtd mtext mtr munder munderover none
""")

EVERYWHERE = {"align", "dir", "lang", "style", "title"}
ATTRIBUTES = {
    "col": {"span", "width"},
    "colgroup": {"span", "width"},
    "details": {"open"},
    "font": {"color"},
    "img": {"alt", "height", "width"},
    "ol": {"start", "type"},
    "table": {"border", "width"},
    "td": {"colspan", "rowspan", "valign", "width"},
    "th": {"colspan", "rowspan", "scope", "valign", "width"},
}
MATH_ATTRIBUTES = _words("""
    accent accentunder columnspan depth display displaystyle fence form height largeop linethickness
    lspace mathvariant maxsize minsize movablelimits notation rowspan rspace scriptlevel separator stretchy symmetric
    voffset width
""")
CLASSES = {"highlight", "dataframe", *STANDARD_TYPES.values()}  # of highlighted code, of a pandas table
STYLES = _words("""
    background-color border-bottom border-left border-right border-top color font-style font-weight height
    justify-items max-width padding-left padding-right padding-top text-align text-decoration vertical-align white-space
    width
""")

LINK = re.compile(r"(https?://|mailto:|#)", re.IGNORECASE)
PICTURE = re.compile(r"data:image/(png|jpeg|gif|webp|svg\+xml);base64,")  # inside <img>, an SVG is a picture only

MAX_TEXT = 200_000  # characters of one text that are shown
MAX_DEPTH = 200  # elements inside each other: parsers recurse, or slow down with the square of it
_TAG = re.compile(r"<(/?)([a-zA-Z]+)")
_NEVER_DEEP = {"br", "col", "dd", "dt", "hr", "img", "li", "mprescripts", "mspace", "none", "p", "td", "th", "tr"}


def clean(html: str) -> str:
    """Return HTML with only what is allowed as elements, the rest as visible text.

    >>> clean('<b onclick="run()">bold</b> <script>run()</script>')
    '<b>bold</b> &lt;script&gt;run()&lt;/script&gt;'
    """
    if depth(html) > MAX_DEPTH:
        return as_text(html)
    cleaner = Cleaner(
        tags=TEXT | MATH,
        attributes=_is_allowed,
        protocols={"http", "https", "mailto", "data"},
        css_sanitizer=CSSSanitizer(allowed_css_properties=STYLES, allowed_svg_properties=()),
    )
    return cleaner.clean(html)


def as_text(text: str) -> str:
    """Return text as HTML that shows it as it was typed."""
    return f"<pre>{escape(shortened(text))}</pre>"


def shortened(text: str, limit: int = MAX_TEXT) -> str:
    more = len(text) - limit
    return text if more <= 0 else f"{text[:limit]}\n... {more} more characters ..."


def depth(html: str) -> int:
    """Return how many elements stand inside each other at most; those that end by themselves do not count."""
    open_now = deepest = 0
    for closing, tag in _TAG.findall(html):
        if tag.lower() not in _NEVER_DEEP:
            open_now = max(0, open_now + (-1 if closing else 1))
            deepest = max(deepest, open_now)
    return deepest


def _is_allowed(tag: str, name: str, value: str) -> bool:
    if name == "class":
        return CLASSES.issuperset(value.split())
    if (tag, name) == ("a", "href"):
        return bool(LINK.match(value.strip()))
    if (tag, name) == ("img", "src"):
        return bool(PICTURE.match(value))
    return name in EVERYWHERE or name in (MATH_ATTRIBUTES if tag in MATH else ATTRIBUTES.get(tag, ()))
