"""nbgrader's two pages of a submission, feedback and formgrader's, made so that nothing in them runs or loads."""

import copy
from html import escape
from pathlib import Path

from jinja2 import FileSystemLoader, PrefixLoader, pass_context
from nbconvert.exporters import HTMLExporter
from nbgrader.server_extensions.formgrader.handlers import template_path
from traitlets import default

from .formulas import FORMULAS
from .markdown import to_html
from .notebook import AS_TYPED, shown_notebook
from .sanitize import as_text, clean

TEMPLATES = Path(__file__).parent / "templates"


class SafePage(HTMLExporter):
    """Shows a notebook through an allow-list; the macros of nbgrader's templates are those of the folder `macros`."""

    macros = ""

    def __init__(self, **options):
        super().__init__(**options)
        self.extra_loaders = [
            FileSystemLoader([TEMPLATES / self.macros, TEMPLATES]),
            PrefixLoader({"nbgrader": FileSystemLoader(Path(template_path) / "formgrade")}),
        ]

    @default("default_preprocessors")
    def _no_other_preprocessors(self):
        return []

    def default_filters(self):
        yield from super().default_filters()
        yield "clean_html", clean

    @pass_context
    def markdown2html(self, context, source):
        """Return the Markdown of a cell, or a comment on it, as safe HTML."""
        cell = context.get("cell", {})
        if source == cell.get("source") and cell.metadata.get(AS_TYPED):
            return as_text(source)
        folder = context.get("resources", {}).get("metadata", {}).get("path", "")
        return to_html(source, cell.get("attachments"), folder)

    def from_notebook_node(self, nb, resources=None, **options):
        FORMULAS.start_page()
        return super().from_notebook_node(shown_notebook(nb), resources, **options)


class FeedbackPage(SafePage):
    """One file that is handed to the candidate, and reads without the network."""

    macros = "feedback"


class SubmissionPage(SafePage):
    """Formgrader's page of one submission; only scripts with the page's `nonce` run."""

    macros = "formgrader"
    nonce = ""

    def from_notebook_node(self, nb, resources=None, **options):
        resources = copy.copy(resources)
        resources.update({name: escape(value) for name, value in resources.items() if isinstance(value, str)})
        resources["nonce"] = self.nonce
        return super().from_notebook_node(nb, resources, **options)
