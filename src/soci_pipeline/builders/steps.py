"""Track the progress of a build by the lines that it prints: BuildKit's plain progress, or the classic engine's steps.

BuildKit numbers its operations ``#7``, names a Dockerfile's step once (``#7 [builder 2/4] RUN …``) and reports its end
(``#7 DONE 1.2s``, ``#7 CACHED``). The total is the number of steps in all stages seen so far. The classic engine prints
``Step 2/4 : RUN …``.
"""

import re

_NAMED = re.compile(r"#(?P<work>\d{1,6}) \[(?P<stage>[^\]]{0,200}?)\s?\d{1,4}/(?P<total>\d{1,4})\] ")
_OVER = re.compile(r"#(?P<work>\d{1,6}) (?:DONE|CACHED)\b")
_CLASSIC = re.compile(r"Step (?P<step>\d{1,4})/(?P<total>\d{1,4}) :")


class BuildSteps:
    """Counts the steps of one build from its output lines."""

    def __init__(self) -> None:
        self._totals: dict[str, int] = {}
        self._open: set[str] = set()
        self._over = 0

    def read(self, line: str) -> tuple[int, int] | None:
        """Return the number of finished steps and of known steps if the line changes them; else None."""
        if classic := _CLASSIC.match(line):
            return int(classic["step"]) - 1, int(classic["total"])
        if named := _NAMED.match(line):
            self._totals[named["stage"]] = int(named["total"])
            self._open.add(named["work"])
        elif (over := _OVER.match(line)) and over["work"] in self._open:
            self._open.discard(over["work"])
            self._over += 1
        else:
            return None
        return min(self._over, sum(self._totals.values())), sum(self._totals.values())
