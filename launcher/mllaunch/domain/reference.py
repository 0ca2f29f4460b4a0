"""How a person names a run: its name, its id, a unique prefix of either, ``@last``, or ``@{N}``.

Pure rules, the same for every run log: what a name may look like, what a reference means, and the errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mllaunch.errors import NotFound, UsageError

NAME_LENGTH = 64
CANDIDATES_SHOWN = 10

# A name becomes part of git refs, file names and command lines, so it holds nothing that any of them
# would read.
_DIGITS = frozenset("0123456789")
_FIRST = _DIGITS | frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_REST = _FIRST | frozenset("._-")


class Newest(NamedTuple):
    """The run which ``back`` others followed; 0 is the newest."""

    back: int


class Label(NamedTuple):
    """A whole name or id, or the beginning of one."""

    text: str


def parse_reference(reference: str) -> Newest | Label:
    """What a reference asks for.

    NotFound for text that no name or id can begin with; UsageError for an empty one or an ``@`` form that
    does not exist.
    """
    if not reference:
        raise UsageError(
            "empty_reference", "no run was named", hint="mllaunch ps -a lists the runs; @last is the newest"
        )
    if reference.startswith("@"):
        if reference == "@last":
            return Newest(0)
        back = reference[2:-1]
        if reference != f"@{{{back}}}" or not 1 <= len(back) <= 9 or not _DIGITS.issuperset(back):
            raise UsageError(
                "bad_reference",
                f"{shown(reference)} names no run",
                hint="@last is the newest run, @{1} the one before it, @{2} the one before that",
            )
        return Newest(int(back))
    if not _is_plain(reference):
        raise no_such_run(reference)
    return Label(reference)


def check_name(name: str) -> None:
    """Raise UsageError unless ``name`` can name a run.

    1 to 64 characters of ``A-Z a-z 0-9 . _ -``, of which the first is a letter or digit. What git refuses
    in a ref (``..``, a final ``.`` or ``.lock``) is refused too.
    """
    if _is_plain(name) and ".." not in name and not name.endswith((".", ".lock")):
        return
    raise UsageError(
        "bad_name",
        f"{shown(name)} cannot name a run",
        hint=f"use up to {NAME_LENGTH} letters, digits, '-', '_' and '.', beginning with a letter or digit",
    )


def prefix_bounds(text: str) -> tuple[str, str]:
    """The half-open range of strings that begin with ``text``, in the order of their code points."""
    return text, text + "\U0010ffff"


def no_such_run(reference: str, recent_names: Iterable[str] = ()) -> NotFound:
    """The error for a reference that means nothing, with the names it comes near to."""
    near = _near(reference, recent_names)
    hint = "mllaunch ps -a lists the runs"
    if near:
        hint = f"did you mean {' or '.join(near)}? {hint}"
    return NotFound("no_such_run", f"no run is called {shown(reference)}", hint=hint)


def ambiguous(reference: str, candidates: Sequence[tuple[str, str]]) -> UsageError:
    """The error for a prefix of several runs. candidates: their (name, id); the first ten are shown."""
    evidence = [f"{name}  {run_id}" for name, run_id in candidates[:CANDIDATES_SHOWN]]
    if len(candidates) > CANDIDATES_SHOWN:
        evidence.append("and others")
    return UsageError(
        "ambiguous",
        f"several runs begin with {shown(reference)}",
        evidence=tuple(evidence),
        hint="type more of the name or of the id",
    )


def shown(reference: str) -> str:
    """The reference as it may be printed: quoted, its first 40 characters, non-ASCII escaped."""
    return (
        ascii(reference) if len(reference) <= 40 else f"{reference[:40]!a}... ({len(reference)} characters)"
    )


def _is_plain(text: str) -> bool:
    return 0 < len(text) <= NAME_LENGTH and text[0] in _FIRST and _REST.issuperset(text)


def _near(reference: str, names: Iterable[str]) -> list[str]:
    names = list(names)
    if not names:
        return []
    from difflib import get_close_matches

    return get_close_matches(reference[:NAME_LENGTH], names, n=3)
