"""The merged, rendered view of an attempt's output that `logs` shows."""

from __future__ import annotations

import heapq
import re
import sys
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, NamedTuple

from mllaunch.cli import terminal
from mllaunch.domain.merge import Merger, Segment
from mllaunch.domain.render import Renderer
from mllaunch.ports import StreamRef
from mllaunch_agent import protocol

if TYPE_CHECKING:
    from mllaunch.domain.run import Run
    from mllaunch.wiring import App

_LONGEST = 1 << 20  # characters of a line that are held until its end comes; a longer one is shown in parts


class _Piece(NamedTuple):
    """Output that came at one time. at_ms: by the node's wall clock, Unix milliseconds; 0 if that is not known."""

    at_ms: int
    node: int
    segment: Segment


class _NodeLog:
    """The streams of one node, in the order in which they grew."""

    def __init__(self, app: App, run: Run, attempt: int, node: str, number: int, streams: list[str]) -> None:
        self._app = app
        self.node = node
        self._ids = (run.id, attempt, node)
        self._number = number
        self._streams = streams
        self._marks_at = 0
        self._merger = Merger(self.read)
        self._booted_ms: int | None = None

    def read(self, stream: str, start: int, end: int) -> bytes:
        return self._app.blobs.read(self._ref(stream), start, end - start)

    def pieces(self, *, last: bool, is_silent: bool) -> Iterator[_Piece]:
        """What has been added; with ``last`` also what has no end.

        is_silent: what would tell when the newest bytes came may be long in coming, so they are not held back for it.
        """
        lengths = {name: self._app.blobs.length(self._ref(name)) for name in self._streams}
        ref = self._ref(protocol.MARKS)
        marks = self._app.blobs.read(ref, self._marks_at, self._app.blobs.length(ref))
        self._marks_at += len(marks)
        at_ms = 0
        for segment in self._merger.feed(marks, lengths):
            at_ms = self._wall_ms(segment, at_ms)
            yield _Piece(at_ms, self._number, segment)
        if last:
            for segment in self._merger.rest(lengths):
                at_ms = self._wall_ms(segment, at_ms)
                yield _Piece(at_ms, self._number, segment)
        elif is_silent:
            for segment in self._merger.rest(lengths, lines_only=True):
                yield _Piece(0, self._number, segment)

    def _wall_ms(self, segment: Segment, before_ms: int) -> int:
        """Never less than that of what came before, whatever the clocks do."""
        if segment.boot_ms is None:
            return before_ms
        return max(before_ms, segment.boot_ms + self.booted_ms())

    def booted_ms(self) -> int:
        """When the node booted, Unix milliseconds, by the newest event on record; 0 while there is none."""
        if not self._booted_ms:
            from mllaunch.cli import times

            ref = self._ref(protocol.EVENTS)
            events, _ = protocol.parse_events(self._app.blobs.read(ref, 0, self._app.blobs.length(ref)))
            if events:
                at_s = times.seconds_between("1970-01-01T00:00:00.000Z", events[-1]["at"]) or 0.0
                self._booted_ms = int((at_s - events[-1]["boot_s"]) * 1000)
        return self._booted_ms or 0

    def _ref(self, stream: str) -> StreamRef:
        return StreamRef(*self._ids, stream)


class LogView:
    """Shows the given ranks of one attempt in time order; show() continues where it left off. kinds: of streams.

    as_json: one document for each line, {"at", "node", "rank", "stream", "text"}; at is when its end came, or None.
    """

    def __init__(
        self,
        app: App,
        run: Run,
        attempt: int,
        ranks: list[int],
        kinds: list[str],
        pattern: re.Pattern[str] | None,
        since_s: float | None,
        *,
        as_json: bool = False,
    ) -> None:
        self._pattern = pattern
        self._as_json = as_json
        wants_colour = terminal.wants_colour(sys.stdout) and not as_json
        by_node: dict[str, list[str]] = {}
        for rank in ranks:
            node = app.node_of_rank(run, attempt, rank)
            by_node.setdefault(node, []).extend(f"{kind}.{rank}" for kind in kinds)
        names = [name for streams in by_node.values() for name in streams]
        self._nodes = [
            _NodeLog(app, run, attempt, node, number, streams)
            for number, (node, streams) in enumerate(by_node.items())
        ]
        self._renderers = {name: Renderer(colours=wants_colour) for name in names}
        self._pieces = dict.fromkeys(names, "")
        self._since_ms = None if since_s is None else _now_ms(app) - int(since_s * 1000)
        self._prefixed = len(ranks) > 1
        self._node_of = {name: node for node, streams in by_node.items() for name in streams}
        self._at_ms = dict.fromkeys(names, 0)  # when what was last read of a stream came

    def show(self, *, last: bool, silent: Collection[str] = ()) -> None:
        """Show what has been added; with ``last`` also the lines that never ended. silent: nodes, by name."""
        # What is asked for by its time waits for that.
        hurried = silent if self._since_ms is None else ()
        pieces = (node.pieces(last=last, is_silent=node.node in hurried) for node in self._nodes)
        for piece in heapq.merge(*pieces):
            self._show(piece)
        if last:
            for name, renderer in self._renderers.items():
                self._lines(name, [renderer.finish()])
                if self._pieces[name]:
                    self._lines(name, ["\n"])
        sys.stdout.flush()

    def _show(self, piece: _Piece) -> None:
        segment = piece.segment
        if self._since_ms is not None and piece.at_ms < self._since_ms:
            return
        self._at_ms[segment.stream] = piece.at_ms
        data = self._nodes[piece.node].read(segment.stream, segment.start, segment.end)
        self._lines(segment.stream, self._renderers[segment.stream].feed(data))

    def _lines(self, stream: str, texts: list[str]) -> None:
        for text in texts:
            line = self._pieces[stream] + text
            if not line.endswith("\n") and len(line) < _LONGEST:
                self._pieces[stream] = line
                continue
            self._pieces[stream] = ""
            if self._pattern is None or self._pattern.search(line):
                sys.stdout.write(
                    self._document(stream, line) if self._as_json else self._prefix(stream) + line
                )

    def _document(self, stream: str, line: str) -> str:
        import json

        from mllaunch.domain.times import stated

        kind, _, rank = stream.partition(".")
        at_ms = self._at_ms[stream]
        document = {
            "at": stated(at_ms) if at_ms else None,
            "node": self._node_of[stream],
            "rank": int(rank),
            "stream": kind,
            "text": line.removesuffix("\n"),
        }
        return json.dumps(document) + "\n"

    def _prefix(self, stream: str) -> str:
        if not self._prefixed:
            return ""
        return terminal.rank(int(stream.partition(".")[2]), sys.stdout)


def _now_ms(app: App) -> int:
    from mllaunch.cli import times

    return int((times.seconds_between("1970-01-01T00:00:00.000Z", app.clock.now()) or 0.0) * 1000)
