"""Images that differ from the checkout's in what a test says; benchmarks build such ones too."""

from __future__ import annotations

from firmware.variant import build_variant, raise_version

__all__ = ["build_variant", "raise_version"]
