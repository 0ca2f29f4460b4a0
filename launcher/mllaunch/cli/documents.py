"""The provenance document of a run, whole, and with secrets masked in what it shows of code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mllaunch.domain.run import Run, RunStatus
    from mllaunch.wiring import App


def provenance(app: App, run: Run, status: RunStatus) -> dict[str, Any]:
    from mllaunch.domain.provenance import document
    from mllaunch.usecases.annotate import declared_secrets
    from mllaunch.usecases.provenance import gather
    from mllaunch_agent.node import make_masker

    masker = make_masker(declared_secrets(app.environ))
    return document(gather(app.log, app.blobs, run, status, app.code, lambda patch: masker.mask(patch)[0]))
