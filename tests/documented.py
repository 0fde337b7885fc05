"""What the documentation says: commands, Python, links and names of settings in README.md and docs/."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PYTHONS = (".venv/bin/python", "bench/bin/python", "python")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FILE_COMMENT = re.compile(r"# ((?:privsyn_jax|configs)/[\w/]+\.py)\n")


class Command(NamedTuple):
    """One command.

    Attributes:
      document: path relative to the project's folder.
      words: as a shell splits them, without variables in front and without what follows a `>`.
      variables: NAME=VALUE in front.
      out: the file that the output goes to, or "".
    """

    document: str
    words: list[str]
    variables: dict[str, str]
    out: str

    def __str__(self) -> str:
        return f"{self.document}: {' '.join(self.words)}"


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of a language; "" for those without one."""
    return [block for found, block in _BLOCK.findall(document.read_text()) if found == language]


def languages(document: Path) -> set[str]:
    return {language for language, _ in _BLOCK.findall(document.read_text())}


def spans(document: Path) -> list[str]:
    """What is set in `code` outside of blocks."""
    return _SPAN.findall(_BLOCK.sub("", document.read_text()))


def links(document: Path) -> list[str]:
    return _LINK.findall(_BLOCK.sub("", document.read_text()))


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", _BLOCK.sub("", document.read_text()), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in plain}


def commands(document: Path) -> list[Command]:
    """Every command of a page in order: all lines of its bash blocks, and what stands in `python -m launch...`."""
    found = []
    for match in re.finditer(rf"{_BLOCK.pattern}|{_SPAN.pattern}", document.read_text(), re.DOTALL | re.MULTILINE):
        language, block, span = match.groups()
        if language == "bash":
            lines = block.replace("\\\n", " ").splitlines()
        else:
            lines = [span] if span and span.startswith("python -m launch.") and "…" not in span else []
        for line in lines:
            found += _split(name_of(document), shlex.split(line, comments=True))
    return found


def mentions(document: Path) -> list[tuple[str, list[str]]]:
    """(program, flags) wherever `launch.PROGRAM` stands with flags of its own."""
    found = []
    for span in spans(document):
        words = span.removeprefix("python -m ").split()
        if words and words[0].startswith("launch."):
            program = words[0].removeprefix("launch.")
            found.append((program, [word[2:].split("=")[0] for word in words[1:] if word.startswith("--")]))
    return found


def edits(document: Path) -> dict[str, list[str]]:
    """{file: Python blocks whose first line is a comment with that file's path}: what the page says to write."""
    found: dict[str, list[str]] = {}
    for block in blocks(document, "python"):
        if match := _FILE_COMMENT.match(block):
            found.setdefault(match[1], []).append(block[match.end() :])
    return found


def programs(document: Path) -> list[str]:
    """Python blocks that are run as they stand: those that are not a file's."""
    return [block for block in blocks(document, "python") if not _FILE_COMMENT.match(block)]


def edited(text: str | None, block: str) -> str:
    """A file's text after a block of `edits`: the block itself where there is no file.

    Of a file that exists, a line followed by "..." must stand in it; what follows is inserted below it, up to the line
    that closes the bracket. Everything else comes before the first such line, or at the end where there is none.
    """
    if text is None:
        return block
    group = re.compile(r"^([^\n]*)\n +\.\.\.\n(.*?\n) *[)}]:?\n", re.DOTALL | re.MULTILINE)
    groups, rest = group.findall(block), group.sub("", block).strip("\n")
    for line, inserted in groups:
        assert f"\n{line}\n" in text, f"no line is {line!r}"
        text = text.replace(f"\n{line}\n", f"\n{line}\n{inserted}", 1)
    if not rest:
        return text
    if not groups:
        return f"{text}\n\n{rest}\n"
    first = f"\n{groups[0][0]}\n"
    return text.replace(first, f"\n{rest}\n\n{first}", 1)


def _split(document: str, words: list[str]) -> list[Command]:
    """The commands of a line, which && joins."""
    found, current = [], []
    for word in [*words, "&&"]:
        if word != "&&":
            current.append(word)
        elif current:
            variables = {}
            while match := re.fullmatch(r"([A-Z_]+)=(.*)", current[0]):
                variables[match[1]] = match[2]
                current.pop(0)
            out = current[current.index(">") + 1] if ">" in current else ""
            found.append(Command(document, current[: current.index(">")] if out else current, variables, out))
            current = []
    return found
