"""What was read from one place, before it is checked: plain values, each with where it stands."""

from __future__ import annotations

from typing import NamedTuple


class Node(NamedTuple):
    """One value as written.

    value: None, bool, int, float, str, a list of Nodes, or a dict of str to Node. where: ``file:line:column`` (from 1), the
    name of a variable or of a flag. key_where: the same for the key that it stands under, "" where there is none.
    """

    value: object
    where: str
    key_where: str = ""


def core_scalar(text: str) -> bool | int | float | str | None:
    """What a plain scalar means in the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#1032-tag-resolution).

    So ``yes`` and ``1:30`` are strings, ``3e-4`` is a number, ``012`` is 12. ValueError for a number of over 400 digits.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    if len(text) > 400 and text.lstrip("+-").isdigit():
        raise ValueError(f"a number of {len(text)} digits")
    digits = text[1:] if text[0] in "+-" else text
    if digits and _DECIMAL.issuperset(digits):
        return int(text)
    prefix, rest = text[:2], text[2:]
    if prefix == "0o" and rest and _OCTAL.issuperset(rest):
        return int(rest, 8)
    if prefix == "0x" and rest and _HEXADECIMAL.issuperset(rest):
        return int(rest, 16)
    if _FLOAT.issuperset(text):
        try:
            return float(text)
        except ValueError:
            return text  # such as 1.2.3 or 2026-11-21
    return text


_WORDS: dict[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((sign + word for sign in ("", "+") for word in (".inf", ".Inf", ".INF")), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_DECIMAL = frozenset("0123456789")
_OCTAL = frozenset("01234567")
_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")
_FLOAT = frozenset("0123456789+-.eE")
