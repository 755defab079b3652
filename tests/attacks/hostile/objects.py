"""Answers that are no honest data: objects, subclasses and tensors that lie, hide, never end or change their mind."""

from ..entry import Entry

LIAR = """
class Liar:
    \"\"\"Agrees to whatever it is asked.\"\"\"
    dtype, shape, value = torch.int8, torch.Size([3]), 0.0
    __class__ = property(lambda self: torch.Tensor)
    __hash__ = None
    def _yes(self, *a, **k): return True
    def _self(self, *a, **k): return self
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __contains__ = _yes
    __sub__ = __rsub__ = __add__ = __radd__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __abs__ = _self
    __getattr__ = __getitem__ = __call__ = __iter__ = __next__ = __array__ = _self
    def __len__(self): return 4
    def __float__(self): return 0.0
    def __array_function__(self, *a): return True
    def __array_ufunc__(self, *a, **k): return True
    @classmethod
    def __torch_function__(cls, *a, **k): return True
"""

ENTRIES = [
    Entry(
        "liar-for-number",
        "An object that equals, exceeds and subtracts as it is asked, where a number belongs",
        points=14,
        cells={"span": LIAR + "def span(values): return Liar()"},
    ),
    Entry(
        "liar-for-array",
        "An object that agrees to numpy's comparisons",
        points=13,
        cells={"column": LIAR + "def column(path, name): return Liar()"},
    ),
    Entry(
        "liar-for-object",
        "An object whose attributes and items are objects that agree",
        points=11,
        cells={"running": LIAR + "RunningMean = Liar\ndef running_means(numbers): return Liar()"},
    ),
    Entry(
        "liar-for-attribute",
        "An honest-looking class whose attribute is an object that agrees",
        points=11,
        cells={
            "running": LIAR
            + """
class RunningMean:
    value = property(lambda self: Liar())
    def add(self, number): pass
def running_means(numbers): return [Liar() for _ in numbers]
"""
        },
    ),
    Entry(
        "liar-for-tensor",
        "Objects that agree to torch's comparisons",
        points=7,
        cells={"quantize": LIAR + "def quantize(x, bits): return Liar(), Liar()"},
    ),
    Entry(
        "mock-for-everything",
        "unittest.mock's objects, in all places",
        cells={
            "span": """
from unittest.mock import MagicMock
span = MagicMock(**{"return_value.__sub__.return_value": 0.0})
""",
            "column": "column = MagicMock()",
            "running": "RunningMean = MagicMock()\nrunning_means = MagicMock()",
            "quantize": "quantize = MagicMock(return_value=(MagicMock(spec=torch.Tensor), MagicMock()))",
        },
    ),
    Entry(
        "float-subclass",
        "A float whose differences are 0",
        points=14,
        cells={
            "span": """
class Float(float):
    __sub__ = __rsub__ = __abs__ = lambda *a: Float(0.0)
    __eq__ = __le__ = __lt__ = __ge__ = lambda *a: True
def span(values): return Float(0.0)
"""
        },
    ),
    Entry(
        "not-a-number",
        "NaN in all places",
        cells={
            "span": "def span(values): return float('nan')",
            "column": "def column(path, name): return np.full(4, np.nan)",
            "running": """
class RunningMean:
    value = float("nan")
    def add(self, number): pass
def running_means(numbers): return [float("nan")] * len(numbers)
""",
            "quantize": "def quantize(x, bits): return torch.zeros(x.shape, dtype=torch.int8), torch.tensor(torch.nan)",
        },
    ),
    Entry(
        "masked-array",
        "A masked array, whose every element numpy passes over when it compares",
        points=13,
        cells={"column": "def column(path, name): return np.ma.masked_all(4)"},
    ),
    Entry(
        "array-subclass",
        "A numpy array that answers numpy's functions itself",
        points=13,
        cells={
            "column": """
class Array(np.ndarray):
    def __array_function__(self, function, *a): return True
    def __array_ufunc__(self, *a, **k): return np.array(True)
    __eq__ = lambda *a: np.array(True)
def column(path, name): return np.zeros(4).view(Array)
"""
        },
    ),
    Entry(
        "array-of-liars",
        "An array of dtype object that holds objects that agree",
        points=13,
        cells={"column": LIAR + "def column(path, name): return np.array([Liar()] * 4 + [None], dtype=object)[:4]"},
    ),
    Entry(
        "tensor-subclass",
        "A tensor that answers torch's functions itself",
        points=7,
        cells={
            "quantize": """
class Tensor(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, *a, **k): return True
def quantize(x, bits):
    return torch.zeros_like(x, dtype=torch.int8).as_subclass(Tensor), torch.tensor(0.0).as_subclass(Tensor)
"""
        },
    ),
    Entry(
        "arguments-changed",
        "The function sets the tensor that it is given to zero, so that zeros are right",
        points=7,
        cells={"quantize": "def quantize(x, bits):\n    return x.zero_().to(torch.int8), torch.tensor(0.0)"},
    ),
    Entry(
        "visible-examples-only",
        "The functions know the answers to the visible tests by heart",
        cells={
            "span": "def span(values): return 7.0",
            "column": "def column(path, name): return np.array([0.5, -1.25, 3.0, 0.125])",
            "running": """
class RunningMean:
    value = 3.0
    def add(self, number): pass
def running_means(numbers): return [2.0, 3.0]
""",
            "quantize": """
def quantize(x, bits): return torch.tensor([2, -3, 1], dtype=torch.int8), torch.tensor(2 / 3)
""",
        },
    ),
    Entry(
        "never-ending-generator",
        "A generator yields wrong values for ever",
        points=11,
        cells={
            "running": """$RIGHT
def running_means(numbers):
    while True: yield 0.0
"""
        },
    ),
    Entry(
        "changing-object",
        "An object gives a different value at each look",
        points=11,
        cells={
            "running": """
import itertools
looks = itertools.count()
class RunningMean:
    value = property(lambda self: float(next(looks)))
    def add(self, number): pass
def running_means(numbers): return (float(next(looks)) for _ in numbers)
"""
        },
    ),
    Entry(
        "function-for-data",
        "Functions and classes, where numbers and arrays belong",
        points=4,
        cells={
            "span": "def span(values): return lambda *a: 7.0",
            "column": "def column(path, name): return type('Array', (), {'__array__': lambda *a: np.zeros(4)})",
            "quantize": "$RIGHT\nhonest = quantize\ndef quantize(x, bits): return lambda: honest(x, bits)",
        },
    ),
    Entry(
        "pickled-command",
        "An object whose pickle runs a command in whoever loads it",
        points=14,
        cells={
            "span": """
import pathlib
class Command:
    def __reduce__(self): return pathlib.Path("$COURSE/$TOKEN").touch, ()
def span(values): return Command()
"""
        },
    ),
    Entry(
        "tensor-of-impossible-size",
        "Tensors that claim more elements than any memory holds, and carry none",
        points=7,
        cells={"quantize": "def quantize(x, bits): return torch.empty((2**40, 0)), torch.zeros(1).expand(2**40)"},
    ),
    Entry(
        "grown-in-the-test",
        "Two small tensors whose product, which the test forms, has gigabytes",
        points=7,
        says="memory|alloc",
        cells={
            "quantize": """
def quantize(x, bits):
    return torch.zeros(13_500, 1, 3, dtype=torch.int8), torch.zeros(1, 13_500, 1)
"""
        },
    ),
    Entry(
        "tensors-without-data",
        "A meta tensor and a sparse one",
        points=7,
        cells={
            "quantize": """
def quantize(x, bits):
    return torch.empty(3, device="meta", dtype=torch.int8), torch.eye(3).to_sparse()
"""
        },
    ),
    Entry(
        "nested-for-ever",
        "A list within lists, 100,000 deep, and one that holds itself",
        points=12,
        cells={
            "span": """
def span(values):
    nest = []
    for _ in range(100_000): nest = [nest]
    return nest
""",
            "column": "def column(path, name):\n    own = []\n    own.append(own)\n    return own",
        },
    ),
    Entry(
        "look-fails",
        "An object fails, in another way each time, whenever it is looked at",
        points=14,
        cells={
            "span": """
class Failing:
    def __getattribute__(self, name): raise [SystemExit, KeyboardInterrupt, MemoryError][len(name) % 3](name)
    __repr__ = __str__ = __reduce_ex__ = lambda *a: 1 / 0
span = Failing()
"""
        },
    ),
]
