"""The instructor's notebooks run from top to bottom, experiments on the real model included."""

from pathlib import Path

import nbclient
import pytest

from course.build import known_assignments
from course.question import read_source

SOURCE = Path(__file__).parents[2] / "source"


@pytest.mark.rehearsal
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", known_assignments(SOURCE))
def test_the_instructors_notebook_runs_to_its_end(name, tmp_path):
    notebook = read_source(SOURCE / name / f"{name}.py")
    client = nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    experiments = [cell for cell in notebook.cells if "experiment" in cell.metadata.get("tags", ())]
    assert any(cell.outputs for cell in experiments)
    said = [
        output.text for cell in notebook.cells for output in cell.get("outputs", ()) if output.get("name") == "stderr"
    ]
    assert said == []
