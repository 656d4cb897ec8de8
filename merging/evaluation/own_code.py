"""Whose code a function or an object is of, in which files, and of which other code of the same author these make use.

Code of torch and of this package is known by versions and digests. A package that is installed has a version, and its
files are looked at all the same; any other file is somebody's own, and so are those that it imports.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType

from blake3 import blake3

import merging

KNOWN = ("merging", "torch", "builtins")
"""Packages whose code stands in the key otherwise."""
VERSIONED = ("numpy", "open_clip", "scipy", "timm", "torchvision", "transformers")
"""Installed packages whose versions stand in the key; of others, the versions of all that is installed beside them."""
_INSTALLED = ("site-packages", "dist-packages")


class UnsureError(Exception):
    """Nobody can say that two networks are one."""


def package(code: object) -> str:
    """The package that a function, a class or a module is of."""
    name = code.__name__ if isinstance(code, ModuleType) else getattr(code, "__module__", None)
    return str(name or "").partition(".")[0]


def is_own(code: object) -> bool:
    """Whether a function, a class or a module is somebody's own: neither installed, nor of Python or this package."""
    if package(code) in KNOWN or package(code) in sys.stdlib_module_names - {"__main__"}:
        return False
    module = code if isinstance(code, ModuleType) else sys.modules.get(getattr(code, "__module__", None) or "")
    file = getattr(module, "__file__", None)
    return file is None or not _has_a_version(str(file))


def home(code: Callable[..., object] | type) -> Path | None:
    """The file that a function or a class is of; None where that is known otherwise.

    Raises:
        UnsureError: it lies in no file.
    """
    if package(code) in {*KNOWN, *sys.stdlib_module_names} - {"__main__"}:
        return None
    try:
        file = inspect.getsourcefile(code)
    except TypeError:
        file = None
    if file is None or not Path(file).is_file():
        raise UnsureError(f"{code!r} is in no file")
    return None if _is_ours(str(Path(file).resolve())) else Path(file).resolve()


def digest_of(files: Iterable[Path], modules: Iterable[str]) -> bytes:
    """A digest of files, of own code that they import, of variables of the environment that it names, and of packages.

    Args:
        files: files of code.
        modules: names of the modules that they are.
    """
    digest, own = blake3(), {path for path in files if not _has_a_version(str(path))}
    installed = {*files} - own
    own |= {Path(file).resolve() for file in _imported(modules)}
    for path in sorted(own | installed):
        content = path.read_bytes()
        digest.update(blake3(content).digest())
        if path in own:
            named = [name for name in sorted(os.environ) if any(q + name.encode() + q in content for q in (b'"', b"'"))]
            digest.update(repr([(name, os.environ[name]) for name in named]).encode())
    sites = {site for path in installed for site in [_site(path)] if path.relative_to(site).parts[0] not in VERSIONED}
    digest.update(repr([_distributions(site) for site in sorted(sites)]).encode())
    return digest.digest()


def _imported(modules: Iterable[str]) -> Iterator[str]:
    """Files of modules, and of the own ones among those that they import, and so on."""
    left, seen = list(modules), set[str]()
    while left:
        name = left.pop()
        module = sys.modules.get(name)
        if name in seen or module is None or not is_own(module):
            continue
        seen.add(name)
        if (file := getattr(module, "__file__", None)) is not None and Path(file).is_file():
            yield file
        for value in list(vars(module).values()):
            known = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            if isinstance(known, str):
                left.append(known)


def _site(path: Path) -> Path:
    place = max(path.parts.index(each) for each in _INSTALLED if each in path.parts)
    return Path(*path.parts[: place + 1])


@functools.cache
def _distributions(site: Path) -> tuple[str, ...]:
    """Names and versions of what is installed somewhere."""
    return tuple(sorted(each.name for each in site.glob("*.dist-info")))


@functools.cache
def _has_a_version(file: str) -> bool:
    """Whether a file is of an installed package, of Python, or of this package, whose code is known otherwise."""
    path = Path(file).resolve()
    python = Path(sysconfig.get_path("stdlib")).resolve()
    return _is_ours(str(path)) or any(each in path.parts for each in _INSTALLED) or python in path.parents


@functools.cache
def _is_ours(file: str) -> bool:
    own = Path(merging.__file__).parent
    homes = {own, *(each.resolve() for each in own.iterdir() if each.is_dir())}
    return any(each in Path(file).resolve().parents for each in homes)
