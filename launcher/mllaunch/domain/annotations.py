"""What a person may write about a run: its note and its tags."""

from __future__ import annotations

from collections.abc import Iterable

from mllaunch.domain.reference import shown
from mllaunch.errors import UsageError

TAG_LENGTH = 64
NOTE_LENGTH = 10_000


def check_tags(tags: Iterable[str]) -> None:
    """Raise UsageError unless each is a tag: 1 to 64 characters, printable, no comma, no space at either end."""
    for tag in tags:
        if not (0 < len(tag) <= TAG_LENGTH and tag.isprintable() and "," not in tag and tag == tag.strip()):
            raise UsageError(
                "bad_tag",
                f"{shown(tag)} cannot be a tag",
                hint=f"use 1 to {TAG_LENGTH} printable characters without a comma",
            )


def check_note(text: str) -> None:
    """Raise UsageError if the note is longer than 10,000 characters. It may hold anything else."""
    if len(text) > NOTE_LENGTH:
        raise UsageError(
            "long_note",
            f"the note has {len(text)} characters, more than {NOTE_LENGTH}",
            hint="put it into a file and name the file",
        )
