"""Turns the raw bytes of a log into lines that are safe and readable on a terminal or a pipe.

Output is foreign: it may try to move the cursor, to set the clipboard (OSC 52), to fake links (OSC 8) or
to turn text around. So every control character but the tab is shown as text (ESC as ``\\x1b``), except
colours where they are wanted.
"""

from __future__ import annotations

import re

LONGEST_LINE = 64 * 1024  # bytes kept of an unfinished line; what is longer is shown in pieces

# Patterns are compiled when first used (and kept by re): most commands print nothing that needs one.
_COLOUR = "\x1b\\[[0-9;]*m"
_BEGUN_COLOUR = rb"\x1b(?:\[[0-9;]*)?"
_LONGEST_COLOUR = 64  # bytes; what is longer, and cut there, is no colour that a terminal would know

# C0 without tab and line feed, DEL, C1, and the characters that change the direction of text.
_FOR_LINES = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
# Besides: what breaks a line or a table, and the surrogates by which Python carries what is not UTF-8.
_FOR_NAMES = "[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


def escape(text: str) -> str:
    """Any foreign string (a name, a note, a path) as one line of harmless text."""
    return text if text.isascii() and text.isprintable() else re.sub(_FOR_NAMES, _visible, text)


class Renderer:
    """Renders one stream that arrives in chunks of any size.

    Law: the result does not depend on the chunks, as long as no line is longer than LONGEST_LINE. Memory
    is bounded by that and by the chunk. ``\\r`` starts a line anew: of a progress bar the last state is
    shown. colours: keep colour sequences (SGR); every line then ends with the colours reset.
    """

    def __init__(self, *, colours: bool = False) -> None:
        self._colours = colours
        self._line = bytearray()  # the unfinished line, without what "\r" made it overwrite
        self._continued = False  # the beginning of the unfinished line has been given out

    def feed(self, chunk: bytes) -> list[str]:
        """What is finished now: lines with their ``\\n``, and pieces, without it, of lines too long."""
        shown: list[str] = []
        end = chunk.rfind(b"\n")
        if end >= 0:
            block = bytes(self._line) + chunk[:end]
            shown += self._lines(block)
            self._line.clear()
            self._continued = False
        self._line += chunk[end + 1 :]
        if b"\r" in self._line:
            self._rewind(shown)
        while len(self._line) > LONGEST_LINE:
            cut = _whole(self._line[:LONGEST_LINE])
            shown.append(self._shown(bytes(self._line[:cut])))
            del self._line[:cut]
            self._continued = True
        return shown

    def partial(self) -> str:
        """The present state of the unfinished line, as far as it is whole characters. Without line end."""
        state = _last_state(bytes(self._line))
        return self._shown(state[: _whole(state)])

    def finish(self) -> str:
        """The rest when nothing will follow, without line end; the Renderer is then empty."""
        rest = self._shown(_last_state(bytes(self._line)))
        self._line.clear()
        self._continued = False
        return rest

    def _lines(self, block: bytes) -> list[str]:
        """All lines of a block of finished ones."""
        opening = ""
        if b"\r" in block:
            raw_lines = block.split(b"\n")
            if self._continued and b"\r" in raw_lines[0].rstrip(b"\r"):
                opening = "\n"  # what was given out cannot be overwritten any more
            block = b"\n".join([_last_state(line) for line in raw_lines])
        if self._colours and b"\x1b" in block:
            lines = [self._shown(line) for line in block.split(b"\n")]
        else:
            lines = self._shown(block).split("\n")
        return [opening + lines[0] + "\n"] + [line + "\n" for line in lines[1:]]

    def _rewind(self, shown: list[str]) -> None:
        """Forget what the unfinished line overwrote. A last carriage return stays: it may end the line."""
        stripped = self._line.rstrip(b"\r")
        start = stripped.rfind(b"\r") + 1
        if start and self._continued:
            shown.append("\n")
            self._continued = False
        ended = len(stripped) < len(self._line)
        self._line = stripped[start:] + (b"\r" if ended else b"")

    def _shown(self, raw: bytes) -> str:
        text = raw.decode("utf-8", "backslashreplace")
        harmless = re.compile(_FOR_LINES).sub
        if "\x1b" not in text:
            return harmless(_visible, text)
        # Split before escaping: what stands around a removed sequence must not make a new one.
        parts = [harmless(_visible, part) for part in re.split(_COLOUR, text)]
        if not self._colours:
            return "".join(parts)
        colours = re.findall(_COLOUR, text)
        if not colours:
            return parts[0]
        mixed = parts[0] + "".join([colour + part for colour, part in zip(colours, parts[1:], strict=True)])
        return mixed if colours[-1] in ("\x1b[0m", "\x1b[m") else mixed + "\x1b[0m"


def _visible(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as os.fsdecode carries it (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _last_state(line: bytes) -> bytes:
    """What a progress bar has left of a line: all after the last carriage return that text follows."""
    line = line.rstrip(b"\r")
    return line[line.rfind(b"\r") + 1 :]


def _whole(raw: bytes | bytearray) -> int:
    """How many bytes remain when a character or a colour sequence that is cut off at the end is left out."""
    escape_at = raw.rfind(b"\x1b", max(0, len(raw) - _LONGEST_COLOUR))
    if escape_at >= 0 and re.fullmatch(_BEGUN_COLOUR, raw[escape_at:]):
        return escape_at
    for back in (1, 2, 3):
        byte = raw[-back] if back <= len(raw) else 0
        if byte < 0x80:
            break
        if byte >= 0xC0:  # the first byte of a character says how many it has
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(raw) - back if length > back else len(raw)
    return len(raw)
