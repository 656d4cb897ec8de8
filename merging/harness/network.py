"""Nothing is fetched while lm-eval works, unless it was asked for: no library asks the Hub, and no socket is opened."""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

REFUSED = "nothing is fetched here"
"""Words of the error that a socket raises."""
_SAID = {
    "huggingface_hub.constants": ("HF_HUB_OFFLINE",),
    "datasets.config": ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"),
    "evaluate.config": ("HF_EVALUATE_OFFLINE",),
}
"""Module → names by which it knows that it is offline, read once, when it is imported."""
_ENVIRONMENT = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE", "TRANSFORMERS_OFFLINE")


@contextlib.contextmanager
def no_network() -> Iterator[None]:
    """Keeps this process from the network, and tells libraries and child processes so.

    What lies on this disk, the Hub's cache included, is found. Sockets of the system's own kind still work.
    """
    with contextlib.ExitStack() as undone:
        for name, value in (("connect", _refusing(_CONNECT)), ("connect_ex", _refusing(_CONNECT_EX))):
            undone.callback(setattr, socket.socket, name, getattr(socket.socket, name))
            setattr(socket.socket, name, value)
        undone.callback(setattr, socket, "getaddrinfo", socket.getaddrinfo)
        socket.getaddrinfo = _nobody
        for module, names in _SAID.items():  # imported before the environment says so, which is for this while only
            with contextlib.suppress(ImportError):
                owner = importlib.import_module(module)
                for name in (name for name in names if hasattr(owner, name)):
                    undone.callback(setattr, owner, name, getattr(owner, name))
                    setattr(owner, name, True)
        for name in _ENVIRONMENT:
            undone.callback(_put, name, os.environ.get(name))
            os.environ[name] = "1"
        yield


def _put(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


_CONNECT, _CONNECT_EX = socket.socket.connect, socket.socket.connect_ex


def _refusing(method: Callable[[socket.socket, Any], Any]) -> Callable[[socket.socket, Any], Any]:
    """The same method, for sockets of the system's own kind alone."""

    def connect(self: socket.socket, address: Any) -> Any:
        if self.family == socket.AF_UNIX:
            return method(self, address)
        raise ConnectionRefusedError(f"{REFUSED}: a connection to {address}")

    return connect


def _nobody(host: Any, *more: Any, **others: Any) -> Any:
    del more, others
    raise ConnectionRefusedError(f"{REFUSED}: a connection to {host}")
