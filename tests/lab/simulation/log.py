"""A model of the log's two streams: what a JetStream server stores, refuses, forgets; what an old leader answers.

It keeps the compare-and-set by filter, roll-up and purge (design/nats.md 1.1, 1.5), and can answer as it was before.
Which answer is lost, late or stale is `tests.lab.simulation.world`'s to choose.
"""

import asyncio
from collections.abc import Sequence

from consumer.core.appends import APPEND_STREAMS, Answer, Append, AppendStream, Entry, Read, ReadBack, Refused, Stored


class Kept:
    """One stored entry, and between which changes of the streams it was there."""

    __slots__ = ("born", "entry", "gone")

    def __init__(self, entry: Entry, born: int) -> None:
        self.entry = entry
        self.born = born
        self.gone: int | None = None

    def there(self, version: int) -> bool:
        """Whether a read of the streams as they were at *version* finds it."""
        return self.born <= version and (self.gone is None or self.gone > version)


def matches(pattern: str, subject: str) -> bool:
    """Whether *subject* is under *pattern*: `*` stands for one token, nothing else is special here."""
    if "*" not in pattern:
        return pattern == subject
    ours, theirs = pattern.split("."), subject.split(".")
    return len(ours) == len(theirs) and all(one in ("*", other) for one, other in zip(ours, theirs, strict=True))


class SimulatedLog:
    """Both streams. `version` counts their changes; each stream counts its entries from 1 and never goes back."""

    def __init__(self) -> None:
        self.version = 0
        self.kept: list[Kept] = []
        self._counts = dict.fromkeys(APPEND_STREAMS, 0)
        # Every filter that was ever asked about, with what was ever under it, in stream order.
        self._under: dict[str, list[Kept]] = {}
        self._filters_of: dict[str, list[list[Kept]]] = {}

    def append(self, ask: Append, time_ns: int = 0) -> Stored | Refused:
        """Store what *ask* says after the entry that it names, or refuse it with the number that was found (10071)."""
        found = self.last(ask.filter)
        if not self.follows(found, ask.expected):
            return Refused(found)
        return Stored(
            self.put(
                ask.stream,
                ask.subject,
                ask.body,
                ask.input,
                time_ns,
                expected=ask.expected,
                pattern=ask.filter,
                rollup=ask.rollup,
            )
        )

    def follows(self, found: int, expected: int) -> bool:
        """The compare-and-set."""
        return found == expected

    def put(
        self,
        stream: AppendStream,
        subject: str,
        body: bytes,
        header: str,
        time_ns: int,
        *,
        expected: int | None = None,
        pattern: str = "",
        rollup: bool = False,
    ) -> int:
        """Store without any condition, as a stranger may, with the headers *expected* and *pattern*. Its number."""
        self.version += 1
        self._counts[stream] += 1
        number = self._counts[stream]
        if rollup:
            self._end(self._list_of(subject))
        kept = Kept(
            Entry(
                number=number,
                subject=subject,
                body=body,
                input=header,
                time_ns=time_ns,
                expected=expected,
                filter=pattern,
            ),
            self.version,
        )
        self.kept.append(kept)
        lists = self._filters_of.get(subject)
        if lists is None:
            lists = self._filters_of[subject] = [found for one, found in self._under.items() if matches(one, subject)]
        for one in lists:
            one.append(kept)
        return number

    def purge(self, pattern: str) -> None:
        """Forget what is under *pattern*; the count goes on, so the next one expected is 0 again."""
        self.version += 1
        self._end(self._list_of(pattern))

    def remove(self, entry: Entry) -> None:
        """Forget one entry of the log, as an operator may."""
        self.version += 1
        self._end([kept for kept in self.kept if kept.entry is entry])

    def last(self, pattern: str) -> int:
        """The number of the last entry under *pattern*, 0 if there is none."""
        for kept in reversed(self._list_of(pattern)):
            if kept.gone is None:
                return kept.entry.number
        return 0

    def view(self, pattern: str, version: int | None = None) -> list[Entry]:
        """What is under *pattern*, oldest first, as it was at *version*."""
        at = self.version if version is None else version
        return [kept.entry for kept in self._list_of(pattern) if kept.there(at)]

    def read(self, ask: ReadBack, version: int | None = None) -> Read:
        """Answer a read-back as a leader would who knows the streams up to *version*."""
        found = self.view(ask.filter, version)
        return Read(tuple(found if ask.whole else found[-1:]))

    def last_per_subject(self, prefix: str, version: int) -> list[Entry]:
        """The last entry of each subject that begins with *prefix*, in stream order, as it was at *version*."""
        last: dict[str, Entry] = {}
        for kept in self.kept:
            if kept.entry.subject.startswith(prefix) and kept.there(version):
                last.pop(kept.entry.subject, None)
                last[kept.entry.subject] = kept.entry
        return list(last.values())

    def _end(self, found: list[Kept]) -> None:
        for kept in found:
            if kept.gone is None:
                kept.gone = self.version

    def _list_of(self, pattern: str) -> list[Kept]:
        found = self._under.get(pattern)
        if found is None:
            found = [kept for kept in self.kept if matches(pattern, kept.entry.subject)]
            self._under[pattern] = found
            for subject, lists in self._filters_of.items():
                if matches(pattern, subject):
                    lists.append(found)
        return found


class SimulatedLogPort:
    """`consumer.ports.Log` over a `SimulatedLog`: what the suite of the port holds beside the real server."""

    def __init__(self, log: SimulatedLog) -> None:
        self._log = log
        self._answers: list[tuple[int, Answer]] = []
        self._some = asyncio.Event()

    async def send(self, asks: Sequence[Append | ReadBack]) -> None:
        """Carry them out at once."""
        for ask in asks:
            answer: Answer = self._log.append(ask) if isinstance(ask, Append) else self._log.read(ask)
            self._answers.append((ask.token, answer))
        if self._answers:
            self._some.set()

    async def answers(self) -> list[tuple[int, Answer]]:
        """Wait for an answer, then all there are."""
        await self._some.wait()
        self._some.clear()
        answers, self._answers = self._answers, []
        return answers
