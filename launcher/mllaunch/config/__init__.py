"""Configuration: where it comes from, what it may say, what is in effect."""

from __future__ import annotations

from mllaunch.config.folders import home
from mllaunch.config.loading import load
from mllaunch.config.values import Config

__all__ = ["Config", "home", "load"]
