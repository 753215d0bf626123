"""Write the parts of the reference that the code determines: settings, parameters and errors.

``python docs/generate_reference.py`` rewrites them in place; a test fails while a page differs from the code. A page
keeps what stands outside its markers ``<!-- generated … -->``.
"""

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from soci_pipeline import settings
from soci_pipeline.publish.request import PublishRequest
from soci_pipeline.reindex.parameters import IndexParameters
from soci_pipeline.retention.parameters import PruneParameters
from soci_pipeline.soci.index.records import SociOptions
from soci_pipeline.troubleshooting import read_entries
from soci_pipeline.verification.parameters import VerifyParameters

DOCS: Final = Path(__file__).resolve().parent
_MARKED: Final = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
# The defaults that depend on the machine, in words.
_DEFAULTS: Final = {
    "WORK_FOLDER": "`soci-pipeline-UID` in the temporary folder",
    "WORK_CACHE": "`ztocs` below the work folder",
    "REGISTRY_PART_SIZE": "256 MiB",
    "ECR_CREDENTIALS_BLOCK": "boto3's credential chain",
    "ECR_KMS_KEY": "AES-256",
    "BUILD_BUILDX_BUILDER": "the engine's own, or one created for the run",
    "CONTAINERD_ADDRESS": "the engine's",
    "CONTAINERD_SOCI_BASE_URL": "the releases of soci",
    "PUBLISH_SIGNING_CONFIG": "cosign's own",
}
_MODELS: Final[dict[str, type[BaseModel]]] = {
    "publish-image": PublishRequest,
    "soci": SociOptions,
    "index-image": IndexParameters,
    "verify-image": VerifyParameters,
    "prune-repository": PruneParameters,
}


def main() -> int:
    """Rewrite the pages; return 0."""
    for page in pages():
        text = page.read_text()
        page.write_text(generated(text))
    return 0


def pages() -> Iterator[Path]:
    """Yield the pages with generated parts."""
    return (page for page in sorted(DOCS.glob("*.md")) if _MARKED.search(page.read_text()))


def generated(page: str) -> str:
    """Return the text of a page with its generated parts made anew."""
    return _MARKED.sub(lambda found: f"{found[1]}\n{_part(found['name'])}\n\n{found[3]}", page)


def _part(name: str) -> str:
    writers: dict[str, Callable[[], str]] = {"settings": _settings, "errors": _errors}
    return _parameters(_MODELS[name]) if name in _MODELS else writers[name]()


def _settings() -> str:
    rows = []
    for section, info in settings.Settings.model_fields.items():
        model = info.annotation
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise TypeError(f"section {section} is not a model")
        meanings = _attribute_docstrings(model)
        for field, each in model.model_fields.items():
            name = f"{section}_{field}".upper()
            rows.append(
                (f"`{name}`", _DEFAULTS.get(name) or _default(each), _with_variables(meanings[field], section, model))
            )
    return _table(("variable", "default", "meaning"), rows)


def _with_variables(meaning: str, section: str, model: type[BaseModel]) -> str:
    """Replace the names of the model's fields in backticks by the variables that set them."""
    fields = "|".join(model.model_fields)
    return re.sub(f"`({fields})`", lambda found: f"`{section}_{found[1]}`".upper(), meaning)


def _attribute_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstrings below the fields of a model, each as one line of Markdown."""
    [tree] = ast.parse(inspect.getsource(model)).body
    if not isinstance(tree, ast.ClassDef):
        raise TypeError(f"{model.__name__} is not a class")
    found: dict[str, str] = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            line = " ".join(inspect.cleandoc(str(text.value.value)).split())
            found[ast.unparse(field.target)] = re.sub(r"``?([^`]+)``?", r"`\1`", line)
    return found


def _parameters(model: type[BaseModel]) -> str:
    rows = [(f"`{name}`", _default(info), info.description or "") for name, info in model.model_fields.items()]
    return _table(("parameter", "default", "meaning"), rows)


def _default(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "required"
    return _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "see below"
    if value is None or value in ((), {}, ""):
        return "none"
    if isinstance(value, tuple):
        return f"`{', '.join(map(str, value))}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _errors() -> str:
    parts = []
    for entry in read_entries():
        status = "" if entry.status is None else f" Exit status {entry.status}."
        parts.append(f"## {entry.name}\n\n**{entry.summary}**{status}\n\n{entry.text}")
    return "\n\n".join(parts)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
