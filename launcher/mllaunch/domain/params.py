"""Reads the parameters of a run from the arguments of its script, for listings and comparisons.

The script's own rules are not known, so this is a reading, not the truth; the record keeps all arguments
beside it. Secrets must have been masked before.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_NUMBER = re.compile(r"[+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:inf|nan)")
_OPTION = re.compile(r"-{1,2}([^\W\d][^=]*)(?:=(.*))?", re.DOTALL)
_SHORT_WITH_NUMBER = re.compile(r"-([A-Za-z])(\d.*)", re.DOTALL)  # -j8
_SETTING = re.compile(r"\+{0,2}([^\W\d][\w.@:-]*)=(.*)", re.DOTALL)  # Hydra: lr=1, +trainer.lr=1, ++lr=1


def from_args(args: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """(name, value) for every parameter, each name once, in order of first appearance. Never raises.

    ``--lr 3e-4``, ``--lr=3e-4``, ``-lr 3e-4``, ``-b 64``, ``-j8`` and ``lr=3e-4`` give a name, as written,
    and a value. An option with no value is ("x", "true"); ``--no-x`` without value is ("x", "false"), so that
    runs with and without compare. Numbers that follow a number belong to it (``--betas 0.9 0.999`` -> "0.9
    0.999"). Negative numbers are values. Values of a repeated name are joined by ",". Other positional words,
    and all after ``--``, are left out; so a positional word right after a flag is taken for the flag's value:
    nobody but the script can know.
    """
    values: dict[str, list[str]] = {}
    words = list(args)
    while words and words[0] != "--":
        name, value = _take(words)
        if name:
            values.setdefault(name, []).append(value)
    return tuple((name, ",".join(found)) for name, found in values.items())


def _take(words: list[str]) -> tuple[str, str]:
    """Take one parameter from the front of ``words``; ("", "") for a word that is none."""
    word = words.pop(0)
    short = _SHORT_WITH_NUMBER.fullmatch(word)
    if short and _NUMBER.fullmatch(short[2]):
        return short[1], short[2]
    option = _OPTION.fullmatch(word)
    if not option:
        setting = _SETTING.fullmatch(word)
        return (setting[1], setting[2]) if setting else ("", "")
    name, value = option.groups()
    if value is not None:
        return name, value
    if words and _is_value(words[0]):
        taken = [words.pop(0)]
        while words and _NUMBER.fullmatch(taken[-1]) and _NUMBER.fullmatch(words[0]):
            taken.append(words.pop(0))
        return name, " ".join(taken)
    if name[:3] in ("no-", "no_") and name[3:]:
        return name[3:], "false"
    return name, "true"


def _is_value(word: str) -> bool:
    """Whether the word after an option is the option's value: no option itself, nor a Hydra setting."""
    if word.startswith("-"):
        return word == "-" or _NUMBER.fullmatch(word) is not None
    return _SETTING.fullmatch(word) is None
