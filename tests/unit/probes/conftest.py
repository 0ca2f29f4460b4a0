from __future__ import annotations

from tests.testbed.nvml import fake_nvml

__all__ = ["fake_nvml"]
