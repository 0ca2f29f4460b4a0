"""Write down what a person says about a run."""

from __future__ import annotations

from collections.abc import Mapping

from mllaunch.domain.annotations import check_note, check_tags
from mllaunch.domain.run import Run
from mllaunch.ports import RunLog
from mllaunch_agent import redaction


def note(log: RunLog, run: Run, text: str, environ: Mapping[str, str]) -> None:
    """Replace the run's note; "" removes it. Secrets in it are masked: it will be shown to others."""
    check_note(text)
    log.annotate(run.id, note=redaction.mask_text(text, declared_secrets(environ)))


def tag(log: RunLog, run: Run, tags: tuple[str, ...]) -> tuple[str, ...]:
    """Add tags; all that the run has then."""
    check_tags(tags)
    log.annotate(run.id, add_tags=tags)
    return log.notes(run.id)[1]


def declared_secrets(environ: Mapping[str, str]) -> list[str]:
    """Values of the variables whose names say that they are secrets."""
    return sorted({value for name, value in environ.items() if value and redaction.looks_secret(name)})
