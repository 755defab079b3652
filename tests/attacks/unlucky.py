"""Honest submissions that something happened to. They get the points that the work deserves, or a note says why not."""

import copy
import json

import nbformat
import nbformat.v4 as nbf

from .entry import ASSIGNMENT, MAX_POINTS, NOTEBOOK, Entry, find, graded_cells


def honest(name: str, does: str, code: str = "", **details) -> Entry:
    """Right answers, all points."""
    return Entry(name, does, code, **{"points": MAX_POINTS, "right": True, **details})


def changed(**fields):
    """The notebook's JSON with other values at its top."""

    def raw(text: str) -> bytes:
        return json.dumps({**json.loads(text), **fields}).encode()

    return raw


def with_umlauts(encoding: str):
    """The file in another encoding, with letters that show it."""

    def raw(text: str) -> bytes:
        return text.replace("One large value", "Größe: ein großer Wert").encode(encoding)

    return raw


def old_format(version: int):
    def raw(text: str) -> bytes:
        return nbformat.writes(nbformat.convert(nbformat.reads(text, as_version=4), version)).encode()

    return raw


def without_ids(text: str) -> bytes:
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        del cell["id"]
    return json.dumps({**notebook, "nbformat_minor": 4}).encode()


def twice_the_same_id(text: str) -> bytes:
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        cell["id"] = "the-same"
    return json.dumps(notebook).encode()


def from_colab(notebook):
    """Colab keeps its own metadata, and loses those of others."""
    for cell in notebook.cells:
        cell.metadata = {"id": "aBcD", "colab": {"base_uri": "https://localhost:8080/"}, "outputId": "x"}
    notebook.metadata.colab = {"provenance": [], "toc_visible": True}
    notebook.metadata.accelerator = "GPU"


def from_vs_code(notebook):
    for cell in notebook.cells:
        cell.metadata = {"vscode": {"languageId": "python"}}
    notebook.metadata.language_info.version = "3.12.1"


def some_marks_lost(notebook):
    for name in ("test-span", "quantize", "test-running", "tools", "answer"):
        del find(notebook, name).metadata["nbgrader"]


def split(notebook):
    """The editor's split keeps the metadata in both halves."""
    cell = find(notebook, "running")
    second = copy.deepcopy(cell)
    cell.source, rest = cell.source.split("def running_means", 1)
    second.source, second.id = f"def running_means{rest}", "second"
    notebook.cells.insert(notebook.cells.index(cell) + 1, second)


def copied(notebook):
    """An answer is kept in a copy below, and an old attempt of it above."""
    cell = find(notebook, "quantize")
    for offset, source in ((0, "def quantize(x, bits):\n    raise NotImplementedError()"), (2, cell.source)):
        twin = copy.deepcopy(cell)
        twin.source, twin.id = source, f"copy-{offset}"
        notebook.cells.insert(notebook.cells.index(cell) + offset, twin)


def test_copied(notebook):
    cell = find(notebook, "test-span")
    notebook.cells.insert(notebook.cells.index(find(notebook, "span")), copy.deepcopy(cell))


def moved(notebook):
    """An answer stands below its test: the candidate ran the cells in another order."""
    cell = find(notebook, "span")
    notebook.cells.remove(cell)
    notebook.cells.insert(notebook.cells.index(find(notebook, "test-column")), cell)


def tests_lost(notebook):
    for name in ("test-span", "test-quantize", "tools", "rubric-depth"):
        notebook.cells.remove(find(notebook, name))


def answer_in_new_cell(notebook):
    """The cell of the answer was deleted, and the answer written into a cell of its own."""
    cell = find(notebook, "span")
    notebook.cells[notebook.cells.index(cell)] = nbf.new_code_cell(cell.source)


def answer_as_text(notebook):
    cell = find(notebook, "answer")
    notebook.cells[notebook.cells.index(cell)] = nbf.new_markdown_cell(cell.source)


def tests_edited(notebook):
    for cell in graded_cells(notebook):
        cell.source = cell.source.replace("assert", "#assert").replace("1.0", "2.0") + "\nprint(x)"


def imports_lost(notebook):
    notebook.cells.remove(next(cell for cell in notebook.cells if cell.cell_type == "code"))


def joined(notebook):
    """The answer was merged with the test below it: the metadata of the first cell stays."""
    first, second = find(notebook, "span"), find(notebook, "test-span")
    first.source = f"{first.source}\n\n{second.source}"
    notebook.cells.remove(second)


def large_outputs(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [nbf.new_output("stream", text="loss: 0.123\n" * 100_000)]
            cell.execution_count = 7


def first_cell(source: str):
    def edit(notebook):
        notebook.cells.insert(1, nbf.new_code_cell(source))

    return edit


def last_cell(source: str):
    def edit(notebook):
        notebook.cells.append(nbf.new_code_cell(source))

    return edit


def renamed(name: str):
    def files(folder, place):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / NOTEBOOK).rename(folder / name)

    return files


def with_remains(folder, place):
    (folder / ".ipynb_checkpoints").mkdir()
    release = place.course / "release" / ASSIGNMENT / NOTEBOOK
    for name in (f".ipynb_checkpoints/{ASSIGNMENT}-checkpoint.ipynb", f"{ASSIGNMENT}-Copy1.ipynb"):
        (folder / name).write_bytes(release.read_bytes())
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / f"._{NOTEBOOK}").write_bytes(b"\x00\x05\x16\x07")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")


def data_edited(folder, place):
    (folder / "weights.csv").write_text("layer;weight;scale\r\n0;0,5;2,0\r\n")


ENTRIES = [
    honest(
        "byte-order-mark", "An editor put a byte-order mark before the file", raw=lambda text: text.encode("utf-8-sig")
    ),
    honest("utf-16", "An editor saved the file as UTF-16", or_look=True, raw=with_umlauts("utf-16")),
    honest("latin-1", "An editor saved the file as latin-1", or_look=True, raw=with_umlauts("latin-1")),
    honest("old-format", "The file is of format 3", or_look=True, raw=old_format(3)),
    honest("future-minor", "The file is of format 4.99", raw=changed(nbformat_minor=99)),
    honest("future-format", "The file is of format 5", or_look=True, raw=changed(nbformat=5)),
    honest("without-ids", "The cells have no ids", raw=without_ids),
    honest("same-ids", "The cells have the same id", raw=twice_the_same_id),
    honest("colab", "Colab lost the metadata", or_look=True, edit=from_colab),
    honest("vs-code", "An editor lost the metadata", or_look=True, edit=from_vs_code),
    honest("some-marks-lost", "Some cells lost their metadata", or_look=True, edit=some_marks_lost),
    honest("split-cell", "An answer was split in two", edit=split),
    honest("copied-cell", "An answer was copied, and an older attempt was left above it", edit=copied),
    honest("copied-test", "A test was copied and stands before its answer too", edit=test_copied),
    honest("moved-cell", "An answer stands below its test", or_look=True, edit=moved),
    honest("deleted-tests", "Tests and other locked cells were deleted", edit=tests_lost),
    honest("answer-in-new-cell", "An answer was written into a cell of its own", edit=answer_in_new_cell),
    honest(
        "written-answer-in-new-cell",
        "The written answer stands in a cell of its own",
        or_look=True,
        edit=answer_as_text,
    ),
    honest("joined-cells", "An answer was merged with the test below it", or_look=True, edit=joined),
    honest("edited-tests", "The tests were edited while searching for a mistake", edit=tests_edited),
    honest(
        "lost-imports",
        "The cell with the imports was deleted, and each answer imports what it needs",
        "import numpy as np\nimport torch",
        edit=imports_lost,
    ),
    honest("renamed", "The browser renamed the file: (1)", or_look=True, files=renamed(f"{ASSIGNMENT} (1).ipynb")),
    honest("in-a-folder", "The file lies in a folder of a ZIP", or_look=True, files=renamed(f"hand-in/{NOTEBOOK}")),
    honest("remains", "Checkpoints, copies and a system's own files lie beside the notebook", files=with_remains),
    honest("edited-data", "A spreadsheet saved the support file in another way", files=data_edited),
    honest(
        "warnings",
        "Functions print, log and warn, also of what is deprecated",
        cells={
            "span": """
import logging, sys, warnings
def span(values):
    warnings.warn("slow", DeprecationWarning, stacklevel=1)
    logging.warning("called")
    print("span of", values)
    print("so it is", file=sys.stderr)
    np.log(np.zeros(1))
    return float(max(values) - min(values))
""",
            "quantize": """
def quantize(x, bits):
    np.divide(1.0, np.zeros(2))
    x = torch.from_numpy(np.frombuffer(x.numpy().tobytes(), dtype=np.float32)).reshape(x.shape)
    scale = x.abs().max() / (2 ** (bits - 1) - 1)
    return torch.round(x / scale).to(torch.int8), scale
""",
        },
    ),
    honest(
        "crash-at-the-end",
        "The last exercise crashes the interpreter",
        points=7,
        says="SIGSEGV|crash|ended",
        cells={"quantize": "import ctypes\ndef quantize(x, bits):\n    ctypes.string_at(0)"},
    ),
    honest("exception-in-other-cell", "A cell that nothing depends on fails", edit=first_cell("undefined_name + 1")),
    honest("broken-cell", "A cell holds notes that are no Python", edit=first_cell("TODO: ask why this (fails")),
    honest(
        "magics",
        "Lines for timing, installing and plotting were left",
        """
%matplotlib inline
%timeit -n1 -r1 sum(range(10))
!pip install numpy
%load_ext autoreload
%autoreload 2
%time pass
""",
    ),
    honest("question", "A cell asks the reader", edit=first_cell("name = input('Your name? ')")),
    honest(
        "experiment-that-takes-long",
        "A cell at the end trains for an hour",
        edit=last_cell("import time\ntime.sleep(3600)"),
    ),
    honest(
        "somewhat-slow",
        "Functions take half of the time that they may",
        cells={
            "span": "import time\ndef span(values):\n    time.sleep(0.2)\n    return float(max(values) - min(values))"
        },
    ),
    honest(
        "global-settings",
        "Seeds, default type, threads, print options and gradients are set for all",
        """
import random
random.seed(0), np.random.seed(0), torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
torch.set_printoptions(precision=1)
torch.set_grad_enabled(False)
np.seterr(all="ignore")
""",
    ),
    honest(
        "plots",
        "Plots are drawn and shown",
        """
import matplotlib.pyplot as plt
plt.plot([1, 2, 3])
plt.show()
plt.hist(np.arange(100))
""",
    ),
    honest(
        "other-types",
        "Right values of other types: numpy's numbers, float16 and tensors that carry gradients",
        cells={
            "span": "def span(values):\n    return np.float64(max(values) - min(values))",
            "running": """
class RunningMean:
    def __init__(self):
        self.numbers = []

    def add(self, number):
        self.numbers.append(np.float16(number))

    @property
    def value(self):
        return np.mean(np.array(self.numbers, dtype=np.float64))


def running_means(numbers):
    return [float(np.mean(numbers[: end + 1])) for end in range(len(numbers))]
""",
            "quantize": """
def quantize(x, bits):
    scale = torch.nn.Parameter(x.abs().max() / (2 ** (bits - 1) - 1))
    return torch.round(x / scale).detach().to(torch.int8).T.contiguous().T, scale
""",
        },
    ),
    honest(
        "classes-and-helpers-elsewhere",
        "Answers build on classes and helpers of other cells, on inheritance and on letters beyond ASCII",
        cells={
            "span": """
from dataclasses import dataclass
@dataclass
class Größe:
    größte: float
    kleinste: float
    def spanne(self): return self.größte - self.kleinste
class Base:
    def __init__(self): self.numbers = []
    def add(self, number): self.numbers.append(number)
def span(values): return float(Größe(max(values), min(values)).spanne())
""",
            "running": """
class RunningMean(Base):
    @property
    def value(self): return sum(self.numbers) / len(self.numbers)
def running_means(numbers):
    mean = RunningMean()
    for number in numbers:
        mean.add(number)
        yield mean.value
""",
        },
    ),
    honest(
        "processes-and-threads",
        "An answer uses threads and processes as they are meant",
        cells={
            "span": """
import concurrent.futures, multiprocessing
def span(values):
    with multiprocessing.get_context("fork").Pool(2) as pool: largest = pool.apply(max, (values,))
    with concurrent.futures.ThreadPoolExecutor(2) as pool: return float(largest - pool.submit(min, values).result())
""",
        },
    ),
    honest(
        "recursive",
        "An answer recurses some thousand times",
        cells={
            "span": """
import sys
sys.setrecursionlimit(6000)
def depth(n): return 0 if n == 0 else depth(n - 1)
def span(values): return float(max(values) - min(values) + depth(3000))
"""
        },
    ),
    honest("large-outputs", "The file holds megabytes of honest output", edit=large_outputs),
    honest(
        "writes-files",
        "An answer writes and reads a file of its own",
        cells={
            "span": """
import json, tempfile
def span(values):
    with open("values.json", "w") as file: json.dump(values, file)
    with tempfile.NamedTemporaryFile() as file: file.write(b"1")
    return float(max(json.load(open("values.json"))) - min(values))
"""
        },
    ),
]
