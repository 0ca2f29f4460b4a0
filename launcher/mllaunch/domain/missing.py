"""Finds in the last words of a task which file or module it died for, so that the cause can be named."""

from __future__ import annotations

import re

_REASON = r"(?:\[Errno 2\] )?No such file or directory"

# Python: [Errno 2] No such file or directory: 'data/x.csv' [-> 'y'], quoted as by repr; b'...' for bytes.
_QUOTED = re.compile(_REASON + r""": b?('(?:[^'\\\n]|\\.)+'|"(?:[^"\\\n]|\\.)+")""")
# HDF5: name = 'x.h5', errno = 2
_HDF5 = re.compile(r"name = '([^'\n]+)', errno = 2\b")
# C programs and shells. cat: x: No such ...; sh: 1: cannot open x: No such ...;
# python: can't open file 'x': [Errno 2] No such ...
_LEADING = re.compile(
    r"^(?:[^\n]*?: )??(?:line \d+: |\d+: )?"
    r"(?:(?:cannot|can't|could not|failed to|unable to) \w+ (?:file |directory )?)?"
    r"['\"‘`]?([^\s:][^\n:]*?)(?:['\"’](?: for \w+)?)?: "
    r"(?:\[Errno 2\] )?No such file(?: or directory)?[ \t]*\r?$",  # dash says "No such file" alone
    re.MULTILINE,
)
# Others: No such file or directory: x
_TRAILING = re.compile(_REASON + r": ([^\s'\"][^\n]*?)[ \t]*\r?$", re.MULTILINE)

_MODULE = re.compile(r"No module named '?([\w.]+)'?")


def missing_file(tail: str) -> str | None:
    """The last file that was not found, by the path which the task wrote; None when it wrote of none."""
    found = [(match.start(), _unquoted(match[1])) for match in _QUOTED.finditer(tail)]
    for pattern in (_HDF5, _TRAILING, _LEADING):
        found += [(match.start(), match[1]) for match in pattern.finditer(tail)]
    return max(found)[1] if found else None


def missing_module(tail: str) -> tuple[str, ...]:
    """Where the last module not found would have been: ``a.b`` -> ("a/b.py", "a/b/__init__.py"); or ()."""
    modules = [name.strip(".") for name in _MODULE.findall(tail)]
    if not modules or not modules[-1]:
        return ()
    path = modules[-1].replace(".", "/")
    return path + ".py", path + "/__init__.py"


def _unquoted(quoted: str) -> str:
    if "\\" not in quoted:
        return quoted[1:-1]
    import ast

    try:
        return str(ast.literal_eval(quoted))
    except (SyntaxError, ValueError):  # cut or foreign text: take it as it stands
        return quoted[1:-1]
