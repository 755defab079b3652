"""The console script: commands, exit codes, messages."""

import json

import pytest

from course import cli
from course.grading.grade import Outcome


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for command in ("build", "grade", "regrade", "check", "report", "fetch", "study", "rehearse", "demo"):
        assert f"\n    {command}" in shown


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["build", "q77"], "'q77' is not a question; known are"),
        (["check", "q77"], "'q77' is not a question; known are"),
        (["check", "q06", "--notebook", "nowhere.ipynb"], "nowhere.ipynb` cannot be read"),
        (["fetch", "gpt5"], "gpt5"),
        (["grade", "q77", "--course-dir", "{tmp}"], "'q77' is not a question; known are none"),
        (["grade", "--course-dir", "{tmp}"], "there is no submission at"),
        (["grade", "--course-dir", "{tmp}", "--workers", "0"], "0 workers can grade nothing"),
        (["regrade", "--course-dir", "{tmp}"], "there is no submission at"),
        (["report", "--course-dir", "{tmp}"], "gradebook"),
        (["demo", "{tmp}"], "is there already, and no demo made it"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(tmp_path, capsys, arguments, reason):
    given = [part.replace("{tmp}", str(tmp_path)) for part in arguments]
    assert cli.main(given) == 2
    captured = capsys.readouterr()
    assert reason in captured.err and "Traceback" not in captured.err


def test_grade_tells_by_exit_code_whether_all_was_graded(monkeypatch, capsys, tmp_path):
    (tmp_path / "release" / "q90_sample").mkdir(parents=True)
    outcomes = [Outcome("ann", "q90_sample", "graded", 5.0, 6.0, "", [])]
    monkeypatch.setattr("course.grading.grade.grade", lambda *_, **__: outcomes)
    assert cli.main(["grade", "q90", "--course-dir", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["points"] == 5
    outcomes.append(Outcome("bea", "q90_sample", reason="it is not [JSON]"))
    assert cli.main(["grade", "--course-dir", str(tmp_path)]) == 1
    assert "it is not [JSON]" in capsys.readouterr().out
