"""Say what this machine can do, and what to do about each lack. Nothing is changed.

Each check is marked: `ok`; `LACKING`, without which nothing can be published; `no`, which takes away what the last line
says (no engine: nothing can be built here, but prebuilt images can be published); `-`, a lack that there is another way
around. Only `LACKING` is a failure.

Exit statuses: 0 everything essential is there; 7 something essential is lacking (Python, git, disk space, settings that
can be read).
"""

from soci_pipeline.commands import CommandResult
from soci_pipeline.commands.command import Arguments, command
from soci_pipeline.commands.diagnosis import Check, diagnose, summary
from soci_pipeline.errors import ExitCode


@command(__doc__)
def run(_: Arguments) -> CommandResult:
    checks = list(diagnose())
    said = summary(checks)
    fields = [
        {"name": each.name, "ok": each.ok, "mark": _mark(each), "detail": each.detail, "advice": each.advice}
        for each in checks
    ]
    failed = any(each.essential and not each.ok for each in checks)
    return CommandResult(
        json={"checks": fields, "summary": said},
        text="\n".join([*(line for each in checks for line in _lines(each)), said]),
        exit_code=ExitCode.TOOL_MISSING if failed else ExitCode.OK,
    )


def _mark(check: Check) -> str:
    if check.ok:
        return "ok"
    return "LACKING" if check.essential else "-" if check.narrows else "no"


def _lines(check: Check) -> list[str]:
    lines = [f"{_mark(check):<8} {check.name:<21} {check.detail}"]
    if check.advice:
        lines.append(f"{'':<8} {'':<21} -> {check.advice}")
    return lines
