"""PostgreSQL for the Prefect server of a stack, from Debian's unpacked package; nothing is installed.

It listens only on a unix socket in a private folder and authenticates clients through the kernel (``peer``, PostgreSQL
manual, "Client Authentication"), so there is no password to leak and no port. PostgreSQL does not run as root, so under
root it runs as the user ``nobody``, with its data in that user's folder below the folder for temporary files, since the
stack's own folder may be accessible only to root. The same may be true of the toolchain's folder (a clone in root's
home); then the programs are copied to that folder.
"""

import contextlib
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from local_stack.footprint import Footprint
from local_stack.ports import wait_until
from local_stack.toolchain import Toolchain
from soci_pipeline.errors import StackError, ToolFailed
from soci_pipeline.log import logger
from soci_pipeline.machine.programs import background, run

_START_SECONDS = 120.0
_INIT_SECONDS = 300.0
_USER = "nobody"
_ROLE = "prefect"
# The port is only part of the socket's name; the folder is private, so the default port is safe.
_SOCKET = ".s.PGSQL.5432"
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    # Its data need not outlive the stack.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    # A chroot may have no /dev/shm.
    "dynamic_shared_memory_type": "mmap",
    "jit": "off",
    "autovacuum_naptime": "10s",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


@contextlib.contextmanager
def postgres(
    folder: Path, traces: Footprint, *, toolchain: Toolchain | None = None, env: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Start an empty PostgreSQL with its log in ``folder``; yield the URL for Prefect to connect to.

    Raises `ToolMissing` if no package provides it, `StackError` if it does not start.
    """
    tools = toolchain or Toolchain()
    # The tools come last, because their libraries may have been fetched just now.
    environment = dict(env or {}) | tools.ensure(["postgres"])
    # It finds its data and libraries relative to the program itself, not to a link.
    programs = {name: tools.program(name).resolve() for name in ("initdb", "postgres")}
    folder.mkdir(parents=True, exist_ok=True)
    private = _private_folder(traces)
    as_user = _as_user()
    try:
        if not _may_run(programs["postgres"], as_user, environment):
            programs, environment = _copied(programs, tools.folder, private, environment)
        run([*as_user, programs["postgres"], "--version"], env=environment, cwd=private)
        data = _initialised([*as_user, str(programs["initdb"])], private, environment)
    except ToolFailed as error:
        raise StackError(
            f"cannot start PostgreSQL: {error.reason}",
            advice=f"Under root it runs as {_USER}, who must have access to the toolchain folder and the temporary "
            "folder; set SOCI_PIPELINE_TOOLCHAIN and TMPDIR to other folders.",
        ) from error
    options = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
    argv = [*as_user, str(programs["postgres"]), "-D", str(data), "-k", str(private), *options]
    log = folder / "postgres.log"
    log.unlink(missing_ok=True)
    logger().info("starting PostgreSQL")
    with background(argv, env=environment, cwd=private, log=log) as child:
        ready = private / "data" / "postmaster.pid"
        wait_until(lambda: _is_ready(ready), what="PostgreSQL", child=child, log=log, seconds=_START_SECONDS)
        yield f"postgresql+asyncpg://{_ROLE}@/postgres?host={quote(str(private), safe='/')}"


def _private_folder(traces: Footprint) -> Path:
    """Create a folder only for PostgreSQL's user, with a short path (socket paths are limited to 107 bytes)."""
    folder = Path(tempfile.mkdtemp(prefix="soci-postgres-"))
    traces.record_folder(folder)
    if os.geteuid() == 0:
        shutil.chown(folder, _USER, pwd.getpwnam(_USER).pw_gid)
    return folder


def _as_user() -> list[str]:
    """Return the prefix that runs a command as PostgreSQL's user."""
    if os.geteuid() != 0:
        return []
    group = pwd.getpwnam(_USER).pw_gid
    return ["setpriv", f"--reuid={_USER}", f"--regid={group}", "--clear-groups", "--no-new-privs"]


def _may_run(program: Path, as_user: list[str], env: Mapping[str, str]) -> bool:
    """Whether PostgreSQL's user can enter the folders above a program."""
    try:
        run([*as_user, "test", "-x", str(program)], env=env)
    except ToolFailed:
        return False
    return True


def _copied(
    programs: Mapping[str, Path], toolchain: Path, private: Path, env: Mapping[str, str]
) -> tuple[dict[str, Path], dict[str, str]]:
    """Copy the programs' whole package to the private folder; return the programs and an environment for them."""
    packages = (toolchain / "packages").resolve()
    if not programs["postgres"].is_relative_to(packages):
        return dict(programs), dict(env)
    package = packages / programs["postgres"].relative_to(packages).parts[0]
    shutil.copytree(package, private / "package", symlinks=True)
    libraries = toolchain / "lib"
    if libraries.is_dir():
        # The links point into other packages, so their targets are copied.
        shutil.copytree(libraries, private / "lib")
    known = env.get("LD_LIBRARY_PATH", "").replace(str(libraries), str(private / "lib"))
    found = {name: private / "package" / program.relative_to(package) for name, program in programs.items()}
    return found, dict(env) | ({"LD_LIBRARY_PATH": known} if known else {})


def _initialised(initdb: list[str], private: Path, env: Mapping[str, str]) -> Path:
    """Create a database cluster that only this process's user can access, as Prefect's role."""
    data = private / "data"
    access = ["--auth-local=peer", "--auth-host=reject", f"--username={_ROLE}"]
    run(
        [*initdb, f"--pgdata={data}", *access, "--encoding=UTF8", "--locale=C", "--no-sync"],
        env=env,
        cwd=private,
        timeout=_INIT_SECONDS,
    )
    # Overwritten in place to keep the owner.
    (data / "pg_hba.conf").write_text("local all all peer map=stack\n")
    (data / "pg_ident.conf").write_text(f"stack {pwd.getpwuid(os.geteuid()).pw_name} {_ROLE}\n")
    return data


def _is_ready(pid_file: Path) -> bool:
    """Whether the server accepts connections, by the last line of its pid file, as pg_ctl reads it."""
    try:
        lines = pid_file.read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[7].strip() == "ready" and (pid_file.parent.parent / _SOCKET).exists()
