"""What every log must do, the real server's and the simulated one: compare-and-set by filter, roll-up, read-back.

A subclass gives the fixture `case`; each test has a log of its own. Facts of design/nats.md 1.1, 1.4 and 1.5.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from consumer.core.appends import Answer, Append, Busy, Entry, Read, ReadBack, Refused, Stored
from consumer.model import JobKey, RejectedReason
from consumer.ports import Log
from consumer.wire.subjects import Names, job_key
from tests.waiting import DEADLINE_S

KEY = job_key("default", "j-1")
OTHER = job_key("default", "j-2")


class Case(NamedTuple):
    """A log, and two ways around it: what a stream ("log", "refused") holds under a filter, and forgetting it."""

    log: Log
    names: Names
    stored: Callable[[str, str], Awaitable[list[Entry]]]
    purge: Callable[[str], Awaitable[None]]


async def carry(log: Log, *asks: Append | ReadBack) -> list[Answer]:
    """Send *asks* at once; their answers, in the order of the asks."""
    found: dict[int, Answer] = {}
    await log.send(asks)
    async with asyncio.timeout(DEADLINE_S):
        while len(found) < len(asks):
            for token, answer in await log.answers():
                assert token not in found, "one ask, one answer"
                found[token] = answer
    return [found[ask.token] for ask in asks]


class LogSuite:
    """The facts. `update` makes the append of a job's next update."""

    _token = 0

    def update(
        self, case: Case, state: str, expected: int, *, key: JobKey = KEY, body: bytes = b"", source: str = ""
    ) -> Append:
        """An update of *key* that follows entry *expected*."""
        self._token += 1
        return Append(
            token=self._token,
            subject=case.names.state(key, state),
            filter=case.names.states(key),
            expected=expected,
            body=body or state.encode(),
            input=source,
        )

    def back(self, case: Case, *, whole: bool = False, key: JobKey = KEY) -> ReadBack:
        """A read-back of *key*."""
        self._token += 1
        return ReadBack(token=self._token, filter=case.names.states(key), whole=whole)

    async def store(self, case: Case, states: Sequence[str], key: JobKey = KEY) -> list[int]:
        """Store *states* one after the other; their numbers."""
        numbers = [0]
        for state in states:
            (answer,) = await carry(case.log, self.update(case, state, numbers[-1], key=key))
            assert isinstance(answer, Stored)
            numbers.append(answer.number)
        return numbers[1:]

    async def test_a_new_job_expects_nothing_and_each_update_the_one_before(self, case: Case) -> None:
        """0 is none; then the number that the log gave. Numbers rise."""
        numbers = await self.store(case, ["Pending", "Running", "Completed"])
        assert 0 < numbers[0] < numbers[1] < numbers[2]
        stored = await case.stored("log", case.names.states(KEY))
        assert [(entry.number, entry.body) for entry in stored] == list(
            zip(numbers, [b"Pending", b"Running", b"Completed"], strict=True)
        )

    async def test_what_expects_an_older_entry_is_refused_by_the_number_found(self, case: Case) -> None:
        """Over all states of the job, not over its own subject alone; nothing is stored."""
        first, second = await self.store(case, ["Pending", "Running"])
        for expected in (0, first, second + 1):
            (answer,) = await carry(case.log, self.update(case, "Failed", expected))
            assert answer == Refused(second)
        assert len(await case.stored("log", case.names.states(KEY))) == 2

    async def test_jobs_do_not_disturb_each_other(self, case: Case) -> None:
        """Another job's entry between two of ours changes nothing."""
        (first,) = await self.store(case, ["Pending"])
        await self.store(case, ["Pending", "Running"], OTHER)
        (answer,) = await carry(case.log, self.update(case, "Running", first))
        assert isinstance(answer, Stored)
        (answer,) = await carry(case.log, self.update(case, "Running", first, key=OTHER))
        assert isinstance(answer, Refused)

    async def test_of_two_that_follow_the_same_entry_one_is_stored(self, case: Case) -> None:
        """In flight together: one is stored, the other refused or told that one is in flight."""
        (first,) = await self.store(case, ["Pending"])
        answers = await carry(
            case.log, *(self.update(case, state, first) for state in ("Running", "Failed", "Stopped"))
        )
        assert sum(isinstance(answer, Stored) for answer in answers) == 1
        assert sum(isinstance(answer, Refused | Busy) for answer in answers) == 2
        assert len(await case.stored("log", case.names.states(KEY))) == 2

    async def test_the_same_again_is_refused_by_its_own_number(self, case: Case) -> None:
        """A repeat after a lost answer stores nothing a second time, however late it comes."""
        ask = self.update(case, "Pending", 0)
        (answer,) = await carry(case.log, ask)
        assert isinstance(answer, Stored)
        assert await carry(case.log, ask) == [Refused(answer.number)]

    async def test_a_thousand_jobs_in_flight_are_all_stored(self, case: Case) -> None:
        """Each by its own filter, each answered once."""
        keys = [job_key("many", f"j-{number}") for number in range(1000)]
        answers = await carry(case.log, *(self.update(case, "Pending", 0, key=key) for key in keys))
        numbers = {answer.number for answer in answers if isinstance(answer, Stored)}
        assert len(numbers) == 1000
        assert len(await case.stored("log", f"{case.names.state_prefix}many.*.*")) == 1000

    async def test_a_read_back_finds_the_last_entry_as_it_was_sent(self, case: Case) -> None:
        """Number, subject, body, `Jobstate-Input`, and the entry that it was stored after."""
        (first,) = await self.store(case, ["Pending"])
        ask = self.update(case, "Running", first, body=b'{"x":1}\n\xff', source="7@1764030000123456789")
        (answer,) = await carry(case.log, ask)
        assert isinstance(answer, Stored)
        (read,) = await carry(case.log, self.back(case))
        assert isinstance(read, Read)
        (entry,) = read.entries
        assert (entry.number, entry.subject, entry.body, entry.input, entry.expected, entry.filter) == (
            answer.number,
            ask.subject,
            ask.body,
            ask.input,
            first,
            ask.filter,
        )

    async def test_a_whole_read_back_finds_all_in_order(self, case: Case) -> None:
        """Also two of one state, and none of another job."""
        states = ["Pending", "Running", "Queued", "Running", "Completed"]
        numbers = await self.store(case, states)
        await self.store(case, ["Pending"], OTHER)
        (read,) = await carry(case.log, self.back(case, whole=True))
        assert isinstance(read, Read)
        assert [entry.number for entry in read.entries] == numbers
        assert [entry.body.decode() for entry in read.entries] == states
        assert [entry.expected for entry in read.entries] == [0, *numbers[:-1]]

    async def test_a_read_back_of_nothing_finds_nothing(self, case: Case) -> None:
        """No entry is an answer, not an error."""
        assert await carry(case.log, self.back(case), self.back(case, whole=True)) == [Read(()), Read(())]

    async def test_a_roll_up_leaves_one_entry_and_moves_on(self, case: Case) -> None:
        """The checkpoint: each replaces the one that it names, and only that."""
        subject = case.names.checkpoint("0")
        number = 0
        for body in (b"1", b"2", b"3"):
            self._token += 1
            ask = Append(token=self._token, subject=subject, filter=subject, expected=number, body=body, rollup=True)
            (answer,) = await carry(case.log, ask)
            assert isinstance(answer, Stored)
            assert answer.number > number
            number = answer.number
        stale = Append(token=99, subject=subject, filter=subject, expected=number - 1, body=b"old", rollup=True)
        assert await carry(case.log, stale) == [Refused(number)]
        assert [entry.body for entry in await case.stored("log", subject)] == [b"3"]

    async def test_what_is_refused_is_kept_once_whatever_the_reason(self, case: Case) -> None:
        """In a stream of its own, by a filter over all reasons."""
        names = case.names

        def rejected(token: int, reason: RejectedReason) -> Append:
            return Append(
                token=token,
                subject=names.quarantine(reason, KEY, "3-4"),
                filter=names.quarantine("*", KEY, "3-4"),
                expected=0,
                body=reason.encode(),
                stream="refused",
            )

        await self.store(case, ["Pending"])
        (first,) = await carry(case.log, rejected(90, "after-terminal"))
        assert isinstance(first, Stored)
        assert await carry(case.log, rejected(91, "authority")) == [Refused(first.number)]
        stored = await case.stored("refused", names.quarantine("*", KEY, "*"))
        assert [entry.body for entry in stored] == [b"after-terminal"]

    async def test_what_was_forgotten_is_expected_to_be_nothing(self, case: Case) -> None:
        """After a purge 0 is right and the old number wrong; new numbers go on above the old ones."""
        (number,) = await self.store(case, ["Pending"])
        await case.purge(case.names.states(KEY))
        assert await carry(case.log, self.update(case, "Running", number)) == [Refused(0)]
        (again,) = await self.store(case, ["Running"])
        assert again > number
