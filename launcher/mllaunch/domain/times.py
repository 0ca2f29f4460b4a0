"""Moments as they are stored: RFC 3339, UTC."""

from __future__ import annotations


def stated(unix_ms: int) -> str:
    """A moment, milliseconds since 1970."""
    import time

    seconds, ms = divmod(unix_ms, 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{ms:03d}Z"


def seconds_between(start: str, end: str) -> float:
    """Negative if the end is before the start."""
    from datetime import datetime

    def parsed(text: str) -> datetime:
        return datetime.fromisoformat(text.replace("Z", "+00:00"))  # Python 3.10 does not know the Z

    return (parsed(end) - parsed(start)).total_seconds()
