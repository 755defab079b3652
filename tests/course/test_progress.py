"""Progress: a bar on a terminal, plain lines in a log."""

import io

import pytest
from rich.console import Console

from course import progress
from course.progress import progress_bar


def printed(monkeypatch, steps, seconds, **options) -> str:
    clock = iter(range(0, 10_000, seconds))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    console = Console(file=io.StringIO(), width=100, **options)
    with progress_bar(console) as update:
        for done in steps:
            update("grading", done, 400)
    return console.file.getvalue()


def test_a_log_gets_a_line_now_and_then_without_control_characters(monkeypatch):
    text = printed(monkeypatch, range(0, 400, 10), seconds=4)
    lines = text.splitlines()
    assert lines[0] == "grading: 80 of 400, 2.5/s, 2 min left"
    assert 3 <= len(lines) <= 6
    assert text.isascii() and "\x1b" not in text


def test_a_run_that_goes_on_does_not_count_what_was_there_before(monkeypatch):
    text = printed(monkeypatch, [300, 310, 320], seconds=20)
    assert text == "grading: 320 of 400, 30/min, 3 min left\n"


@pytest.mark.parametrize("steps", [[], [0], [0, 200, 400]])
def test_what_is_soon_over_says_nothing_in_a_log(monkeypatch, steps):
    assert printed(monkeypatch, steps, seconds=5) == ""


def test_a_terminal_shows_count_rate_and_what_is_left():
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    with progress_bar(console) as update:
        update("grading [x]", 0, 400)
        update("grading [x]", 100, 400)
        update("grading [x]", 200, 400)
    shown = console.file.getvalue()
    assert "200/400" in shown and "left:" in shown
