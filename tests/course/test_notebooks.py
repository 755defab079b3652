"""The instructor's notebooks run from top to bottom, experiments on the real models included."""

from pathlib import Path

import pytest

from course.build import known_assignments
from course.gates.run import EXPERIMENT, run_source
from course.question import read_source

SOURCE = Path(__file__).parents[2] / "source"


@pytest.mark.rehearsal
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", known_assignments(SOURCE))
def test_the_instructors_notebook_runs_to_its_end(name):
    notebook = read_source(SOURCE / name / f"{name}.py")
    run_source(notebook, SOURCE / name)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert [output.evalue for output in outputs if output.output_type == "error"] == []
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    experiments = [cell for cell in notebook.cells if EXPERIMENT in cell.metadata.get("tags", ())]
    assert any(cell.outputs for cell in experiments)
