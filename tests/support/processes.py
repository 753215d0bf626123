"""Whether a process is alive, as the kernel reports it."""

from pathlib import Path


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended and waits for its parent does not.

    Not by its environment, which is empty for a moment while it becomes another program. Its files disappear when it
    ends: opening them fails with ENOENT, reading them with ESRCH.
    """
    try:
        # proc_pid_stat(5): the state comes after the name in parentheses, which may contain anything.
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
