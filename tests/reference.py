"""Public reference data that lies beside the repository; tests that need it are skipped where it does not."""

from __future__ import annotations

from pathlib import Path

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference"
