"""The merged, rendered view of an attempt's output that `logs` shows."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from mllaunch.cli import terminal
from mllaunch.domain.merge import Merger, Segment
from mllaunch.domain.render import Renderer
from mllaunch.ports import StreamRef
from mllaunch_agent import protocol

if TYPE_CHECKING:
    from mllaunch.domain.run import Run
    from mllaunch.wiring import App

_LONGEST = 1 << 20  # characters of a line that are held until its end comes; a longer one is shown in parts


class LogView:
    """Shows the given streams of one attempt in time order; show() continues where it left off."""

    def __init__(
        self,
        app: App,
        run: Run,
        attempt: int,
        streams: list[str],
        pattern: re.Pattern[str] | None,
        since_s: float | None,
    ) -> None:
        self._app = app
        self._run = run
        self._attempt = attempt
        self._node = app.node_of(run, attempt)
        self._streams = streams
        self._pattern = pattern
        wants_colour = terminal.wants_colour(sys.stdout)
        self._renderers = {name: Renderer(colours=wants_colour) for name in streams}
        self._pieces = dict.fromkeys(streams, "")
        self._merger = Merger(lambda name, start, end: app.blobs.read(self._ref(name), start, end - start))
        self._marks_at = 0
        self._since_ms = self._earliest_ms(since_s)
        self._prefixed = len({name.partition(".")[2] for name in streams}) > 1

    def show(self, *, last: bool) -> None:
        """Show what has been added; with ``last`` also the lines that never ended."""
        lengths = {name: self._app.blobs.length(self._ref(name)) for name in self._streams}
        marks_ref = self._ref(protocol.MARKS)
        marks = self._app.blobs.read(marks_ref, self._marks_at, self._app.blobs.length(marks_ref))
        self._marks_at += len(marks)
        for segment in self._merger.feed(marks, lengths):
            self._show(segment)
        if last:
            for segment in self._merger.rest(lengths):
                self._show(segment)
            for name, renderer in self._renderers.items():
                self._lines(name, [renderer.finish()])
                if self._pieces[name]:
                    self._lines(name, ["\n"])
        sys.stdout.flush()

    def _show(self, segment: Segment) -> None:
        if self._since_ms is not None and (segment.boot_ms is None or segment.boot_ms < self._since_ms):
            return
        data = self._app.blobs.read(self._ref(segment.stream), segment.start, segment.end - segment.start)
        self._lines(segment.stream, self._renderers[segment.stream].feed(data))

    def _lines(self, stream: str, texts: list[str]) -> None:
        for text in texts:
            line = self._pieces[stream] + text
            if not line.endswith("\n") and len(line) < _LONGEST:
                self._pieces[stream] = line
                continue
            self._pieces[stream] = ""
            if self._pattern is None or self._pattern.search(line):
                sys.stdout.write(self._prefix(stream) + line)

    def _prefix(self, stream: str) -> str:
        if not self._prefixed:
            return ""
        return terminal.dim(f"[{stream.partition('.')[2]}] ", sys.stdout)

    def _ref(self, stream: str) -> StreamRef:
        return StreamRef(self._run.id, self._attempt, self._node, stream)

    def _earliest_ms(self, since_s: float | None) -> int | None:
        """From "the last N seconds" to the node's own time since boot, by the last event on record."""
        if since_s is None:
            return None
        from mllaunch.cli import times

        ref = self._ref(protocol.EVENTS)
        events, _ = protocol.parse_events(self._app.blobs.read(ref, 0, self._app.blobs.length(ref)))
        if not events:
            return None
        passed_s = times.seconds_between(events[-1]["at"], self._app.clock.now()) or 0.0
        return int((events[-1]["boot_s"] + passed_s - since_s) * 1000)
