"""TeX formulas as MathML, which browsers draw without a script and without the network.

The converter recurses and backtracks: on hostile TeX it overflows its stack or never ends, and takes its process along.
So it has one of its own, `python -m course.display.formulas`, which answers a line of JSON with a line of JSON.
"""

import atexit
import json
import signal
import subprocess
import sys
import threading
from html import escape

SECONDS = 2  # for one formula; usual ones take far less than a millisecond
MAX_FAILURES = 3  # of one page, after which its formulas stay as they were typed


class Converter:
    """Converts the formulas of one page after the other; its process starts with the first formula."""

    def __init__(self):
        self.process: subprocess.Popen | None = None
        self.failures = 0
        self.lock = threading.Lock()

    def start_page(self) -> None:
        self.failures = 0

    def mathml(self, tex: str, block: bool) -> str:
        """Return a formula as MathML, or as it was typed where it is not TeX that can be drawn."""
        mark = "$$" if block else "$"
        with self.lock:
            found = self._ask(json.dumps([tex, block])) if self.failures < MAX_FAILURES else ""
        return found or f"<code>{escape(f'{mark}{tex}{mark}')}</code>"

    def _ask(self, question: str) -> str:
        if self.process is None:
            command = [sys.executable, "-P", "-m", __name__]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            self.process.stdin.write(f"{question}\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())
        except (OSError, ValueError):  # the process has ended
            self.failures += 1
            self.close()
            return ""

    def close(self) -> None:
        process, self.process = self.process, None
        if process:
            process.kill()
            process.communicate()


FORMULAS = Converter()
atexit.register(FORMULAS.close)


def answer_questions() -> None:
    """Answer what comes in on standard input, within the time for each formula; an alarm ends the process."""
    import resource

    from math_core import LatexError, LatexToMathML

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
    converter = LatexToMathML()
    for question in sys.stdin:
        tex, block = json.loads(question)
        signal.alarm(SECONDS)
        try:
            found = converter.convert_with_local_state(tex, displaystyle=block)
        except (LatexError, UnicodeEncodeError):  # a lone surrogate cannot be encoded
            found = ""
        signal.alarm(0)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    answer_questions()
