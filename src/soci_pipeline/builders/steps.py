"""How far a build is, by the lines that it prints: BuildKit's plain progress, and the classic engine's steps.

BuildKit numbers its work ``#7``, names a Dockerfile's step once (``#7 [builder 2/4] RUN …``) and says when it is over
(``#7 DONE 1.2s``, ``#7 CACHED``). The steps of all stages that were seen count; the engine says ``Step 2/4 : RUN …``.
"""

import re

_NAMED = re.compile(r"#(?P<work>\d{1,6}) \[(?P<stage>[^\]]{0,200}?)\s?\d{1,4}/(?P<total>\d{1,4})\] ")
_OVER = re.compile(r"#(?P<work>\d{1,6}) (?:DONE|CACHED)\b")
_CLASSIC = re.compile(r"Step (?P<step>\d{1,4})/(?P<total>\d{1,4}) :")


class BuildSteps:
    """Counts the steps of one build while its lines are read."""

    def __init__(self) -> None:
        self._totals: dict[str, int] = {}
        self._open: set[str] = set()
        self._over = 0

    def read(self, line: str) -> tuple[int, int] | None:
        """The steps that are over and those that are known of, where the line changes that; else None."""
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
