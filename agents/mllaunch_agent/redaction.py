"""Masks secrets in bytes and text with as many ``*``, so that every offset stays true.

A secret is a declared value, wherever it occurs, or a run of characters in one of the known shapes below.
Private key blocks (PEM) have no shape here: they span lines, so they are masked only when declared as values.

The law: the masked stream is a function of the raw stream alone, whatever the read boundaries. It holds
because the masked set is the union of the matches that start at *every* position (also inside another match),
and because whether a match starts at i, and where it ends, is decided by the bytes [i - LEFT, i +
Masker.context) only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Pattern

CONTEXT = 2048  # bytes: no shape matches more
LEFT = 6  # bytes before a match which its left boundary looks at
MIN_VALUE = 6  # bytes: masking shorter values would destroy ordinary text

# Every shape but the URL begins with so many letters, digits, "_" and "-" in a row. Text is screened for such
# runs first, because one pass of translate and one of find cost a tenth of a regular expression.
_RUN = 16
_WORD_CHARACTERS = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-"
_CLASSES = bytes(0x61 if byte in _WORD_CHARACTERS else 0x20 for byte in range(256))
_LONG_RUN = b"a" * _RUN

# Not within a word ("task-", "risk-"); but a word does begin right after an escape ("\n", "\x1b", "\u003d",
# as in a repr or JSON), a colour sequence or a percent-encoded character.
_START = (
    rb"(?:(?<![A-Za-z0-9])|(?<=\\[nrt])|(?<=\\x[0-9A-Fa-f]{2})|(?<=\\u[0-9A-Fa-f]{4})"
    rb"|(?<=[0-9;\[]m)|(?<=%[0-9A-Fa-f]{2}))"
)

# How the shapes begin, character by character.
_HEADS = tuple(
    tuple(head.split())
    for head in (
        b"A [KS] I A",
        b"A I z a",
        b"g h [pousr] _",
        b"g i t h u b _ p a t _",
        b"g l p a t -",
        b"h f _",
        b"s k -",
        b"x o x [abprs] -",
        b"n p m _",
        b"p y p i - A g E",  # what follows is a macaroon, which always begins with these three
        b"d o p _ v 1 _",
        b"e y J",
    )
)
_HEAD = re.compile(b"|".join(map(b"".join, _HEADS)))


def _begun_pattern(head: Sequence[bytes]) -> bytes:
    """Matches the head, and as much of it as stands at the very end of the bytes."""
    pattern = head[-1]
    for character in reversed(head[:-1]):
        pattern = character + rb"(?:\Z|" + pattern + rb")"
    return pattern


@lru_cache(maxsize=None)
def _beginnings() -> Pattern[bytes]:
    """Matches what may be the beginning of a shape at the end of the bytes. Compiled when text first needs it."""
    heads = b"|".join(map(_begun_pattern, _HEADS))
    return re.compile(
        _START + rb"(?:" + heads + rb")|(?<=[A-Za-z0-9+.-])" + _begun_pattern((b":", b"/", b"/"))
    )


# Lower bounds are below today's real lengths, so that formats may change a little; upper ones keep to
# CONTEXT.
_SHAPES = (
    _START
    + rb"(?:"
    + rb"|".join(
        (
            rb"A[KS]IA[A-Z0-9]{16}",  # AWS access key ids
            rb"gh[pousr]_[A-Za-z0-9]{12,500}",  # GitHub
            rb"github_pat_[A-Za-z0-9_]{20,500}",
            rb"glpat-[\w-]{10,300}(?:\.[\w.-]{1,100})?",  # GitLab
            rb"hf_[A-Za-z0-9]{13,500}",  # Hugging Face; no "_": hf_hub_download_something is a name
            rb"sk-(?!learn|image|video)[\w-]{13,300}",  # OpenAI, Anthropic and those who follow them
            rb"xox[abprs]-[A-Za-z0-9-]{11,500}",  # Slack
            rb"AIza[\w-]{30,60}",  # Google
            rb"npm_[A-Za-z0-9]{16,500}",
            rb"pypi-AgE[\w-]{12,1000}",
            rb"dop_v1_[A-Za-z0-9]{13,500}",  # DigitalOcean
            rb"eyJ[\w-]{17,500}\.[\w.-]{4,1500}",  # JSON web tokens
        )
    )
    + rb")"
)


@lru_cache(maxsize=None)
def _shapes() -> Pattern[bytes]:
    return re.compile(_SHAPES)


# scheme://user:password@host: group 1 is the password. It ends at the last "@" before a "/".
_URL = re.compile(rb"(?<=[A-Za-z0-9+.-])://[^\s/:@\"'<>]{0,256}:([^\s/\"'<>]{1,1024})@")

_WHITESPACE = (b" ", b"\n", b"\t", b"\r", b"\x0b", b"\x0c")  # what \s means for bytes


class Masker:
    """Finds and masks the declared values and the known shapes.

    values: whitespace around a value is not part of it (files that hold a secret end with a newline). Values
    shorter than MIN_VALUE bytes are not masked. context: how many bytes from its start
    decide a match.
    """

    def __init__(self, values: Sequence[bytes] = ()) -> None:
        self.values = tuple(sorted({value.strip() for value in values if len(value.strip()) >= MIN_VALUE}))
        self.context = max([CONTEXT] + [len(value) for value in self.values])

    def mask(self, window: bytes) -> tuple[bytes, list[tuple[int, int]]]:
        """The window with its secrets masked, and the masked ranges (start, end): merged and in order.

        The window counts as a whole stream: what lies before and after it is taken as absent.
        """
        ranges = _merged([*self._declared(window), *_shaped(window), *_passwords(window)])
        if not ranges:
            return window, ranges
        masked = bytearray(window)
        for start, end in ranges:
            masked[start:end] = b"*" * (end - start)
        return bytes(masked), ranges

    def safe_end(self, window: bytes) -> int:
        """How far the masking of the window is final, though more bytes may follow it.

        Held back is what may be the beginning of a declared value or of a known shape, the latter within the
        unfinished word at the end, of which ``context`` bytes count at most. Never shrinks when the window
        grows. The window is a stream's last ``context + LEFT`` bytes or more, or the whole stream.
        """
        floor = max(0, len(window) - self.context)
        word = max([floor] + [window.rfind(space, floor) + 1 for space in _WHITESPACE])
        shape = _beginnings().search(window, word)
        ends = [len(window) - _begun(value, window) for value in self.values]
        return min([shape.start() if shape else len(window)] + ends)

    def _declared(self, window: bytes) -> Iterator[tuple[int, int]]:
        for value in self.values:
            start = window.find(value)
            while start >= 0:
                yield start, start + len(value)
                start = window.find(value, start + 1)


def _begun(value: bytes, window: bytes) -> int:
    """Length of the longest end of the window that is the beginning, but not the whole, of the value."""
    for length in range(min(len(value) - 1, len(window)), 0, -1):
        if window.endswith(value[:length]):
            return length
    return 0


def _shaped(window: bytes) -> Iterator[tuple[int, int]]:
    classes = window.translate(_CLASSES)
    run = classes.find(_LONG_RUN)
    while run >= 0:
        end = classes.find(b" ", run + _RUN)
        if end < 0:
            end = len(window)
        head = _HEAD.search(window, run, end)
        while head is not None:
            match = _shapes().match(window, head.start())
            if match is not None:
                yield match.span()
            head = _HEAD.search(window, head.start() + 1, end)
        run = classes.find(_LONG_RUN, end)


def _passwords(window: bytes) -> Iterator[tuple[int, int]]:
    if b"@" not in window:  # some thirty times cheaper than to look for "://"
        return
    start = window.find(b"://")
    while start >= 0:
        match = _URL.match(window, start)
        if match is not None:
            yield match.span(1)
        start = window.find(b"://", start + 1)


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def shippable(pread: Callable[[int, int], bytes], size: int, final: bool, masker: Masker) -> int:
    """How many bytes of a stream's masked form are determined, with ``size`` raw bytes there. Never shrinks.

    pread(offset, length) reads the raw stream. final: nothing will follow.
    """
    if final:
        return size
    start = max(0, size - masker.context - LEFT)
    return start + masker.safe_end(pread(start, size - start))


def read_masked(
    pread: Callable[[int, int], bytes], offset: int, limit: int, size: int, final: bool, masker: Masker
) -> bytes:
    """At most ``limit`` bytes of the masked stream from ``offset`` on; b"" where none is determined yet."""
    return read_counted(pread, offset, limit, size, final, masker)[0]


def read_counted(
    pread: Callable[[int, int], bytes], offset: int, limit: int, size: int, final: bool, masker: Masker
) -> tuple[bytes, int]:
    """Like read_masked, and how many masked ranges begin within the returned bytes.

    Over any division of the stream into pieces these counts add up to the same sum. Raw bytes are read from
    up to ``masker.context + LEFT + 1`` before ``offset``: they must still be there.
    """
    end = min(offset + limit, shippable(pread, size, final, masker))
    if end <= offset:
        return b"", 0
    # What a cut at the window's start may wrongly take for the beginning of a word ends before offset - 1.
    start = max(0, offset - masker.context - LEFT - 1)
    stop = min(size, end + masker.context)
    masked, ranges = masker.mask(pread(start, stop - start))
    begun = sum(1 for first, _ in ranges if offset <= start + first < end)
    return masked[offset - start : end - start], begun


def mask_text(text: str, values: Sequence[str] = ()) -> str:
    """Text with its secrets masked: for addresses, notes, messages."""
    return _mask_text(text, _text_masker(values))


def mask_argv(argv: Sequence[str], values: Sequence[str] = ()) -> list[str]:
    """A command line with its secrets masked, also those that only the name of an option or setting betrays.

    Known: ``--api-key VALUE``, ``--api-key=VALUE``, ``API_KEY=VALUE``. A word that begins with "-" is an
    option, not the value of the one before.
    """
    masker = _text_masker(values)
    masked = []
    value_follows = False
    for word in argv:
        name, equals, value = word.partition("=")
        is_option = word.startswith("-")
        if value_follows and not is_option:
            masked.append("*" * len(word.encode("utf-8", "surrogatepass")))
        elif equals and looks_secret(name):
            masked.append(name + "=" + "*" * len(value.encode("utf-8", "surrogatepass")))
        else:
            masked.append(_mask_text(word, masker))
        value_follows = is_option and not equals and looks_secret(word)
    return masked


def _text_masker(values: Sequence[str]) -> Masker:
    return Masker([value.encode("utf-8", "surrogatepass") for value in values])


def _mask_text(text: str, masker: Masker) -> str:
    # surrogatepass: a name that is not UTF-8 arrives with lone surrogates, and must leave with them
    return masker.mask(text.encode("utf-8", "surrogatepass"))[0].decode("utf-8", "surrogatepass")


_NAME_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

_SECRET_WORDS = frozenset(
    (
        "APIKEY",
        "AUTH",
        "AUTHORIZATION",
        "CREDENTIAL",
        "CREDENTIALS",
        "KEY",
        "PASSPHRASE",
        "PASSWD",
        "PASSWORD",
    )
    + ("PASSWORDS", "SECRET", "SECRETS", "TOKEN")
)

# Machine learning counts tokens and has keys that open nothing; SSH_AUTH_SOCK is a path.
_AMBIGUOUS = frozenset(("AUTH", "KEY", "TOKEN"))
_HARMLESS_BEFORE = frozenset(
    ("NUM", "MAX", "MIN", "PER", "PAD", "EOS", "BOS", "UNK", "CLS", "SEP", "MASK", "SORT")
)
_HARMLESS_AFTER = frozenset(
    ("SIZE", "LEN", "LENGTH", "DIM", "COUNT", "VALUE", "HEADS", "PADDING", "DROPOUT", "TYPE", "LIMIT")
    + ("BUDGET", "POINTS", "SOCK")
)


def looks_secret(name: str) -> bool:
    """Whether the name of a variable or an option says that its value is a secret.

    Words are told apart at "_", "-", "." and by case: API_KEY, --hf-token and clientSecret do; --tokenizer,
    --max-tokens, --key-size, MONKEY and author do not.
    """
    words = [word.upper() for word in _NAME_WORDS.findall(name)]
    for before, word, after in zip(["", *words], words, [*words[1:], ""]):
        harmless = before in _HARMLESS_BEFORE or after in _HARMLESS_AFTER
        if word in _SECRET_WORDS and not (word in _AMBIGUOUS and harmless):
            return True
    return False
