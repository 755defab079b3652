"""nbgrader's course directory: its configuration, with the examiner always plugged in."""

from pathlib import Path

from traitlets.config import Config, PyFileConfigLoader

from .examiner.nbgrader_plugin import configure


def load_config(course_dir: Path) -> Config:
    """The configuration of a course directory: the examiner's, changed by nbgrader_config.py if there is one."""
    course_dir = Path(course_dir).resolve()
    config = Config()
    configure(config)
    if (course_dir / "nbgrader_config.py").is_file():
        config.merge(PyFileConfigLoader("nbgrader_config.py", path=str(course_dir)).load_config())
    config.CourseDirectory.root = str(course_dir)
    return config
