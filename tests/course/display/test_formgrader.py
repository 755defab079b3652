import json
import math
import sys
from pathlib import Path

import pytest

from course.display import formgrader
from course.display.formgrader import refusal

CONFIG = Path(formgrader.__file__).with_name("llm-quantization-course.json")


@pytest.mark.parametrize(
    "scores",
    [
        {},
        {"manual_score": None, "extra_credit": None},
        {"manual_score": 0},
        {"manual_score": 7},
        {"manual_score": 6.5, "extra_credit": 100},
    ],
)
def test_scores_that_a_cell_can_have(scores):
    assert refusal(scores, 7) == ""


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        ({"manual_score": 7.5}, "The score 7.5 is above the cell's maximum of 7."),
        ({"manual_score": -1}, "The score -1 is below 0."),
        ({"manual_score": math.nan}, "The score 'nan' is not a number."),
        ({"manual_score": math.inf}, "The score 'inf' is not a number."),
        ({"manual_score": "5"}, "The score '5' is not a number."),
        ({"manual_score": True}, "The score 'True' is not a number."),
        ({"manual_score": 1, "extra_credit": -2}, "The extra credit -2 is below 0."),
        ({"extra_credit": [1]}, "The extra credit '[1]' is not a number."),
        ([7], "The request holds no scores."),
        (None, "The request holds no scores."),
    ],
)
def test_scores_that_it_cannot_have_are_refused_with_the_reason(scores, reason):
    assert refusal(scores, 7).startswith(reason)


def test_jupyter_loads_the_extension_before_nbgraders():
    (name,) = json.loads(CONFIG.read_text())["ServerApp"]["jpserver_extensions"]
    assert formgrader._jupyter_server_extension_points() == [{"module": name}]
    assert name < "nbgrader.server_extensions.formgrader"


def test_the_installed_package_enables_the_extension():
    installed = Path(sys.prefix) / "etc/jupyter/jupyter_server_config.d" / CONFIG.name
    assert installed.is_file(), "the package was installed before it had this extension; run: make setup"
    assert json.loads(installed.read_text()) == json.loads(CONFIG.read_text())
