"""What was read from one place, before it is checked: plain values, each with where it stands."""

from __future__ import annotations

from typing import NamedTuple


class Node(NamedTuple):
    """One value as written.

    value: None, bool, int, float, str, a list of Nodes, or a dict of str to Node. where: ``file:line:column``
    (from 1), the name of a variable or of a flag. key_where: the same for its key, or "".
    """

    value: object
    where: str
    key_where: str = ""


def core_scalar(text: str) -> bool | int | float | str | None:
    """What a plain scalar means in YAML 1.2, https://yaml.org/spec/1.2.2/#1032-tag-resolution.

    So ``yes`` and ``1:30`` are strings, ``3e-4`` is a number, ``012`` is 12. ValueError for over 400 digits.
    """
    if text in _WORDS:
        return _WORDS[text]
    digits = text[1:] if text[0] in "+-" else text
    if digits and _DECIMAL.issuperset(digits):
        if len(digits) > 400:  # int() takes quadratic time
            raise ValueError(f"a number of {len(digits)} digits")
        return int(text)
    for prefix, alphabet, base in (("0o", _OCTAL, 8), ("0x", _HEXADECIMAL, 16)):
        if text.startswith(prefix) and 2 < len(text) <= 400 and alphabet.issuperset(text[2:]):
            return int(text[2:], base)
    if _FLOAT.issuperset(text):
        try:
            return float(text)
        except ValueError:
            pass  # such as 1.2.3 or 2026-11-21
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
