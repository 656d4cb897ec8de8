"""Text that Debian packages carry: fetched by apt, unpacked aside, nothing installed."""

from __future__ import annotations

import gzip
import hashlib
import html
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

Documents = Iterator[tuple[str, str]]
"""Names of documents, each with its text."""
_TAGS = re.compile(r"<(script|style|head|pre)\b.*?</\1>|<[^>]+>", re.DOTALL | re.IGNORECASE)
_CODES = re.compile(r"[A-Z]<+\s*((?:[^<>]|<[^<>]*>)*?)\s*>+")


def fetch(folder: Path) -> dict[str, str]:
    """Downloads and unpacks all packages, those that are not there; gives the SHA-256 of each file.

    Args:
        folder: of the files, and of a folder for each package.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in PACKAGES:
        if not list(folder.glob(f"{name}_*.deb")):
            subprocess.run(["apt-get", "download", "-q", name], cwd=folder, check=True)  # noqa: S603, S607
    found = {}
    for name in PACKAGES:
        file = max(folder.glob(f"{name}_*.deb"))
        found[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
        subprocess.run(["dpkg-deb", "-x", file, folder / name], check=True)  # noqa: S603, S607
    return found


def documents(folder: Path, package: str) -> Documents:
    """The documents of a package that was unpacked, in the order of their names."""
    yield from PACKAGES[package](folder / package)


def _dictionary(root: Path) -> Documents:
    """Entries of a dictionary of dictd, a hundred together."""
    for file in sorted(root.rglob("*.dict.dz")):
        text = gzip.decompress(file.read_bytes()).decode("utf-8", "replace")
        entries = re.split(r"\n(?=\S)", text)
        for start in range(0, len(entries), 100):
            yield f"{file.stem}/{start}", "\n\n".join(map(_unwrapped, entries[start : start + 100]))


def _glosses(root: Path) -> Documents:
    """WordNet's glosses, with their words, a hundred together."""
    for file in sorted(root.rglob("data.*")):
        lines = [line for line in file.read_text("utf-8").splitlines() if line[:1].isdigit() and " | " in line]
        said = [f"{line.split(' ')[4].replace('_', ' ')}: {line.partition(' | ')[2].strip()}" for line in lines]
        for start in range(0, len(said), 100):
            yield f"{file.name}/{start}", "\n\n".join(said[start : start + 100])


def _fortunes(root: Path) -> Documents:
    for file in sorted(root.rglob("games/fortunes/*")):
        if file.is_file() and not file.suffix:
            yield file.name, "\n\n".join(part.strip() for part in file.read_text("utf-8", "replace").split("\n%\n"))


def _manuals(root: Path) -> Documents:
    """Perl's documentation: paragraphs of prose, without code and marks."""
    for file in sorted(root.rglob("*.pod")):
        parts = file.read_text("utf-8", "replace").split("\n\n")
        plain = [part for part in parts if part[:1] not in (" ", "\t", "=", "")]
        for _ in range(2):  # marks within marks
            plain = [_CODES.sub(r"\1", part) for part in plain]
        yield file.stem, "\n\n".join(map(_unwrapped, plain))


def _pages(root: Path) -> Documents:
    """HTML pages as paragraphs; of several languages the English ones."""
    for file in sorted(path for path in root.rglob("*.html") if path.is_file()):
        name = str(file.relative_to(root))
        if "html/" in name and re.search(r"/[a-z]{2}-[A-Z]{2}/", name) and "/en-US/" not in name:
            continue
        if re.search(r"\.[a-z]{2}(-[a-z]{2})?\.html$", name) and not name.endswith(".en.html"):
            continue
        raw = file.read_bytes().decode("utf-8", "replace")
        marked = re.sub(r"</?(p|div|li|h\d|blockquote|br|dd|dt|tr)\b[^>]*>", "\n\n", raw, flags=re.IGNORECASE)
        parts = html.unescape(_TAGS.sub(" ", marked)).split("\n\n")
        yield name, "\n\n".join(map(_unwrapped, parts))


def _unwrapped(text: str) -> str:
    return " ".join(text.split())


PACKAGES: Mapping[str, Callable[[Path], Documents]] = MappingProxyType(
    {
        "perl-doc": _manuals,
        "anarchism": _pages,
        "dict-jargon": _dictionary,
        "dict-gcide": _dictionary,
        "dict-foldoc": _dictionary,
        "dict-devil": _dictionary,
        "wordnet-base": _glosses,
        "fortunes": _fortunes,
        "fortunes-min": _fortunes,
        "debian-handbook": _pages,
        "debian-policy": _pages,
        "debian-faq": _pages,
    }
)
"""Package → how its documents are read."""
