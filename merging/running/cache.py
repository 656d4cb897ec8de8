"""What a command is told of scores and content hashes that other commands have found."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from merging.plugins.options import Declared, Setting, option
from merging.plugins.progress import Silent
from merging.storage.file_hashes import REFUTED, Remembering, remembering
from merging.storage.user_cache import limit

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Cache(Declared):
    """The use of what other commands have found: scores and content hashes, in the user's cache."""

    remember: bool = option(
        True,
        "Use and keep scores and content hashes across commands.",
        setting=Setting(
            switch="off",
            said="Neither use nor keep scores and content hashes of other commands.",
            changes=True,
            silent=True,
            more="In the folder that `MERGING_CACHE` names; changes no result. `MERGING_REMEMBER=0` says no for all.",
        ),
    )
    verify: bool = option(
        False,
        "Read every model again, and compare with the hash that is remembered.",
        setting=Setting(switch="on", changes=True, silent=True, more="What was wrong is dropped, with its scores."),
    )

    def applied(self) -> AbstractContextManager[None]:
        """Has what is read meanwhile be remembered as this says."""
        return remembering(Remembering(remember=self.remember, verify=self.verify))


def as_told(function: F) -> F:
    """Has a function that takes ``settings``, or their fields by keyword, remember as these say.

    Raises:
        OptionError: MERGING_CACHE_LIMIT is no size.
    """

    @functools.wraps(function)
    def told(*given: Any, **keywords: Any) -> Any:
        own = getattr(keywords.get("settings"), "cache", None)
        own = own if isinstance(own, Cache) else Cache()
        remember, verify = (keywords.get(name, getattr(own, name)) for name in ("remember", "verify"))
        limit()  # a wrong one is said before any work
        how = Remembering(remember=remember is not False, verify=verify is True)
        try:
            with remembering(how):
                return function(*given, **keywords)
        finally:
            said = (getattr(keywords.get("watcher"), "progress", None), keywords.get("progress"))
            progress: Any = next((each for each in said if callable(getattr(each, "say", None))), Silent())
            for place in dict.fromkeys(how.refuted):
                progress.say(f"warning: {place} {REFUTED}")

    return cast("F", told)
