"""The examiner: candidates' code runs in a sandbox, what decides on their points in a process that they cannot reach.

`examine(notebook, exam)` is the way in. A test cell calls the candidate's functions through proxies; only plain data
comes back, by value; the assertion is evaluated on this side.
"""

from .exam import Exam
from .examine import Examination, Verdict, examine, prepare
from .sandbox import Limits, SandboxError, check_sandbox

__all__ = ["Exam", "Examination", "Limits", "SandboxError", "Verdict", "check_sandbox", "examine", "prepare"]
