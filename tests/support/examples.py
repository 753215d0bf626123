"""How many examples a property test tries: a sample in its own tier, all of them in the deep tier."""

from typing import Final

import hypothesis

SAMPLE: Final = "sample"
THOROUGH: Final = "thorough"
"""Names of the profiles, for ``pytest --hypothesis-profile``; ``sample`` is the default."""

_ALL: Final = 100
_LEAST: Final = 10


def register_profiles(*, derandomize: bool) -> None:
    """Register both profiles and load ``sample``."""
    for name, examples in ((SAMPLE, _ALL // 4), (THOROUGH, _ALL)):
        hypothesis.settings.register_profile(
            name,
            max_examples=examples,
            # Tests have no time limit: a busy machine is not a defect.
            deadline=None,
            derandomize=derandomize,
            database=None,
            print_blob=True,
            suppress_health_check=[hypothesis.HealthCheck.too_slow],
        )
    hypothesis.settings.load_profile(SAMPLE)


def examples(number: int) -> int:
    """Return how many of ``number`` examples the loaded profile tries: all, or a quarter but at least 10."""
    return min(number, max(_LEAST, number * hypothesis.settings().max_examples // _ALL))
