"""Tasks shared among workers elsewhere, processes (`devices`) or actors on a cluster (`ray_actors`): one accounting.

A worker has at most `IN_HAND` tasks, so that it reads and writes while its network works, as a single process does. A
worker that dies is replaced. Each task that it had is tried once more, as the only one of a worker, so that only a task
that ends two workers is reported.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeAlias, TypeVar

from sr_cli.errors import INTERNAL_ERROR, OutOfMemory, SrupError, UsageError
from sr_cli.upscale.events import ImageResult
from sr_cli.upscale.inputs import Task
from sr_cli.upscale.news import Fatal, News, Ready, Told
from sr_cli.upscale.tally import Tally

IN_HAND = 6
"""Tasks that a worker has at once: one in the network, some that are read ahead, some that are being written."""
ATTEMPTS = 2  #: Workers that may die with a task before it is reported as failed.


def check_shareable(tasks: Iterable[Task], option: str) -> None:
    """Raise UsageError, which names `option`, where a task needs the streams of this process."""
    if any(task.source is None or task.target is None for task in tasks):
        raise UsageError(f"{option}: standard input and output belong to one process; leave {option} out")


@dataclass(frozen=True)
class Died:
    """A worker has ended by itself."""

    how: str  #: `was ended by SIGKILL`.
    for_memory: bool  #: Whether a lack of memory may be the reason.


Said: TypeAlias = Ready | News | Died


class Member(Protocol):
    """A worker, as this process sees it."""

    label: str  #: What it is called in messages: `a worker on cpu`.

    def give(self, index: int, task: Task) -> None:
        """Send it a task; where it is dead, `Died` comes from it."""

    def replacement(self) -> Self:
        """Start another one like it."""


M = TypeVar("M", bound=Member)


class Team(Generic[M]):
    """Workers that share tasks."""

    def __init__(
        self,
        tasks: Sequence[Task],
        tally: Tally,
        listen: Callable[[Sequence[M]], Iterable[tuple[M, Said]]],
    ) -> None:
        """`listen` waits until some members have said something, and returns that."""
        self._tasks, self._tally, self._listen = tasks, tally, listen
        self.members: list[M] = []  #: Workers that are alive.
        self._ready: set[M] = set()
        self._in_hand: dict[M, set[int]] = {}
        self._waiting = deque(range(len(tasks)))
        self._suspects: deque[int] = deque()  #: Tasks of workers that died, to be tried once more.
        self._deaths: dict[int, int] = {}

    def add(self, member: M) -> None:
        """Add a worker that has been started."""
        self.members.append(member)
        self._in_hand[member] = set()

    def work(self) -> None:
        """Do all tasks. Raises SrupError where no worker is left, and what a worker says of the whole job."""
        while len(self._tally.results) < len(self._tasks):
            if not self.members:
                raise SrupError("no worker could be started; fewer of them may leave enough memory")
            for member, said in self._listen(self.members):
                self._take_in(member, said)
            for member in self.members:
                self._hand_out(member)

    def finish(self) -> None:
        """Take in what is said until all are dead; they have been told to end."""
        while self.members:
            for member, said in self._listen(self.members):
                if isinstance(said, Died):
                    self.members = [other for other in self.members if other is not member]
                elif not isinstance(said, Fatal):
                    self._take_in(member, said)

    def _take_in(self, member: M, said: Said) -> None:
        if isinstance(said, Died):
            self._lose(member, said)
        elif isinstance(said, Ready):
            self._ready.add(member)
        else:
            said.tell(self._tally)
            if isinstance(said, Told) and said.method == "finished":
                self._in_hand[member].discard(said.arguments[0])

    def _hand_out(self, member: M) -> None:
        """Give a worker what it has room for; a suspect only alone."""
        in_hand = self._in_hand[member]
        if member not in self._ready:
            return
        if self._suspects and not in_hand:
            self._give(member, self._suspects.popleft())
        if in_hand & self._deaths.keys():
            return
        while self._waiting and len(in_hand) < IN_HAND:
            self._give(member, self._waiting.popleft())

    def _give(self, member: M, index: int) -> None:
        self._in_hand[member].add(index)
        member.give(index, self._tasks[index])

    def _lose(self, member: M, died: Died) -> None:
        """Replace a worker that died; its tasks are tried once more, or reported."""
        self.members.remove(member)
        if member not in self._ready:
            self._tally.message("note", f"{member.label} {died.how} while it started; it is skipped")
            return
        for index in sorted(self._in_hand.pop(member)):
            self._deaths[index] = self._deaths.get(index, 0) + 1
            if self._deaths[index] < ATTEMPTS:
                self._suspects.append(index)
            else:
                self._tally.finished(index, _failed(self._tasks[index], member, died))
        self._tally.message("detail", f"{member.label} {died.how}; it is replaced")
        if self._waiting or self._suspects:
            self.add(member.replacement())


def _failed(task: Task, member: Member, died: Died) -> ImageResult:
    hint = ", perhaps for want of memory" if died.for_memory else ""
    error = f"{task.shown_source}: {member.label} {died.how} {ATTEMPTS} times while it worked on it{hint}"
    code = OutOfMemory.exit_code if died.for_memory else INTERNAL_ERROR
    return task.failed(error, code)
