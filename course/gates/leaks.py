"""Nothing that nbgrader cuts out may reach candidates, in a notebook or beside it."""

from collections.abc import Iterator
from itertools import chain

from ..question import DELIMITER, split_regions, support_files, tree
from .notebooks import Question

_STUBS = "# YOUR CODE HERE\nraise NotImplementedError()\nYOUR ANSWER HERE"  # nbgrader's, in place of a solution
_TELLING = 8  # characters from which on a line is looked for inside other lines too


def check_leaks(question: Question) -> list[str]:
    """Find solutions, hidden tests, mark schemes, outputs, attachments and files that candidates must not get."""
    return [*_leaked_files(question), *_leaked_lines(question), *_leaked_results(question)]


def _leaked_files(question: Question) -> list[str]:
    allowed = {f"{question.name}.ipynb", *(path.as_posix() for path in support_files(question.source_folder))}
    extra = sorted(set(tree(question.release_folder)) - allowed)
    return [question.problem(None, f"release/ has the file {path}, which is not beside the source") for path in extra]


def _leaked_results(question: Question) -> list[str]:
    problems = []
    for cell in question.release.cells:
        carried = [key for key in ("outputs", "execution_count", "attachments") if cell.get(key)]
        problems += [question.problem(cell, f"release/ carries {key}") for key in carried]
    return problems


def _leaked_lines(question: Question) -> Iterator[str]:
    """Look for every removed line that the instructor's visible text does not have in all that candidates get."""
    shown = [_STUBS, *("\n".join(split_regions(cell)[0]) for cell in question.source.cells)]
    shown_text, shown_lines = "\n".join(shown), _lines("\n".join(shown))
    given_text = "\n".join(_release_texts(question))
    given_lines = _lines(given_text)
    for match in dict.fromkeys(DELIMITER.findall(given_text)):
        yield question.problem(None, f"release/ has the delimiter {' '.join(match)}")
    for cell in question.source.cells:
        removed = _lines("\n".join(split_regions(cell)[1]))
        secret = {line for line in removed if line not in shown_lines}
        telling = {line for line in secret if len(line) >= _TELLING and line not in shown_text}
        leaked = {line for line in telling if line in given_text} | (secret & given_lines)
        yield from (question.problem(cell, f"release/ has the line {line!r}") for line in sorted(leaked))
        if removed and not secret:
            yield question.problem(cell, "all that is cut out stands in the visible text too")


def _lines(text: str) -> set[str]:
    return {line.strip() for line in text.split("\n")} - {""}


def _release_texts(question: Question) -> Iterator[str]:
    yield from _strings(question.release)
    for path, content in tree(question.release_folder).items():
        if path != f"{question.name}.ipynb":
            yield content.decode(errors="replace")


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from chain.from_iterable(map(_strings, value.values()))
    elif isinstance(value, list):
        yield from chain.from_iterable(map(_strings, value))
