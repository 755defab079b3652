"""What feedback does not show: the hidden tests and the mark schemes."""

from nbgrader.preprocessors import ClearHiddenTests, ClearMarkScheme
from nbgrader.utils import is_locked


class LockedCellsOnly:
    """For a preprocessor of nbgrader's that clears regions: leaves alone what a candidate may have typed."""

    def preprocess_cell(self, cell, resources, cell_index):
        return super().preprocess_cell(cell, resources, cell_index) if is_locked(cell) else (cell, resources)


class HideTests(LockedCellsOnly, ClearHiddenTests):
    """Clears the hidden tests of the instructor's cells."""


class HideMarkSchemes(LockedCellsOnly, ClearMarkScheme):
    """Clears the mark schemes of the instructor's cells."""
