"""What may import what: library <- tasks <- flows, and a table of the rooms of the library.

A room is a package of the library, a folder of it that is a package of its own, or the ground floor: the single modules
beside the packages. `commands` has the command line (`cli`, `__main__`) in it.
"""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
LIBRARY = "src/soci_pipeline"
OUTSIDE = ("tasks", "flows", "deployments", "local_stack")
GROUND = "ground floor"
FACADE = "import soci_pipeline"

ALLOWED: dict[str, set[str]] = {
    GROUND: set(),
    "troubleshooting": set(),
    "oci": {GROUND},
    "archive": {GROUND, "oci"},
    "machine": {GROUND},
    "registry": {GROUND, "oci", "machine"},
    "http_server": {GROUND},
    "registry.server": {GROUND, "oci", "registry", "http_server"},
    "soci": {"oci"},
    "soci.tar": {GROUND, "archive", "soci"},
    "soci.gzip": {GROUND, "oci", "soci"},
    "soci.ztoc": {GROUND, "oci", "archive", "soci", "soci.tar", "soci.gzip"},
    "soci.index": {GROUND, "oci", "soci", "soci.tar", "soci.gzip", "soci.ztoc"},
    "aws": {GROUND, "oci", "registry"},
    "git": {GROUND, "machine", "aws"},
    "builders": {GROUND, "oci", "archive", "machine", "registry", "soci.index"},
    "containerd": {GROUND, "oci", "archive", "machine", "registry", "registry.server", "soci", "soci.index"},
    "images": {GROUND, "oci", "registry", "soci", "soci.ztoc", "soci.index"},
    "verification": {
        GROUND,
        "oci",
        "archive",
        "registry",
        "soci",
        "soci.tar",
        "soci.gzip",
        "soci.ztoc",
        "soci.index",
        "images",
    },
    "publish": {
        GROUND,
        "oci",
        "machine",
        "registry",
        "soci",
        "soci.ztoc",
        "soci.index",
        "aws",
        "git",
        "builders",
        "containerd",
        "images",
        "verification",
    },
    "reindex": {
        GROUND,
        "oci",
        "machine",
        "registry",
        "soci",
        "soci.ztoc",
        "soci.index",
        "images",
        "verification",
        "publish",
    },
    "retention": {GROUND, "oci", "registry", "aws", "images"},
    "prefect_rest": {GROUND},
    "publications": {GROUND, "registry", "publish"},
    "prefect_setup": {GROUND, "publish", "publications", "prefect_rest"},
    "webhook": {GROUND, "http_server", "aws", "git", "publish", "publications", "reindex", "prefect_rest"},
    "remote_publish": {GROUND, "oci", "publish", "prefect_rest"},
    "commands": {
        GROUND,
        "troubleshooting",
        "oci",
        "archive",
        "machine",
        "registry",
        "registry.server",
        "soci",
        "soci.tar",
        "soci.gzip",
        "soci.ztoc",
        "soci.index",
        "git",
        "aws",
        "builders",
        "containerd",
        "images",
        "verification",
        "publish",
        "reindex",
        "retention",
        "prefect_rest",
        "publications",
        "prefect_setup",
        "remote_publish",
        "webhook",
    },
    FACADE: {GROUND, "oci", "registry", "soci.ztoc", "soci.index", "verification"},
    "tasks": {
        GROUND,
        "oci",
        "registry",
        "soci",
        "soci.ztoc",
        "soci.index",
        "aws",
        "git",
        "builders",
        "verification",
        "publish",
        "reindex",
        "retention",
        "prefect_rest",
    },
    "flows": {
        GROUND,
        "oci",
        "machine",
        "soci.index",
        "verification",
        "publish",
        "reindex",
        "retention",
        "tasks",
    },
    "deployments": {GROUND, "aws"},
    "local_stack": {
        GROUND,
        "oci",
        "archive",
        "machine",
        "registry",
        "soci.index",
        "git",
        "builders",
        "containerd",
        "publish",
        "prefect_rest",
        "prefect_setup",
        "commands",
    },
}
"""The rooms of the project from the ground up, and all other rooms that each may import."""


def _imports(folder: str) -> Iterator[tuple[Path, str]]:
    for path in sorted((REPOSITORY / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield path, node.module


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("src/soci_pipeline", {"prefect", "prefect_aws", "tasks", "flows", "deployments", "local_stack"}),
        ("tasks", {"flows", "deployments", "local_stack"}),
        ("flows", {"deployments", "local_stack"}),
    ],
)
def test_a_ring_does_not_import_from_a_ring_outside_of_it(folder: str, forbidden: set[str]) -> None:
    found = [f"{path}: {name}" for path, name in _imports(folder) if name.split(".")[0] in forbidden]
    assert found == []


def _rooms() -> dict[str, set[str]]:
    """The other rooms that each room imports, wherever in a module it does so."""
    used: dict[str, set[str]] = {name: set() for name in ALLOWED}
    for folder in (LIBRARY, *OUTSIDE):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            module = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removeprefix("src.")
            room = _room(module.removesuffix(".__init__"))
            used.setdefault(room, set()).update({_room(name) for name in _imported(path)} - {room})
    return used


def _imported(path: Path) -> Iterator[str]:
    """The modules of the project that a file imports, in functions and for the type checker too."""
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name for name in names if name.split(".")[0] in ("soci_pipeline", *OUTSIDE))


def _room(module: str) -> str:
    """The room of a module or of a name in it."""
    top, _, rest = module.partition(".")
    if top in OUTSIDE:
        return top
    parts = rest.split(".")
    folder = REPOSITORY / LIBRARY
    if not (folder / parts[0]).is_dir() or not parts[0]:
        single = (folder / f"{parts[0]}.py").is_file()
        return "commands" if parts[0] in ("cli", "__main__") else GROUND if single else FACADE
    return ".".join(parts[:2]) if ".".join(parts[:2]) in ALLOWED else parts[0]


def test_a_room_imports_from_no_other_room_than_the_table_says() -> None:
    found = {room: sorted(used - ALLOWED.get(room, set())) for room, used in _rooms().items()}
    assert {room: names for room, names in found.items() if names} == {}


def test_every_arrow_of_the_table_is_used() -> None:
    used = _rooms()
    unused = {room: sorted(allowed - used[room]) for room, allowed in ALLOWED.items()}
    assert {room: names for room, names in unused.items() if names} == {}


def test_every_folder_of_the_library_is_a_room() -> None:
    folders = {path.parent.name for path in (REPOSITORY / LIBRARY).glob("*/*.py")}
    assert folders <= ALLOWED.keys()


def test_the_ground_floor_has_no_arrow_upward() -> None:
    assert ALLOWED[GROUND] == set()
    assert _rooms()[GROUND] == set()


def test_no_room_leads_back_to_itself() -> None:
    left = {room: set(names) for room, names in _rooms().items()}
    while ends := {room for room, names in left.items() if not names & left.keys()}:
        left = {room: names for room, names in left.items() if room not in ends}
    assert left == {}


def test_the_outer_rings_exist_and_use_the_inner_ones() -> None:
    used = {name.split(".")[0] for _, name in _imports("flows")}
    assert {"prefect", "tasks", "soci_pipeline"} <= used


def test_no_flow_module_hides_an_importable_package() -> None:
    names = [path.stem for path in (REPOSITORY / "flows").glob("*.py") if path.stem != "__init__"]
    assert names
    hidden = [
        name for name in names if (found := importlib.util.find_spec(name)) and "site-packages" in str(found.origin)
    ]
    assert hidden == []


@pytest.mark.parametrize(
    ("command", "heavy"),
    [
        ("doctor", ("prefect", "boto3", "fastapi")),
        # Half of the time that a small layer takes was the import of these.
        ("ztoc", ("pydantic", "httpx", "importlib.metadata")),
    ],
)
def test_a_command_starts_without_what_it_does_not_need(command: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys, soci_pipeline.cli as c; c.main([{command!r}, '--help'])"
    listing = f"import sys; print([m for m in {heavy!r} if m in sys.modules])"
    script = f"try:\n    {code}\nexcept SystemExit:\n    {listing}"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "[]"
