"""Libraries that would download what a name stands for, or run the code that lies beside it: neither is done here.

What the user's own functions and plug-ins do stays theirs: the settings hold while ours call a library.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from typing import Any

from merging.errors import TaskError, raised, showable

CODE = "it brings code of its own (auto_map), which is never run; a model of your own goes in as python:module:function"
"""Says why a folder that asks for ``trust_remote_code`` is refused."""


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Keeps Hugging Face's libraries to what is on this disk, and from asking whether code may run."""
    wanted = (
        ("huggingface_hub.constants", "HF_HUB_OFFLINE", True),
        ("transformers.dynamic_module_utils", "TIME_OUT_REMOTE_CODE", 0),
    )
    with contextlib.suppress(ImportError):
        importlib.import_module("huggingface_hub.constants")
        if "transformers" in sys.modules:  # which takes seconds, and is loaded where it is used
            importlib.import_module("transformers.dynamic_module_utils")
    before = []
    for module, name, value in wanted:
        if module in sys.modules and hasattr(sys.modules[module], name):
            before.append((sys.modules[module], name, getattr(sys.modules[module], name)))
            setattr(sys.modules[module], name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def check_built_in(library: str, name: str) -> None:
    """Refuses names with a place in them (``hf-hub:…``, ``local-dir:…``), which a library would fetch or read.

    Raises:
        TaskError: it is one.
    """
    if ":" in name:
        raise TaskError(
            f"{library}:{name} names a place and no architecture of {library}, and nothing is downloaded here; name "
            f"the architecture ({library}:NAME), and the weights with `models`"
        )


def check_kernels(config: Any, where: str) -> None:
    """Refuses a configuration of transformers whose attention is a kernel of the Hub: code that is fetched and run.

    Args:
        config: the configuration that transformers has read.
        where: begins the message.

    Raises:
        TaskError: it names one (``"attn_implementation": "org/name"``).
    """
    parts = [config, *(getattr(config, name, None) for name in getattr(config, "sub_configs", ()))]
    for named in (str(getattr(part, "_attn_implementation", None) or "") for part in parts):
        if "/" in named:
            raise TaskError(
                f"{where}: its attention is a kernel of the Hub ('{showable(named)[:60]}'), code that is never run "
                "here; take 'attn_implementation' out of it"
            )


def reason(error: Exception) -> str:
    """Repeats what a library says, in one line; in our words where it wants code or the network."""
    said = raised(error, whole=True)
    if "trust_remote_code" in said or "custom code" in said:
        return CODE
    if "offline" in said.lower() or "local_files_only" in said or "huggingface.co" in said:
        return f"it is not on this disk, and nothing is downloaded here ({raised(error)[:200]})"
    return raised(error)
