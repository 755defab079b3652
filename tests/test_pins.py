"""The pins stand in pyproject.toml; environment.yml says the same."""

import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_environment_lists_the_pins_of_pyproject():
    extras = project()["optional-dependencies"]
    pins = sorted(project()["dependencies"] + [pin for extra in extras.values() for pin in extra])
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = (entry["pip"] for entry in conda if isinstance(entry, dict))
    assert pip == [*pins, "--editable ."]
    assert f"python{project()['requires-python']}" in conda


def test_every_dependency_is_pinned():
    extras = project()["optional-dependencies"]
    for pin in project()["dependencies"] + [pin for extra in extras.values() for pin in extra]:
        assert pin.count("==") == 1, pin
