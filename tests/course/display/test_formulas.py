import pytest

from course.display.formulas import MAX_FAILURES, Converter

COURSE = [
    r"q = \operatorname{clamp}\left(\left\lfloor \frac{x}{s} \right\rceil + z,\; 0,\; 2^b - 1\right)",
    r"\hat{x}_i = s \cdot (q_i - z), \text{MSE} = \frac{1}{n}\sum_{i=1}^{n} (x_i - \hat{x}_i)^2 \le \frac{s^2}{12}",
    r"\begin{cases} \lfloor x \rfloor & \text{if } x \ge 0 \\ \lceil x \rceil & \text{otherwise} \end{cases}",
    r"W = \begin{pmatrix} w_{11} & \cdots \\ \vdots & \ddots \end{pmatrix} \in \mathbb{R}^{m \times n}",
    r"\begin{aligned} y &= W x \\ &= (W D)(D^{-1} x) \end{aligned}",
    r"\operatorname*{arg\,min}_{\hat W} \lVert W X - \hat W X \rVert_2^2",
]
NEVER_ENDS = "[" * 40
OVERFLOWS = r"\sqrt{" * 50_000


@pytest.fixture
def converter():
    converter = Converter()
    yield converter
    converter.close()


@pytest.mark.parametrize("tex", COURSE)
def test_formulas_of_the_course_are_drawn(converter, tex):
    assert converter.mathml(tex, block=True).startswith('<math display="block">')


@pytest.mark.parametrize("tex", ["", "x_{", r"\href{javascript:run()}{x}", r"\includegraphics{<b>}", "\ud800"])
def test_what_cannot_be_drawn_stays_as_it_was_typed(converter, tex):
    shown = converter.mathml(tex, block=False)
    assert shown.startswith(("<code>$", "<math>")) and "<b>" not in shown and "href" not in shown.replace(r"\href", "")


def test_text_in_a_formula_is_text(converter):
    assert "&lt;b&gt;" in converter.mathml(r"\text{<b>}", block=False)


def test_a_formula_that_ends_the_converter_does_not_end_the_page(converter):
    assert converter.mathml(OVERFLOWS, block=False).startswith("<code>")
    assert converter.mathml("x", block=False) == "<math><mi>x</mi></math>"


def test_a_formula_that_never_ends_is_stopped(converter):
    assert converter.mathml(NEVER_ENDS, block=False).startswith("<code>")
    assert converter.mathml("x", block=False) == "<math><mi>x</mi></math>"


def test_a_page_has_few_failures_and_the_next_page_begins_anew(converter):
    for _ in range(MAX_FAILURES):
        converter.mathml(OVERFLOWS, block=False)
    assert converter.mathml("x", block=False) == "<code>$x$</code>"
    assert converter.process is None
    converter.start_page()
    assert converter.mathml("x", block=False) == "<math><mi>x</mi></math>"
