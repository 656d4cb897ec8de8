"""The crew: who is asked what, what comes back, and what happens when somebody is lost."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from merging.errors import Stopped, StopReason, WorkersError
from merging.evaluation.fingerprint import Fingerprint, differs
from merging.evaluation.workers.backend import Backend
from merging.evaluation.workers.blobs import Blobs
from merging.evaluation.workers.packing import Packed, Packer, Unpacker
from merging.evaluation.workers.requests import Answer, Kind, Message
from merging.evaluation.workers.sending import chunks
from merging.plugins.progress import Progress, Silent, tell_workers
from merging.values.wording import plural
from merging.values.workers import WorkerFacts, WorkersState, lost_line

if TYPE_CHECKING:
    from merging.evaluation.workers.ahead import Ahead
    from merging.evaluation.workers.sharing import Sharing

AT_ONCE = 2
"""Requests that a worker has at the most: the next one is there when one is done."""
KILLED = 3
"""Times that a request is asked whose workers die one after the other; then it has failed."""
MOST = 6
"""Workers that may die at a long request, each of which has given a part of its answer before."""
KEPT = 4
"""Merges whose tensors are files that are kept for who asks again."""
TRIES = 3
"""Times that a worker is started before it has opened its world."""


class KilledError(WorkersError):
    """A request that has killed workers."""


@dataclass(eq=False, kw_only=True)
class Job:
    """A request on its way.

    Attributes:
        kind: what it is.
        packed: its words.
        short: it is done in one go, so that a second one may wait behind it.
        on_part: told each part of its answer.
        answer: what came back, once ``done``.
        error: what went wrong instead.
        worker: number of the worker who has it; None: nobody has.
        wanted: the worker that it is for, as long as that one is there.
        killed: how many workers died of it, one after the other, before it had given anything.
        tried: how many have died at it in all.
        gave: who had it last had given a part of its answer.
    """

    kind: Kind
    packed: Packed
    short: bool = True
    on_part: Callable[[Any], None] = lambda part: None
    answer: Any = None
    error: Exception | None = None
    done: bool = False
    dropped: bool = False
    worker: int | None = None
    wanted: int | None = None
    killed: int = 0
    tried: int = 0
    gave: bool = False


@dataclass(eq=False, kw_only=True)
class _Member:
    """A worker as the driver sees it.

    Attributes:
        jobs: number → what it was asked, in order.
        knows: names of the merges that it was told.
        facts: what it said of itself once its world was open.
        starts: times that it was started without having opened its world.
        made: requests that it has answered, in all its lives.
        told: those of lives that are over.
        lost: times that it was lost.
        gone: it was given up.
        fingerprint: what its machine is.
        opens: the world that it is to open as soon as it is there.
        asks: what it cannot do until it has some files.
        brings: the files that are on their way to it, in parts.
        host: its machine, while they are.
    """

    jobs: dict[int, Job] = field(default_factory=dict)
    knows: set[str] = field(default_factory=set)
    facts: dict[str, Any] | None = None
    starts: int = 0
    made: int = 0
    told: int = 0
    lost: int = 0
    gone: bool = False
    fingerprint: Fingerprint | None = None
    opens: Job | None = None
    asks: list[Job] = field(default_factory=list)
    brings: Iterator[bytes] | None = None
    host: str = ""


class Crew:
    """Workers, and what they are asked.

    Whoever waits for an answer moves the crew on: there is no thread. What is asked comes before what might be
    (``supply``), which idle workers are given.

    Args:
        backend: starts workers, and carries bytes.
        blobs: the driver's files.
        progress: told who is lost, and how far everybody is.

    Attributes:
        members: the workers, by number.
        supply: gives a request that might be of use, for a worker with nothing to do; or None.
        plans: what is made beforehand in this world, and what all make together; None until somebody plans.
        inside: the objects of this process that the world is made of; None: there is none yet.
        least: says of long requests at work which is missed least; None: somebody waits for each of them.
    """

    def __init__(self, backend: Backend, blobs: Blobs, progress: Progress | None = None) -> None:
        self.backend, self.blobs, self.progress = backend, blobs, progress or Silent()
        self.members = [_Member() for _ in range(backend.count)]
        self.supply: Callable[[], Job | None] = lambda: None
        self._past: list[WorkerFacts] = []
        self._alike: Fingerprint | None = None
        self.inside: tuple[Any, ...] | None = None
        self.plans: tuple[Ahead, Sharing] | None = None
        self.least: Callable[[Sequence[Job]], Job | None] = lambda running: None
        self._queue: deque[Job] = deque()
        self._numbers = 0
        self._entered = False
        self._told: WorkersState | None = None
        self._world: bytes = b""
        self.packer, self._unpacker = Packer(blobs), Unpacker(blobs)

    def enter(
        self,
        world: Packed,
        packer: Packer,
        unpacker: Unpacker,
        *,
        alike: Fingerprint | None,
        should_stop: Callable[[], bool],
    ) -> None:
        """Has every worker open a world, in the place of the one before, and waits until all have.

        Args:
            world: the world.
            packer: names what a worker has open.
            unpacker: reads what a worker answers.
            alike: what this machine is, whose bits all workers must have; None: those of the first one.
            should_stop: asked while they open it.

        Raises:
            MergingError: one of them cannot, or would give other bits.
            Stopped: the run was interrupted.
        """
        self._world, self.packer, self._unpacker = world.data, packer, unpacker
        packer.kept = frozenset(world.files)
        self._alike, self.plans, self._entered = alike, None, False
        self.supply, self.least = (lambda: None), (lambda running: None)
        self.drop([*self._queue, *(job for member in self.members for job in member.jobs.values())])
        opening = [(number, self._open(number)) for number in self.there]
        for number, job in opening:  # one that has no room to be, on a node that is gone, comes when it has
            self.wait(job, should_stop, until=partial(self._does_without, number))
        self._check_alive()
        for number in self.there:
            if why := self._unlike(self.members[number]):
                raise WorkersError(f"workers would give other bits: {why}; take machines that are alike")
        self._entered = True

    def ask(self, kind: Kind, value: Any, *, worker: int | None = None) -> Job:
        """Asks for something that somebody waits for: before all that might be of use.

        Args:
            kind: what it is.
            value: its words.
            worker: who is to make it, where he is there; None: anybody.
        """
        job = self.job(kind, value)
        job.wanted = worker
        self._queue.append(job)
        self._dispatch()
        return job

    def job(self, kind: Kind, value: Any, *, short: bool = True, on_part: Callable[[Any], None] | None = None) -> Job:
        """A request that nobody was given yet."""
        packed = self.packer.pack(value)
        self._forget(packed)
        return Job(kind=kind, packed=packed, short=short, on_part=on_part or (lambda part: None))

    def _forget(self, packed: Packed) -> None:
        """Forgets the oldest merges that are files, which are as large as models, but for those that are asked for."""
        large = [name for name, each in self.packer.definitions.items() if each.files]
        if len(large) <= KEPT:
            return
        jobs = [*self._queue, *(job for member in self.members for job in [*member.jobs.values(), *member.asks])]
        asked = {*packed.names, *(name for job in jobs for name in job.packed.names)}
        for name in [name for name in large if name not in asked][: len(large) - KEPT]:
            self.packer.forget(name)

    def hurry(self, job: Job) -> None:
        """Somebody waits for a request that was of possible use so far."""
        if job.worker is None and not job.done and job not in self._queue:
            self._queue.append(job)
            self._dispatch()

    def wait(self, job: Job, should_stop: Callable[[], bool], until: Callable[[], bool] = lambda: False) -> Any:
        """Waits for an answer.

        Args:
            job: what was asked.
            should_stop: asked several times a second; True gives the request up.
            until: ends the waiting earlier, with None.

        Raises:
            Stopped: the run was interrupted.
            MergingError: what went wrong with it.
        """
        while not job.done and not until():
            if should_stop():
                self.drop([job])
                raise Stopped(StopReason.INTERRUPTED)
            self.pump(0.1)
        if job.error is not None and job.done:
            raise job.error
        return job.answer

    def drop(self, jobs: Iterable[Job]) -> None:
        """Nobody waits for these any more; who is at work on one is told."""
        told: dict[int, list[int]] = {}
        for job in jobs:
            job.dropped = True
            if job in self._queue:
                self._queue.remove(job)
            if job.worker is not None:
                member = self.members[job.worker]
                told.setdefault(job.worker, []).extend(n for n, each in member.jobs.items() if each is job)
        for worker, numbers in told.items():
            self.backend.tell(worker, pickle.dumps(numbers))

    @property
    def idle(self) -> int:
        """Number of workers with nothing to do."""
        return sum(not member.jobs and member.facts is not None for member in self.members)

    @property
    def there(self) -> list[int]:
        """Numbers of the workers that have not been given up."""
        return [number for number, member in enumerate(self.members) if not member.gone]

    @property
    def count(self) -> int:
        """Number of workers that have not been given up."""
        return len(self.there)

    @property
    def state(self) -> WorkersState:
        """The workers as they are now."""
        there = [member for member in self.members if not member.gone]
        return WorkersState(
            workers=len(there),
            busy=sum(bool(member.jobs) for member in there),
            done=sum(member.made for member in self.members),
            lost=sum(member.lost for member in self.members),
        )

    @property
    def workers(self) -> tuple[WorkerFacts, ...]:
        """All workers that there were, those that were lost too."""
        now = [self._facts(number) for number, member in enumerate(self.members) if not member.gone]
        return tuple(sorted([*self._past, *now], key=lambda each: each.number))

    def _facts(self, number: int, lost: str = "") -> WorkerFacts:
        member, place = self.members[number], self.backend.place(number)
        known: Fingerprint | None = member.fingerprint
        if known is None:
            return WorkerFacts(number=number, place=place, answers=member.made, lost=lost)
        digest = blake3(repr(sorted(known.to_json().items() - {("host", known.host)})).encode()).hexdigest()[:16]
        return WorkerFacts(
            number=number,
            place=place,
            device=known.device,
            torch=known.torch,
            fingerprint=digest,
            answers=member.made - member.told,
            lost=lost,
        )

    def pump(self, timeout: float) -> None:
        """Takes what has come by now, or within the timeout, and gives idle workers something to do."""
        self._dispatch()
        for received in self.backend.receive(timeout):
            if received.message is None:
                self._lost(received.worker, received.reason)
            elif not received.last:
                self._take(received.worker, pickle.loads(received.message))
        self._dispatch()
        if (state := self.state) != self._told:
            self._told = state
            tell_workers(self.progress, state)

    def close(self) -> None:
        """Ends all workers at once."""
        self.backend.close()

    def _open(self, number: int, job: Job | None = None) -> Job:
        """Has a worker open the world once it is there; whoever waited for its first attempt waits for this one."""
        member = self.members[number]
        member.facts, member.starts = None, member.starts + 1
        member.knows.clear()
        member.opens = job or Job(kind=Kind.WORLD, packed=Packed(self._world))
        return member.opens

    def _does_without(self, number: int) -> bool:
        """Whether others are at work, and a worker has nowhere to be."""
        return not self.backend.ready(number) and any(member.facts is not None for member in self.members)

    def _unlike(self, member: _Member) -> str | None:
        """Why a worker would give other bits than all others; None where it would not."""
        self._alike = self._alike or member.fingerprint
        if self._alike is None or member.fingerprint is None:
            return None
        return differs(self._alike, member.fingerprint)

    def _dispatch(self) -> None:
        for number, member in enumerate(self.members):
            if member.opens is not None and not member.gone and self.backend.ready(number):
                self._send(number, member.opens)
                member.opens = None
            while member.facts is not None and len(member.jobs) < AT_ONCE:
                job = self._next(member)
                if job is None:
                    break
                self._send(number, job)
        if self._queue and all(member.jobs for member in self.members if member.facts is not None):
            self._make_room()

    def _next(self, member: _Member) -> Job | None:
        """What a worker is given next: behind something long it is nothing, and only short things wait."""
        if any(not job.short for job in member.jobs.values()):
            return None
        for job in self._queue:
            wanted = None if job.wanted is None else self.members[job.wanted]
            if (wanted in (None, member) or wanted.facts is None) and (job.short or not member.jobs):
                self._queue.remove(job)
                return job
        if member.jobs:
            return None
        return self.supply()

    def _make_room(self) -> None:
        """Has a worker leave something long that nobody waits for, where all are at such work and somebody waits."""
        running = [next(iter(member.jobs.values())) for member in self.members if member.jobs]
        if running and all(not job.short and not job.dropped and not job.killed for job in running):
            spare = self.least(running)
            if spare is not None:
                self.drop([spare])

    def _send(self, number: int, job: Job) -> None:
        member = self.members[number]
        forgets = tuple(name for name in member.knows if name not in self.packer.definitions)
        member.knows -= set(forgets)
        names = [name for name in job.packed.names if name not in member.knows]
        definitions = tuple((name, self.packer.definitions[name].data) for name in names)
        member.knows |= set(names)
        self._numbers += 1
        member.jobs[self._numbers] = job
        job.worker = number
        self.backend.send(number, pickle.dumps(Message(self._numbers, job.kind, job.packed.data, definitions, forgets)))

    def _take(self, number: int, answer: Answer) -> None:
        """Takes an answer, or a part of one."""
        member = self.members[number]
        job = member.jobs.get(answer.number)
        if job is None:
            return
        if job.dropped and answer.state in ("part", "done", "error"):  # of a world before this one, it may be
            if answer.state != "part":
                del member.jobs[answer.number]
                job.worker, job.done = None, True
            return
        if answer.state == "part":
            told, job.gave = self._read(answer), True
            member.made += len(told[0]) if job.kind is Kind.PIECE else 0
            job.on_part(told)
            return
        del member.jobs[answer.number]
        job.worker = None
        if answer.state == "lacking":
            self._bring(number, job, pickle.loads(answer.body))
            return
        if job.kind is Kind.FILES and answer.state == "done":
            self._go_on(number)
            return
        if answer.state == "error":
            job.error = self._read(answer)
        elif answer.state == "done":
            job.answer = self._read(answer)
            member.made += job.kind not in (Kind.WORLD, Kind.FILES, Kind.PIECE)
        if job.kind is Kind.WORLD and answer.state == "done":
            member.facts, member.fingerprint, member.starts = job.answer, job.answer["fingerprint"], 0
            if self._entered and (why := self._unlike(member)):  # a machine that came later
                self._give_up(number, f"warning: worker {number} would give other bits, and is left out: {why}")
        elif job.kind is Kind.WORLD and answer.state == "error" and self._entered:  # nobody waits for it any more
            self._give_up(number, f"warning: worker {number} cannot begin again, and is left out: {job.error}")
        job.done = answer.state != "dropped" or job.dropped

    def _bring(self, number: int, job: Job, lacking: Iterable[str]) -> None:
        """Sends a worker files that are not on its machine, and asks again; one machine gets them once."""
        member = self.members[number]
        member.asks.append(job)
        host = self.backend.place(number).partition(",")[0]
        if not any(each.brings is not None and each.host == host for each in self.members):
            member.brings, member.host = chunks(lacking, self.blobs), host
            self._go_on(number)

    def _go_on(self, number: int) -> None:
        """Sends the next part of a file; after the last one all of that machine who wait for files ask again."""
        member = self.members[number]
        try:
            part = None if member.brings is None else next(member.brings, None)
        except WorkersError as error:
            part = None
            for asked in member.asks:
                asked.error, asked.done = error, True
            member.asks.clear()
        if part is not None:
            self._send(number, Job(kind=Kind.FILES, packed=Packed(part)))
            return
        member.brings = None
        self._ask_again(member.host)

    def _ask_again(self, host: str) -> None:
        """Has those of a machine who wait for files ask again what they could not do without."""
        for other, each in enumerate(self.members):
            if each.asks and self.backend.place(other).partition(",")[0] == host:
                asked, each.asks = each.asks, []
                for job in asked:
                    self._send(other, job)

    def unpacked(self, data: bytes) -> Any:
        """A value that came within an answer."""
        return self._unpacker.unpack(data)

    def _read(self, answer: Answer) -> Any:
        for name, data in answer.definitions:
            self._unpacker.define(name, data)
        return self._unpacker.unpack(answer.body)

    def _lost(self, number: int, reason: str) -> None:
        """A worker is gone: what it was at is asked of another one, and it is started anew."""
        member = self.members[number]
        jobs, opened = list(member.jobs.values()), member.facts is not None
        jobs += [*member.asks, *([] if member.opens is None else [member.opens])]
        brought, host = member.brings is not None, member.host
        member.asks, member.brings, member.opens = [], None, None
        self._past.append(self._facts(number, reason or "lost"))
        member.jobs, member.facts, member.lost, member.told = {}, None, member.lost + 1, member.made
        member.knows.clear()
        place = self.backend.place(number)
        where = f"worker {number} ({place})"
        said = f": {reason}" if reason else ""
        for order, job in enumerate(jobs):
            job.worker = job.wanted = None
            if job.kind in (Kind.WORLD, Kind.FILES):
                continue
            job.tried += order == 0
            job.killed, job.gave = (1 if job.gave else job.killed + 1) if order == 0 else job.killed, False
            if job.dropped:
                job.done = True
            elif job.killed >= KILLED or job.tried >= MOST:
                job.error = KilledError(f"it has killed {plural(job.tried, 'worker')}, the last one {where}{said}")
                job.done = True
            else:
                self._queue.appendleft(job)
        if brought:  # who waits for the same files asks anew, and is brought them himself
            self._ask_again(host)
        if not opened and member.starts >= TRIES:
            others = "; the others go on" if self.count > 1 else ""
            for job in jobs:
                job.done = job.done or job.kind is Kind.WORLD
            self._give_up(number, f"warning: {where} cannot be started{said}{others}")
            return
        self.progress.say(lost_line(number, place, reason, self.count - 1))
        self.backend.restart(number)
        self._open(number, next((job for job in jobs if job.kind is Kind.WORLD), None))

    def _give_up(self, number: int, why: str) -> None:
        """Goes on without a worker.

        Raises:
            WorkersError: it was the last one.
        """
        self.members[number].facts, self.members[number].gone = None, True
        self.progress.say(why)
        self._check_alive()

    def _check_alive(self) -> None:
        if all(member.gone for member in self.members):
            raise WorkersError("no worker can be started; leave `workers` out, or look at what their machines say")
