"""The effective configuration for people (as YAML that could be a configuration file) and for programs."""

from __future__ import annotations

from typing import Any

from mllaunch.config.schema import SETTINGS, Setting
from mllaunch.config.tree import core_scalar
from mllaunch.config.values import Config

_SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")
_PLAIN_EXTRA = frozenset("_-./")


def as_document(config: Config) -> dict[str, Any]:
    """For JSON: ``config``, with units in its keys' names, and ``origins``. Secrets are masked."""
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        value = _value(config, setting)
        if setting.kind.unit == "":
            value = _written(setting, value)
        section, _, name = setting.field.rpartition(".")
        (values.setdefault(section, {}) if section else values)[name] = value
    return {"config": values, "origins": dict(config.origins)}


def as_yaml(config: Config, show_origin: bool = False) -> str:
    """Every key with its value; with show_origin, behind each where it came from. Secrets are masked."""
    lines: list[tuple[str, str]] = []
    section = ""
    for setting in SETTINGS:
        above, _, name = setting.key.rpartition(".")
        if above != section and above:
            lines.append((f"{above}:", ""))
        section = above
        indent = "  " if above else ""
        written = _written(setting, _value(config, setting))
        if setting.key == "env" and written:
            lines.append(("env:", ""))
            lines += [
                (f"  - {quoted(entry)}", config.origins[f"env.{variable}"])
                for entry, (variable, _) in zip(written, config.env, strict=True)
            ]
        else:
            lines.append((f"{indent}{name}: {quoted(written)}", config.origins[setting.key]))
    if not show_origin:
        return "".join(f"{line}\n" for line, _ in lines)
    width = min(40, max(len(line) for line, _ in lines)) + 2
    return "".join(
        f"{line:<{width}}  # {_escaped(origin)}\n" if origin else f"{line}\n" for line, origin in lines
    )


def _value(config: Config, setting: Setting) -> Any:
    value: Any = config
    for name in setting.field.split("."):
        value = getattr(value, name)
    return value


def _written(setting: Setting, value: Any) -> Any:
    """Plain data as in a file, without secrets."""
    if value is None:
        return None
    if setting.key == "env":
        value = tuple((name, _masked(name, text)) for name, text in value)
    written = setting.kind.write(value)
    return _without_credentials(written)


def _masked(name: str, text: str | None) -> str | None:
    from mllaunch_agent.redaction import looks_secret

    secret = looks_secret(name) or any(word in name.upper() for word in _SECRET_WORDS)
    return "*" * len(text) if text is not None and secret else text


def _without_credentials(value: Any) -> Any:
    """Known shapes of secrets (``https://user:password@host``) can be in any text."""
    from mllaunch_agent.redaction import mask_text

    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, dict):
        return {key: _without_credentials(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_credentials(item) for item in value]
    return value


def quoted(value: Any) -> str:
    """One value in YAML's flow style."""
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(key)}: {quoted(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(quoted(item) for item in value) + "]"
    if isinstance(value, str) and not _is_plain(value):
        return '"' + _escaped(value.replace("\\", "\\\\").replace('"', '\\"')) + '"'
    return str(value)


def _is_plain(text: str) -> bool:
    return (
        text != ""
        and text[0].isalnum()
        and all(
            (character.isascii() and character.isalnum()) or character in _PLAIN_EXTRA for character in text
        )
        and isinstance(core_scalar(text), str)
    )


def _escaped(text: str) -> str:
    """What is not printable, as YAML's escapes: bidirectional and other control characters among them."""
    return "".join(
        character
        if character.isprintable()
        else f"\\u{ord(character):04x}"
        if ord(character) < 0x10000
        else f"\\U{ord(character):08x}"
        for character in text
    )
