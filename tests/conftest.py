"""What all tests share."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# A machine may be as slow as it likes, and a commit passes or fails, not a throw of the dice. To look for new
# failures: HYPOTHESIS_PROFILE=explore.
_CALM = settings(deadline=None, suppress_health_check=(HealthCheck.too_slow,))
settings.register_profile("calm", _CALM, derandomize=True)
settings.register_profile("explore", _CALM, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "calm"))
