"""The team file: what it may say, and what each error names."""

import pytest

from course.results.teams import Teams, TeamsError, read_teams

ASSIGNMENTS = ["q06_blocks", "q07_quants"]


@pytest.fixture
def read(tmp_path):
    def read(text):
        (tmp_path / "teams.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_teams(tmp_path, ASSIGNMENTS)

    return read


def test_without_a_file_there_are_no_teams(tmp_path, read):
    assert read_teams(tmp_path, ASSIGNMENTS) == Teams() and read("") == Teams() and read("# later\n") == Teams()


def test_a_question_of_its_own_replaces_the_teams_of_every_question(read):
    teams = read("red: [ann, ben]\nblue: [cyd]\nq07:\n  green: [ann, cyd]\n")
    assert teams.of("q06_blocks") == {"red": ("ann", "ben"), "blue": ("cyd",)}
    assert teams.of("q07_quants") == {"green": ("ann", "cyd")}
    assert teams.names == {"red", "blue", "green"} and teams.members == {"ann", "ben", "cyd"}
    assert read("red: [ann]\nq06: {}\n").of("q06_blocks") == {}


def test_ids_are_read_as_they_are_written(read):
    teams = read("007: [010, 1e3, no, null, 2026-01-01, 0x1F]\n\N{LATIN SMALL LETTER E WITH ACUTE}: ['a b']")
    assert teams.of("q06_blocks") == {"007": ("010", "1e3", "no", "null", "2026-01-01", "0x1F"), "é": ("a b",)}


@pytest.mark.parametrize(
    "text, problem",
    [
        ("red: [ann]\nblue: []", "line 2: team 'blue' has no member"),
        ("red:\n  - ann\n  - ann", "line 3: 'ann' is twice in team 'red'"),
        ("red: [ann]\nblue: [ben,\n ann]", "line 3: 'ann' is in team 'red' and in team 'blue'"),
        ("q06:\n  red: [ann]\n  blue: [ann]", "line 3: 'ann' is in team 'red' and in team 'blue'"),
        ("red: [ann]\nred: [ben]", "line 2: 'red' is there twice"),
        ("red: ann, ben", "line 1: team 'red' needs a list of its members"),
        ("red:", "line 1: team 'red' needs a list of its members"),
        ("red: [[ann]]", "line 1: a member of team 'red' is a list or a mapping"),
        ("red: [ann/ben]", "'ann/ben' cannot name a member"),
        ("..: [ann]", "'..' cannot name a team"),
        ('red: ["a\\0b"]', "cannot name a member"),
        ("? [red]\n: [ann]", "line 1: a name is expected"),
        ("q09:\n  red: [ann]", "line 1: 'q09' is not a question; known are q06_blocks, q07_quants"),
        ("q06:\n  red: [ann]\nq06_blocks:\n  red: [ann]", "line 3: q06_blocks has teams already"),
        ("q06:\n  q07:\n    red: [ann]", "line 3: team 'q07' needs a list"),
        ("red: [ann]\nq07:\n  ann: [ben]", "'ann' is the name of a team and of a member"),
        ("- red", "line 1: a line `TEAM: .MEMBER, MEMBER.` for each team is expected"),
        ("red: [ann", "is not YAML: .*line 1"),
        ("red: [ann]\n---\nblue: [ben]", "is not YAML"),
        (b"red: [\xff]", "is not YAML"),
        ("red: " + "[" * 1500, "nested too deeply|is not YAML"),
        ("#" * (1 << 20) + "\n", "bytes; the limit is"),
    ],
)
def test_what_is_wrong_is_named(read, text, problem):
    with pytest.raises(TeamsError, match=rf"teams\.yaml.*({problem})"):
        read(text)


def test_tags_construct_nothing(read):
    with pytest.raises(TeamsError, match="is a list or a mapping"):
        read("red: [!!python/object/apply:os.getcwd [], ann]")
    assert read("red: [!!python/name:os.getcwd ann]").of("q06_blocks") == {"red": ("ann",)}


def test_aliases_that_would_grow_are_refused_at_once(read):
    bomb = "a: &a [x]\n" + "".join(
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    with pytest.raises(TeamsError, match="a member of team 'b' is a list"):
        read(bomb)
    with pytest.raises(TeamsError, match="is a list"):
        read("red: &red [*red]")
