"""A Jupyter server extension that puts safer handlers before those of nbgrader's formgrader.

Jupyter loads extensions in the order of their names, and the first handler of an address answers: this module's name
must stay before `nbgrader`.
"""

import json
import math
import secrets
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

from jupyter_server.serverapp import ServerApp
from jupyter_server.utils import url_path_join
from nbgrader.api import MissingEntry
from nbgrader.coursedir import CourseDirectory
from nbgrader.server_extensions.formgrader import apihandlers, handlers
from nbgrader.server_extensions.formgrader.base import check_notebook_dir, check_xsrf
from tornado import web
from tornado.ioloop import IOLoop

from .pages import SubmissionPage

STATIC = Path(__file__).parent / "static"
FILE_POLICY = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"
PAGE_POLICY = (
    "default-src 'none'; script-src 'nonce-{}'; connect-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'"
)
ONE_AT_A_TIME = ThreadPoolExecutor(1, thread_name_prefix="autograde")  # nbgrader's converters change the directory


class SubmissionHandler(handlers.SubmissionHandler):
    """The page of one submission, on which nothing that a candidate wrote runs."""

    @cached_property
    def nonce(self) -> str:
        return secrets.token_urlsafe(16)

    @property
    def content_security_policy(self) -> str:
        return f"{super().content_security_policy}; {PAGE_POLICY.format(self.nonce)}"

    @property
    def exporter(self) -> SubmissionPage:
        page = self.settings.get("course_submission_page")
        if page is None:
            page = self.settings["course_submission_page"] = SubmissionPage(config=super().exporter.config)
        page.nonce = self.nonce
        return page


class SubmissionFilesHandler(handlers.SubmissionFilesHandler):
    """A file that was handed in: shown, if it is a page or a picture, as from nowhere and without scripts."""

    @property
    def content_security_policy(self) -> str:
        return f"{super().content_security_policy}; {FILE_POLICY}"


class GradeHandler(apihandlers.GradeHandler):
    """Scores of a cell; those that it cannot have are refused, with the reason."""

    @web.authenticated
    @check_xsrf
    @check_notebook_dir
    def put(self, grade_id):
        try:
            grade = self.gradebook.find_grade_by_id(grade_id)
        except MissingEntry:
            raise web.HTTPError(404) from None
        if reason := refusal(self.get_json_body(), grade.max_score):
            self.set_status(400)
            self.write({"message": reason})
        else:
            super().put(grade_id)


class AutogradeHandler(apihandlers.AutogradeHandler):
    """Grades one submission while the server goes on answering."""

    @web.authenticated
    @check_xsrf
    @check_notebook_dir
    async def post(self, assignment_id, student_id):
        api, shared = self.api, self.coursedir
        settings = {name: getattr(shared, name) for name in shared.trait_names(config=True)}
        api.coursedir = CourseDirectory(parent=shared.parent, **settings)  # grading changes it
        result = await IOLoop.current().run_in_executor(ONE_AT_A_TIME, api.autograde, assignment_id, student_id)
        self.write(json.dumps(result))


def refusal(scores: object, max_score: float) -> str:
    """Return why a cell cannot have these scores; nothing if it can.

    `scores` are a request's `manual_score`, up to the cell's maximum, and `extra_credit`, which comes on top of it.

    >>> refusal({"manual_score": 9}, 7)
    "The score 9 is above the cell's maximum of 7. What is above it has a field of its own, extra credit."
    """
    if not isinstance(scores, dict):
        return "The request holds no scores."
    for name, limit in (("manual_score", max_score), ("extra_credit", math.inf)):
        what, value = "extra credit" if name == "extra_credit" else "score", scores.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return f"The {what} {str(value)[:40]!r} is not a number."
        if value < 0:
            return f"The {what} {value:g} is below 0."
        if value > limit:
            more = "What is above it has a field of its own, extra credit."
            return f"The {what} {value:g} is above the cell's maximum of {limit:g}. {more}"
    return ""


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(server: ServerApp) -> None:
    answers = [
        (r"/formgrader/static/course/(.*)", web.StaticFileHandler, {"path": str(STATIC)}),
        (r"/formgrader/api/grade/([^/]+)", GradeHandler),
        (r"/formgrader/api/submission/([^/]+)/([^/]+)/autograde", AutogradeHandler),
        (r"/formgrader/submissions/([^/]+)/?", SubmissionHandler),
        (
            r"/formgrader/submissions/(?!components/|[^/]+/(?:prev|next)(?:_incorrect)?/?$)([^/]+/.+)",
            SubmissionFilesHandler,
        ),
    ]
    prefix = server.web_app.settings["base_url"]
    server.web_app.add_handlers(".*$", [(url_path_join(prefix, path), *rest) for path, *rest in answers])


async def _start_jupyter_server_extension(server: ServerApp) -> None:
    """By now nbgrader's extension is loaded: its other pages write students' names unescaped."""
    if "nbgrader_jinja2_env" in server.web_app.settings:
        server.web_app.settings["nbgrader_jinja2_env"].autoescape = True
