"""What a browser shows of a submission, in feedback and in formgrader: readable, and nothing in it runs or loads."""
