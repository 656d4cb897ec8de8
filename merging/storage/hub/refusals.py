"""What the Hub refuses, as one line: what, where, the nearest right name, the way out. No token is ever in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from merging.errors import CheckpointError, nearest, raised
from merging.storage.hub.spelling import HubId
from merging.values.wording import some

LOG_IN = "log in (hf auth login) or set HF_TOKEN"


def refusal(error: Exception, wanted: HubId, api: Any) -> CheckpointError:
    """The error for what huggingface_hub raised of a repository.

    Args:
        error: what it raised.
        wanted: what was asked for.
        api: the ``HfApi`` that was asked, which may be asked for names.
    """
    from huggingface_hub import errors

    at, name = address(api), wanted.repository
    if isinstance(error, errors.GatedRepoError):
        return CheckpointError(
            f"{wanted}: its owners decide who may have it (gated): ask for it at {at}/{name}, then {LOG_IN}"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return CheckpointError(
            f"{wanted}: there is no such model at {at}, and no such path here (if it is private, {LOG_IN})"
            f"{_near(name, lambda: _siblings(api, name))}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return CheckpointError(
            f"{wanted}: the model has no branch, tag or commit '{wanted.revision}'"
            f"{_near(wanted.revision, lambda: _revisions(api, name), listed=True)}"
        )
    return CheckpointError(f"{wanted}: {reason(error, at)}")


def reason(error: Exception, endpoint: str) -> str:
    """Says what went wrong on the way, in a few words."""
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled):
        return "it is not whole in the cache, and nothing is fetched offline (HF_HUB_OFFLINE)"
    if isinstance(error, errors.HfHubHTTPError):
        code = error.response.status_code
        if code in (401, 403):
            return f"{endpoint} does not take the token, or it may not do that ({code}); {LOG_IN}"
        said = (error.server_message or "").strip().partition("\n")[0][:200]
        return f"{endpoint} answers {code}{f' ({said})' if said else ''}; try again later"
    if isinstance(error, OSError) and error.errno is not None:
        return raised(error)
    words = raised(error).partition("?")[0][:200]  # addresses of files are signed behind the question mark
    return f"{endpoint} cannot be reached ({words})" if passes(error) else words


def address(api: Any) -> str:
    """The Hub's address as it may be shown: ``HF_ENDPOINT`` without a name and password in it."""
    before, double, behind = str(api.endpoint).partition("://")
    return before + double + behind.rpartition("@")[2]


def passes(error: Exception) -> bool:
    """Whether an error is one of the connection or the server, which may be gone in a minute.

    HTTP libraries name those of the connection; which library it is has changed.
    """
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError):
        return bool(error.response.status_code >= 500)
    return any(word in type(error).__name__ for word in ("Connect", "Timeout", "Chunked", "Protocol", "ReadError"))


def _near(name: str, known: Callable[[], Iterable[str]], *, listed: bool = False) -> str:
    """The nearest of the names that the Hub knows; empty where it does not say."""
    try:
        names = sorted(known())
    except Exception:  # only a hint
        return ""
    if near := nearest(name, names):
        return f"; did you mean '{near}'?"
    return f"; it has {some(names, 6)}" if names and listed else ""


def _siblings(api: Any, name: str) -> list[str]:
    """Models of the same owner."""
    owner, slash, _ = name.partition("/")
    return [model.id for model in api.list_models(author=owner, limit=200)] if slash else []


def _revisions(api: Any, name: str) -> list[str]:
    refs = api.list_repo_refs(name)
    return [ref.name for ref in (*refs.branches, *refs.tags)]
