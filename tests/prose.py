"""Report phrases that this project does not write: ``python -m tests.prose [FILE ...]``.

It checks Markdown (without code and link targets), and the comments and strings of Python files: docstrings and
messages, but not names, single words and `code` in backticks. Without arguments it checks every tracked document and
the sources.
Each phrase is printed as ``path:line: phrase: use …``; the exit status is 1 if there is one. The rules are in
``tests/data/prose.toml``.
"""

import argparse
import functools
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RULES = ROOT / "tests" / "data" / "prose.toml"
CHECKED = ("*.md", "src/*.py", "tasks/*.py", "flows/*.py", "local_stack/*.py")

# In place of characters that are not prose, so that offsets and lines stay. No phrase matches across either.
_CODE = "\0"
_VALUE = "\1"  # an expression in an f-string, which may be inside a code span

# Words of a phrase may be on two lines, but not in two paragraphs.
_GAP = r"(?:[ \t]+|[ \t]*\n[ \t]*)"
_FENCE = re.compile(r"^([ >]*)(`{3,}|~{3,})[^\n]*\n.*?(?:^\1\2[`~]*[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_CODE_SPAN = re.compile(rf"(?<!`)(`+)(?!`)(?:(?!\n[ \t]*\n)[^{_CODE}])+?(?<!`)\1(?!`)")
_LINK_TARGET = re.compile(r"(?<=\])\([^()\s]*(?:\([^()\s]*\)[^()\s]*)*\)|<[^<>\s][^<>]*>|https?://\S+")
_ESCAPE = re.compile(r"\\.", re.DOTALL)
_EXPRESSION = re.compile(r"\{[^{}]*\}")
_STRING = re.compile(r"([a-zA-Z]*)(\"{3}|'{3}|\"|')(.*)\2", re.DOTALL)

# From Python 3.12 on, an f-string is several tokens.
_FSTRING_START, _FSTRING_MIDDLE, _FSTRING_END = (
    getattr(tokenize, f"FSTRING_{name}", None) for name in ("START", "MIDDLE", "END")
)


@dataclass(frozen=True)
class Rule:
    """A phrase to replace; ``bad`` and ``good`` are examples that it matches and must not match."""

    phrase: re.Pattern[str]
    use: str
    unless: tuple[re.Pattern[str], ...]
    bad: tuple[str, ...]
    good: tuple[str, ...]

    def matches(self, text: str) -> Iterator[re.Match[str]]:
        """Yield every match that is not inside a match of ``unless``."""
        allowed = [found.span() for each in self.unless for found in each.finditer(text)]
        for found in self.phrase.finditer(text):
            if not any(start <= found.start() and found.end() <= end for start, end in allowed):
                yield found


@dataclass(frozen=True, order=True)
class Hit:
    """A phrase at a line of a file."""

    path: str
    line: int
    phrase: str
    use: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.phrase}: use {self.use}"


def _pattern(phrase: str) -> re.Pattern[str]:
    """Compile a phrase: whole words in any case, with a space for any white space within a paragraph."""
    return re.compile(rf"(?<![\w-])(?:{phrase.replace(' ', _GAP)})(?![\w-])", re.IGNORECASE)


@functools.cache
def load_rules() -> tuple[Rule, ...]:
    """Read the rules."""
    return tuple(
        Rule(
            phrase=_pattern(rule["phrase"]),
            use=rule["use"],
            unless=tuple(map(_pattern, rule.get("unless", ()))),
            bad=tuple(rule["bad"]),
            good=tuple(rule.get("good", ())),
        )
        for rule in tomllib.loads(RULES.read_text())["rules"]
    )


def _hide(match: re.Match[str], character: str = _CODE) -> str:
    return re.sub(r"[^\n]", character, match[0])


def markdown_prose(text: str) -> str:
    """Return the document with code and link targets hidden; lines and columns stay."""
    for pattern in (_FENCE, _CODE_SPAN, _LINK_TARGET):
        text = pattern.sub(_hide, text)
    return text


def python_prose(source: str) -> str:
    """Return the source with everything hidden except comments and text in strings; lines and columns stay."""
    shown = ["\n" if character == "\n" else _CODE for character in source]
    starts = [0]
    for line in source.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    string_end = comment_end = None
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        start, end = (starts[row - 1] + column for row, column in (token.start, token.end))
        if token.type == tokenize.COMMENT:
            shown[start:end] = " " + source[start + 1 : end]
            if comment_end is not None and not source[comment_end:start].strip():
                _join(shown, comment_end, start)
            comment_end = end
        elif token.type in {tokenize.STRING, _FSTRING_START}:
            # Adjacent strings are one text.
            if string_end is not None:
                _join(shown, string_end, start)
            shown[start:end] = _text_of(token.string) if token.type == tokenize.STRING else " " * (end - start)
            string_end = end
        elif token.type == _FSTRING_MIDDLE:
            shown[start:end] = _ESCAPE.sub(_blank, source[start:end])
        elif token.type == _FSTRING_END:
            shown[start:end] = " " * (end - start)
            string_end = end
        elif token.type != tokenize.NL:
            string_end = None
    return _CODE_SPAN.sub(_hide, "".join(shown))


def _join(shown: list[str], start: int, end: int) -> None:
    """Turn everything between two pieces of one text, a comment too, into white space."""
    shown[start:end] = ["\n" if character == "\n" else " " for character in shown[start:end]]


def _blank(match: re.Match[str]) -> str:
    return _hide(match, " ")


def _text_of(literal: str) -> str:
    """Return a string literal as prose of the same length; bytes and single words are hidden."""
    parts = _STRING.fullmatch(literal)
    assert parts is not None, literal
    prefix, quote, text = parts.groups()
    if "b" in prefix.lower() or " " not in text:
        return re.sub(r"[^\n]", _CODE, literal)
    if "r" not in prefix.lower():
        text = _ESCAPE.sub(_blank, text)
    if "f" in prefix.lower():
        text = text.replace("{{", "  ")
        while (hidden := _EXPRESSION.sub(functools.partial(_hide, character=_VALUE), text)) != text:
            text = hidden
        text = text.replace("}}", "  ")
    return f"{' ' * len(prefix + quote)}{text}{' ' * len(quote)}"


def check(path: Path, name: str) -> list[Hit]:
    """Return the phrases to replace in one file, by line."""
    text = path.read_text()
    prose = python_prose(text) if path.suffix == ".py" else markdown_prose(text)
    return sorted(
        Hit(name, prose.count("\n", 0, found.start()) + 1, " ".join(found[0].split()), rule.use)
        for rule in load_rules()
        for found in rule.matches(prose)
    )


def tracked() -> list[str]:
    """Return the files to check by default, relative to the repository."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *CHECKED]
    listing = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [name for name in sorted(set(listing.split("\0"))) if name and (ROOT / name).is_file()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the named files, or all, and print what to replace."""
    parser = argparse.ArgumentParser(prog="python -m tests.prose")
    parser.add_argument("files", nargs="*", metavar="FILE", help="Markdown or Python; by default all that git tracks")
    chosen = parser.parse_args(arguments)
    checked = [(Path(name), name) for name in chosen.files] or [(ROOT / name, name) for name in tracked()]
    try:
        hits = [hit for path, name in checked for hit in check(path, name)]
    except OSError as error:
        parser.error(f"cannot read {error.filename}: {error.strerror}")
    print(*hits, sep="\n", end="\n" if hits else "")
    if hits:
        print(f"{len(hits)} phrases to replace; {RULES.relative_to(ROOT)} has the rules", file=sys.stderr)
    return 1 if hits else 0


if __name__ == "__main__":
    raise SystemExit(main())
