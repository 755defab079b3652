"""What must hold of a built release: it equals its source, leaks nothing, and its cells can be graded.

Every gate returns its problems as sentences that name the file, the cell and what is wrong; no problem, no sentence.
"""
