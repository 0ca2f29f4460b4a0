"""Follow a run on the terminal: what it prints as it prints it, and how it ended."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from mllaunch.cli import table, terminal
from mllaunch.domain.render import Renderer, escape
from mllaunch.domain.state import State
from mllaunch.ports import StreamRef

if TYPE_CHECKING:
    from mllaunch.domain.run import Run, RunStatus
    from mllaunch.wiring import App

_POLL_S = 0.03
_TIMED_OUT = 124  # as timeout(1)
_STOPPED = 143  # as a shell says of what SIGTERM ended
_CHUNK = 1 << 20
_SGR = re.compile("\x1b\\[[0-9;]*m")


def follow_run(app: App, run_id: str, *, show: bool) -> int:
    """Wait for the run's end and return the code to exit with. Ctrl-C detaches: 130."""
    from mllaunch.usecases.rounds import Watch

    run, status = app.log.get(run_id)
    watch = Watch(app.collector, run, events_only=not show)
    screen = Screen(app, run) if show else None
    try:
        while True:
            status = watch.look(status)
            if screen:
                screen.update(status)
            if status.state.is_final:
                break
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        if screen:
            screen.close()
        sys.stderr.write(
            f"\nDetached; {run.name} goes on.   follow: mllaunch logs -f {run.name}   end: mllaunch stop {run.name}\n"
        )
        return 130
    if screen:
        screen.close()
    say_end(app, run, status)
    return exit_code(status)


def exit_code(status: RunStatus) -> int:
    """What `run` exits with: the run's own code, but never 0 for one that did not succeed."""
    if status.exit_code or status.state is State.SUCCEEDED:
        return status.exit_code or 0
    if status.reason is not None and status.reason.code == "timeout":
        return _TIMED_OUT
    return _STOPPED if status.state is State.CANCELLED else 1


def say_end(app: App, run: Run, status: RunStatus) -> None:
    """One line on stderr about how the run ended, and what may help."""
    from mllaunch.cli import ending
    from mllaunch.usecases.explain import hints

    tasks = run.spec.resources.world_size
    said = ending.words(status.state.value, status.reason, tasks, status.started_at, status.ended_at)
    succeeded = status.state is State.SUCCEEDED
    mark = terminal.green("✓", sys.stderr) if succeeded else terminal.red("✗", sys.stderr)
    sys.stderr.write(f"{mark} {run.name} {escape(said)}\n")
    if succeeded:
        return
    for hint in hints(app.blobs, app.log, run, status):
        sys.stderr.write(f"hint: {escape(hint)}\n")


class Silences:
    """Says once of each node that it does not answer; anew, if it had answered meanwhile. say: takes a line."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self._known: set[str] = set()

    def say(self, status: RunStatus) -> None:
        silent = {silence.node for silence in status.unreachable}
        for node in sorted(silent - self._known):
            self._say(f"{escape(node)} does not answer; what it prints comes later\n")
        self._known = silent


class Screen:
    """Shows the output of a run's newest attempt: stdout on stdout, stderr on stderr."""

    def __init__(self, app: App, run: Run) -> None:
        self._app = app
        self._run = run
        self._attempt = 0
        self._panes: list[_Pane] = []
        self._silences = Silences(self._say)

    def update(self, status: RunStatus) -> None:
        """Show what the run log has gained."""
        while self._attempt < status.attempt:  # a short attempt may have come and gone since the last look
            self.close()
            self._attempt += 1
            if self._attempt > 1:
                sys.stderr.write(f"--- attempt {self._attempt}\n")
            self._panes = self._make_panes(self._attempt)
        for pane in self._panes:
            pane.update()
        self._silences.say(status)

    def close(self) -> None:
        for pane in self._panes:
            pane.close()
        self._panes = []

    def _say(self, line: str) -> None:
        """A line of ours, on stderr; a line of a task's that is not finished yet follows it anew."""
        for pane in self._panes:
            pane.erase()
        sys.stdout.flush()
        sys.stderr.write(line)

    def _make_panes(self, attempt: int) -> list[_Pane]:
        ranks = self._run.spec.resources.world_size
        panes = []
        for rank in range(ranks):
            node = self._app.node_of_rank(self._run, attempt, rank)
            for name, file in ((f"stdout.{rank}", sys.stdout), (f"stderr.{rank}", sys.stderr)):
                ref = StreamRef(self._run.id, attempt, node, name)
                prefix = terminal.rank(rank, file) if ranks > 1 else ""
                panes.append(_Pane(self._app, ref, file, prefix))
        return panes


class _Pane:
    """One stream on one file. On a terminal the line that is not finished yet (a progress bar) is shown, too."""

    def __init__(self, app: App, ref: StreamRef, file: TextIO, prefix: str) -> None:
        self._app = app
        self._ref = ref
        self._file = file
        self._prefix = prefix
        self._offset = 0
        self._live = terminal.is_terminal(file)
        self._renderer = Renderer(colours=terminal.wants_colour(file))
        self._partial = ""
        self._at_start = True

    def update(self) -> None:
        while data := self._app.blobs.read(self._ref, self._offset, _CHUNK):
            self._offset += len(data)
            self.erase()
            for text in self._renderer.feed(data):
                self._write(text)
        if self._live and (partial := self._renderer.partial()) != self._partial:
            self.erase()
            # Of a line that wraps only the last row could be erased; and a colour that is cut off would stay on.
            columns = (terminal.width(self._file) or 80) - 1
            self._file.write(table.cut(self._prefix + _SGR.sub("", partial), columns))
            self._partial = partial
        self._file.flush()

    def close(self) -> None:
        self.update()
        self.erase()
        rest = self._renderer.finish()
        if rest:
            self._write(rest)
            if self._live:
                self._file.write("\n")
        self._file.flush()

    def _write(self, text: str) -> None:
        self._file.write((self._prefix if self._at_start else "") + text)
        self._at_start = text.endswith("\n")

    def erase(self) -> None:
        if self._partial:
            self._file.write("\r\x1b[K")
            self._partial = ""
