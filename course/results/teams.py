"""Group work: `teams.yaml` in the course directory says who is in which team.

    red: [ann, ben]       # a team of every question
    blue: [cyd, dan]
    q07:                  # a question with teams of its own; the teams above do not hold there
      green: [ann, cyd]
    q08: {}               # a question that everybody answers alone

A team hands in once, at submitted/TEAM/ASSIGNMENT, and is graded like a candidate: nbgrader keeps the team's name as a
student's id. The report and the export give each member the team's scores.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from ..build import BuildError, full_name

TEAM_FILE = "teams.yaml"
MAX_BYTES = 1 << 20


class TeamsError(Exception):
    """The team file is not as it must be; the message names the file, the line and the team."""


@dataclass(frozen=True)
class Teams:
    """Teams by name, each with its members: of every question, and of the questions that have teams of their own."""

    everywhere: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    own: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)  # by the assignment's full name

    def of(self, assignment: str) -> Mapping[str, tuple[str, ...]]:
        """Return the teams of an assignment; empty if everybody answers alone."""
        return self.own.get(assignment, self.everywhere)

    @property
    def names(self) -> set[str]:
        """The names of all teams."""
        return {name for group in self._groups for name in group}

    @property
    def members(self) -> set[str]:
        """The ids of all members."""
        return {member for group in self._groups for members in group.values() for member in members}

    @property
    def _groups(self) -> Sequence[Mapping[str, tuple[str, ...]]]:
        return [self.everywhere, *self.own.values()]


def read_teams(course_dir: Path, assignments: Iterable[str]) -> Teams:
    """Return the teams of a course directory; none if it has no team file.

    `assignments` are the full names of the course's assignments. Raises TeamsError.
    """
    path = Path(course_dir) / TEAM_FILE
    if not path.is_file():
        return Teams()
    root = _parse(path)
    everywhere, own, assignments = [], {}, list(assignments)
    for key, value in _pairs(path, root):
        if isinstance(value, yaml.MappingNode):
            name = _assignment(path, key, assignments)
            if name in own:
                raise _error(path, key, f"{name} has teams already")
            own[name] = _group(path, _pairs(path, value))
        else:
            everywhere.append((key, value))
    teams = Teams(_group(path, everywhere), own)
    both = sorted(teams.names & teams.members)
    if both:
        raise TeamsError(f"{path}: {both[0]!r} is the name of a team and of a member; rename the team")
    return teams


def _parse(path: Path) -> yaml.MappingNode:
    """Return the nodes of the file: nothing is constructed from it, so that neither tags nor aliases do anything."""
    try:
        data = path.read_bytes()
        if len(data) > MAX_BYTES:
            raise TeamsError(f"{path} has {len(data):,} bytes; the limit is {MAX_BYTES:,}")
        root = yaml.compose(data.decode("utf-8-sig"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TeamsError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise TeamsError(f"{path} is nested too deeply") from None
    if root is None:
        return yaml.MappingNode("", [])
    if not isinstance(root, yaml.MappingNode):
        raise _error(path, root, "a line `TEAM: [MEMBER, MEMBER]` for each team is expected")
    return root


def _pairs(path: Path, node: yaml.MappingNode) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    """Yield the keys of a mapping with their values; raises TeamsError for keys that are no name or come twice."""
    seen = set()
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _error(path, key, "a name is expected, not a list or a mapping")
        if key.value in seen:
            raise _error(path, key, f"{key.value!r} is there twice")
        seen.add(key.value)
        yield key, value


def _assignment(path: Path, key: yaml.ScalarNode, assignments: list[str]) -> str:
    try:
        return full_name(key.value, assignments)
    except BuildError as error:
        raise _error(path, key, str(error)) from None


def _group(path: Path, pairs: Iterable[tuple[yaml.ScalarNode, yaml.Node]]) -> dict[str, tuple[str, ...]]:
    """Return teams that exist side by side, so that nobody may be in two of them."""
    group, team_of = {}, {}
    for key, value in pairs:
        team = _id(path, key, "team")
        if not isinstance(value, yaml.SequenceNode):
            raise _error(path, value, f"team {team!r} needs a list of its members, such as [ann, ben]")
        if not value.value:
            raise _error(path, value, f"team {team!r} has no member")
        for node in value.value:
            member = _id(path, node, f"member of team {team!r}")
            if member in team_of:
                where = "twice in" if team_of[member] == team else f"in team {team_of[member]!r} and in"
                raise _error(path, node, f"{member!r} is {where} team {team!r}")
            team_of[member] = team
        group[team] = tuple(node.value for node in value.value)
    return group


def _id(path: Path, node: yaml.Node, what: str) -> str:
    """Return the text of a node as it is written (007 stays 007), which must be able to name a folder."""
    if not isinstance(node, yaml.ScalarNode):
        raise _error(path, node, f"a {what} is a list or a mapping, not a name")
    if not node.value or "/" in node.value or node.value.startswith(".") or not node.value.isprintable():
        raise _error(path, node, f"{node.value!r} cannot name a {what}: it must be able to name a folder")
    return node.value


def _error(path: Path, node: yaml.Node, problem: str) -> TeamsError:
    return TeamsError(f"{path}, line {node.start_mark.line + 1}: {problem}")
