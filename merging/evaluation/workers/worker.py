"""A worker: opens the world once, and answers requests with values."""

from __future__ import annotations

import contextlib
import pickle
import queue
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from merging.errors import MergingError, Stopped, StopReason, WorkersError, raised
from merging.evaluation.evaluator import Evaluator
from merging.evaluation.fingerprint import fingerprint
from merging.evaluation.keys import Trial
from merging.evaluation.scorer import LiveScorer
from merging.evaluation.workers.blobs import Blobs, LackingError, own_folder
from merging.evaluation.workers.packing import Packed, Packer, Unpacker
from merging.evaluation.workers.recorder import Recorder
from merging.evaluation.workers.requests import Answer, Kind, Message, Mix, Piece, Whole
from merging.evaluation.workers.sending import take
from merging.evaluation.workers.telling import Telling, telling_evaluator
from merging.evaluation.workers.world import World, machine
from merging.plugins.progress import Silent
from merging.plugins.user_code import PluginError, running
from merging.storage.pool import ModelPool
from merging.values.recipe import Recipe, Weights

PAUSE = 0.05
"""Seconds between two parts of the answer to a piece."""
INLINE = 1 << 20
"""Bytes up to which a tensor of an answer travels in it."""


class _Open(NamedTuple):
    """What is open: the world, read and written."""

    pool: ModelPool
    evaluator: Evaluator
    ledger: Recorder
    scorer: LiveScorer
    unpacker: Unpacker
    packer: Packer


class Worker:
    """The one who makes passes for a driver, in a process of his own.

    Args:
        first: the place of the driver's files, as :func:`merging.evaluation.workers.requests.first_words` says it.
    """

    def __init__(self, first: bytes) -> None:
        shared = Path(pickle.loads(first)["folder"])
        self._here = shared.is_dir()
        own = own_folder()
        self._blobs = Blobs((shared, own), own)
        self._answers = Blobs((shared,), shared if self._here else None)
        self._open: _Open | None = None
        self._dropped: set[int] = set()
        self._number = -1
        self._held = contextlib.ExitStack()
        self._ends: dict[tuple[int, int, str], list[Any]] = {}

    def told(self, message: bytes) -> None:
        """Takes what is said out of turn: requests that nobody waits for any more."""
        self._dropped |= set(pickle.loads(message))

    def answers(self, message: bytes) -> Iterator[bytes]:
        """Does what is asked: the parts of an answer, as :class:`Answer`."""
        asked: Message = pickle.loads(message)
        self._number = asked.number
        if self._open is not None:  # also of what nobody waits for any more: the driver sends each of them once
            for name, data in asked.definitions:
                self._open.unpacker.define(name, data)
            for name in asked.forgets:
                self._open.unpacker.forget(name)
                self._ends.clear()  # they are known by what may be another's place now
        try:
            if asked.number in self._dropped:
                raise Stopped(StopReason.INTERRUPTED)
            yield from self._done(asked)
        except Stopped:
            yield self._said("dropped", None)
        except LackingError as error:
            yield self._said("lacking", error.args)
        except (Exception, SystemExit) as error:  # whoever makes a pass again would exit, too
            yield self._said("error", _sendable(error))

    def _done(self, asked: Message) -> Iterator[bytes]:
        match asked.kind:
            case Kind.FILES:
                take(pickle.loads(asked.body), own_folder())
                yield self._said("done", None)
            case Kind.WORLD:
                yield self._said("done", self._enter(asked.body))
            case Kind.PIECE:
                yield from self._piece(self._read(asked))
            case Kind.WHOLE:
                yield from self._whole(self._read(asked))
            case kind:
                found = getattr(self, f"_{kind.value}")(*self._read(asked))
                yield self._said("done", found)

    def _enter(self, body: bytes) -> dict[str, Any]:
        """Opens the world, in the place of an earlier one; tells what machine this is."""
        world = World.unpacked(body, self._blobs)
        self._open = None
        self._ends.clear()
        self._held.close()
        self._held.enter_context(world.numerics.applied())
        ledger = Recorder(lambda: self._number in self._dropped)
        pool, evaluator, scorer = world.open(ledger, machine(), own_folder())
        unpacker = Unpacker(self._blobs, pool, world.partition, world.models.rows)
        packer = Packer(self._answers, INLINE, pool, world.partition, world.models.rows)
        self._open = _Open(pool, evaluator, ledger, scorer, unpacker, packer)
        return {"machine": machine(), "fingerprint": fingerprint(scorer.live, world.task, world.numerics)}

    def _read(self, asked: Message) -> Any:
        return self._opened.unpacker.unpack(asked.body)

    @property
    def _opened(self) -> _Open:
        if self._open is None:
            raise WorkersError("a worker was asked before it was told what about")
        return self._open

    def _measure(self, model: Recipe | Weights | Mix, split: str, record: bool) -> Any:
        return self._opened.scorer.measure(self._model(model), split, record=record), self._reached

    def _part(self, model: Recipe | Weights | Mix, split: str, start: int, stop: int, record: bool) -> Any:
        return self._opened.scorer.part(self._model(model), split, start, stop, record=record), self._reached

    def _logits(self, recipe: Recipe, split: str, record: bool) -> Any:
        logits, passes = self._opened.scorer.logits(recipe, split, record=record)
        return (logits, passes), self._reached

    def _statistics(self, merged: Recipe | Weights) -> Any:
        return self._opened.scorer.measured(merged), self._reached

    def _test(self, merged: Recipe | Weights, bar: Any, easiness: Any, checked: bool) -> Any:
        return self._opened.scorer.exceeds(merged, bar, easiness, checked=checked), self._reached

    def _model(self, model: Recipe | Weights | Mix) -> Recipe | Weights | Trial:
        """What is to be loaded; the ends of a search are described once."""
        if not isinstance(model, Mix):
            return model
        ends = (id(model.incumbent), id(model.candidate), model.mixing)
        if ends not in self._ends:
            self._ends[ends] = self._opened.evaluator.keys.ends(model.incumbent, model.candidate, model.mixing)
        return Trial(**vars(model), ends=self._ends[ends])

    @property
    def _reached(self) -> frozenset[str] | None:
        """Statistics that a pass reaches, where they are measured again."""
        calibration = self._opened.evaluator.keys.calibration
        return None if calibration is None else calibration.statistics

    def _piece(self, piece: Piece) -> Iterator[bytes]:
        """Runs a piece of a strategy in a thread, and tells outcomes while it runs."""
        opened, told = self._opened, queue.SimpleQueue[Any]()
        opened.ledger.heard = lambda key, outcome: told.put((key, outcome))
        opened.ledger.begin()
        work = partial(piece.run, opened.evaluator, opened.pool, Silent())
        thread = threading.Thread(target=_ended(work, told), daemon=True)
        thread.start()
        ended = False
        while not ended:
            said = [told.get()]
            time.sleep(PAUSE if said[0] is not None else 0)
            while said[-1] is not None and not told.empty():
                said.append(told.get())
            ended = said[-1] is None
            yield self._said("part", ([each for each in said if each is not None], self._reached))
        thread.join()
        yield self._said("done", None)

    def _whole(self, whole: Whole) -> Iterator[bytes]:
        """Runs a strategy in a thread, and tells in order what it does, and what has come of it at the end."""
        opened, told = self._opened, queue.SimpleQueue[Packed | None]()
        pool, keys = opened.pool, opened.evaluator.keys
        answers = self._answers.anew()  # what it gives may be large, and is kept no longer than it runs
        packer = Packer(answers, INLINE, pool, keys.partition, opened.unpacker.rows)
        telling = Telling(lambda event: told.put(packer.pack(event)))
        evaluator = telling_evaluator(opened.scorer, keys, telling, opened.ledger.should_stop, whole)
        found: list[object] = []
        thread = threading.Thread(
            target=_caught(partial(whole.run, evaluator, pool, telling), found, told), daemon=True
        )
        thread.start()
        count, said = 0, list[Packed | None]()
        while None not in said:
            said = [told.get()]
            while said[-1] is not None and not told.empty():
                said.append(told.get())
            events = [packed for packed in said if packed is not None]
            names = dict.fromkeys(name for packed in events for name in packed.names)
            body = pickle.dumps((count, [packed.data for packed in events]))
            yield self._answer("part", Packed(body, tuple(names)), packer)
            count += len(events)
        thread.join()
        if not isinstance(found[0], BaseException):
            yield self._answer("done", packer.pack(found[0]), packer)
        elif isinstance(found[0], Stopped) and self._number in self._dropped:
            raise found[0]
        else:
            yield self._said("error", found[0] if isinstance(found[0], Stopped) else _sendable(found[0]))

    def _answer(self, state: str, packed: Packed, packer: Packer) -> bytes:
        definitions = tuple((name, packer.definitions[name].data) for name in packed.names)
        return pickle.dumps(Answer(self._number, state, packed.data, definitions))

    def _said(self, state: str, value: Any) -> bytes:
        if self._open is None or state in ("lacking", "dropped"):
            return pickle.dumps(Answer(self._number, state, pickle.dumps(value)))
        return self._answer(state, self._open.packer.pack(value), self._open.packer)


def _ended(work: Callable[[], object], told: queue.SimpleQueue[Any]) -> Callable[[], None]:
    """Work whose end is told, whatever ended it: the driver meets every error itself, where it belongs."""

    def run() -> None:
        with contextlib.suppress(BaseException):
            work()
        told.put(None)

    return run


def _caught(work: Callable[[], object], found: list[object], told: queue.SimpleQueue[Any]) -> Callable[[], None]:
    """Work that leaves what came of it, the error where there was one, and whose end is told."""

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:
            found.append(error)
        told.put(None)

    return run


def _sendable(error: BaseException) -> Exception:
    """An error that another process can read: of ours itself, of anybody else its words and its place."""
    try:
        with running("a pass on a worker", None):
            raise error
    except MergingError as ours:
        with contextlib.suppress(Exception):
            pickle.loads(pickle.dumps(ours))
            return ours
        return PluginError(raised(error))
    except BaseException as other:
        return PluginError(raised(other))
