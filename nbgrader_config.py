from course.examiner.nbgrader_plugin import configure

c = get_config()  # noqa: F821 (nbgrader provides it)
configure(c)
