"""The sample question passes every gate; a release that is not what its source gives does not."""

from course.gates.release import check_release

from .faulty import NAME, path_of, replace


def test_sample_passes_every_gate(built_once):
    assert check_release(None, source_dir=built_once / "source", course_dir=built_once) == []


def test_release_that_was_not_rebuilt_has_drifted(sample_course):
    replace(path_of(sample_course, "source", ".py"), "How many bits", "How many digits")
    found = check_release(["q90"], source_dir=sample_course / "source", course_dir=sample_course, run=False)
    assert found == [f"{NAME}/{NAME}.ipynb: differs from what the source gives; run `course build {NAME}`"]


def test_drift_sees_missing_and_foreign_files(sample_course):
    folder = sample_course / "release" / NAME
    (folder / "bits.svg").rename(folder / "helper.py")
    (sample_course / "release/q91_gone").mkdir()
    found = check_release(None, source_dir=sample_course / "source", course_dir=sample_course, run=False)
    assert found == [
        f"{NAME}/bits.svg: is missing in release/; run `course build {NAME}`",
        f"{NAME}/helper.py: is in release/ but the source does not give it",
        "q91_gone: is in release/ but has no source",
        f"{NAME}: release/ has the file helper.py, which is not beside the source",
    ]


def test_missing_or_broken_release_is_a_problem(sample_course):
    for content in ("{", None):
        path = path_of(sample_course, "release")
        path.write_text(content) if content else path.unlink()
        found = check_release(None, source_dir=sample_course / "source", course_dir=sample_course, run=False)
        assert len(found) == 2 and "cannot be read" in found[1]


def test_text_that_does_not_build_is_a_problem(sample_course):
    replace(path_of(sample_course, "source", ".py"), "    ### END SOLUTION", "")
    found = check_release(None, source_dir=sample_course / "source", course_dir=sample_course, run=False)
    assert [problem.split(":")[0] for problem in found] == ["cannot be built", NAME]
