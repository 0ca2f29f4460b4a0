"""One thing on one screen: a headline, and below it labels with what there is to say about each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import IO, Any

from mllaunch.cli import terminal
from mllaunch.cli.table import text_width
from mllaunch.domain.render import escape

_LABEL = 14  # columns
_NARROWEST = 20  # columns for text, however narrow the terminal


class Sheet:
    """Collects lines for a stream; on a terminal they are wrapped to its width, on a pipe nothing is cut or wrapped.

    Every text may be foreign: control characters are escaped here.
    """

    def __init__(self, stream: IO[Any] | None) -> None:
        """stream: None is a file for people to read."""
        self._stream = stream
        self._width = terminal.width(stream) if stream else None
        self._lines: list[str] = []

    @property
    def on_terminal(self) -> bool:
        return self._stream is not None and terminal.is_terminal(self._stream)

    def styled(self, style: Callable[[str, IO[Any]], str], text: str) -> str:
        """Text in a style of cli.terminal; as it is in a file."""
        return style(text, self._stream) if self._stream else text

    def headline(self, name: str, text: str, paint: Callable[[str], str] = str) -> None:
        """The name and one line about it. paint: colours the text."""
        self._lines.append(f"{self.styled(terminal.bold, escape(name))}  {paint(escape(text))}")

    def row(self, label: str, *texts: str | None, paint: Callable[[str], str] = str) -> None:
        """A label and lines of text beside it; texts that are None or empty are left out, and a label without any."""
        shown = [line for text in texts if text for line in self._wrapped(escape(text))]
        for number, line in enumerate(shown):
            head = escape(label) if number == 0 else ""
            self._lines.append(f"  {self.styled(terminal.dim, head)}{self._padding(head)}{paint(line)}")

    def items(self, label: str, texts: Iterable[str], limit: int | None = None) -> None:
        """A label and a list; on a terminal at most ``limit`` of it, and how many more there are."""
        texts = list(texts)
        if self.on_terminal and limit is not None and len(texts) > limit:
            texts = [*texts[:limit], f"... and {len(texts) - limit} more"]
        self.row(label, *texts)

    def gap(self) -> None:
        self._lines.append("")

    def text(self) -> str:
        """All lines, each with its end."""
        return "".join(f"{line.rstrip()}\n" for line in self._lines)

    def _padding(self, head: str) -> str:
        return " " * max(1, _LABEL - text_width(head)) if head else " " * _LABEL

    def _wrapped(self, text: str) -> list[str]:
        if self._width is None:
            return [text]
        from textwrap import wrap

        space = max(_NARROWEST, self._width - _LABEL - 2)
        return wrap(text, space, break_long_words=False, break_on_hyphens=False, subsequent_indent="  ")
