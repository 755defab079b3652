"""The course model: a small Llama of our own, and the way it is made: `python -m course.model`."""
