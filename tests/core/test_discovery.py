"""How soon a job is found that no frame names, beside an orchestrator whose lists cost what real ones do.

In virtual time, with the real readers. The costs are those of 1.9.3 (design/bacalhau.md 6.3): a list takes some 40 us
for each job that is stored, and decodes every stored specification, whatever the page; what is sent is encoded besides.
"""

import random
from collections.abc import Callable
from typing import Final

import pytest

from consumer.core import OrchestratorRead, ReadHistory, ReadingOptions, ReadJob
from consumer.model import HistoryPage, JobDocument, JobPage, Snapshot
from tests.core.scene import Scene, document, history, snapshot

JOB_S: Final = 40e-6
STORED_BYTE_S: Final = 33e-9
SENT_BYTE_S: Final = 17e-9
READ_S: Final = 0.001
SMALL, LARGE = 1_500, 600_000
"""Bytes of a recorded specification, and of one with a large inline input."""


class Orchestrator:
    """Finished jobs, the newest first. *slower*: by what each list takes longer than it costs, as load makes it."""

    def __init__(self, slower: Callable[[], float]) -> None:
        self._slower: Final = slower
        self._jobs: Final[list[tuple[Snapshot, int]]] = []
        self.lists = 0
        self.sent = 0
        self.busy_s = 0.0

    def store(self, name: str, size: int, now: float) -> None:
        """A job that no node matches: it fails at once, and no frame tells of it."""
        shown = snapshot("Failed", 2, job=name, modified_ns=int(now * 1e9) + 1)
        self._jobs.insert(0, (shown, size))

    def answer(self, read: OrchestratorRead) -> tuple[HistoryPage | JobDocument | JobPage, float]:
        """The answer, and how long it takes."""
        if isinstance(read, ReadHistory):
            return history("Pending", "Failed"), READ_S
        if isinstance(read, ReadJob):
            shown = next(shown for shown, _ in self._jobs if shown.job.id == read.job)
            return document(shown, "Pending", "Failed"), READ_S
        offset = int(read.next_token or 0)
        rows = self._jobs[offset : offset + read.limit]
        behind = offset + read.limit
        page = JobPage(
            jobs=tuple(shown for shown, _ in rows), next_token=str(behind) if behind < len(self._jobs) else ""
        )
        sent = sum(size for _, size in rows)
        cost_s = JOB_S * len(self._jobs) + STORED_BYTE_S * sum(size for _, size in self._jobs) + SENT_BYTE_S * sent
        took_s = cost_s * self._slower()
        self.lists, self.sent, self.busy_s = self.lists + 1, self.sent + sent, self.busy_s + took_s
        return page, took_s


class Discovery:
    """Readers beside that orchestrator, from its start on."""

    def __init__(self, slower: Callable[[], float] = lambda: 1.0, settings: ReadingOptions | None = None) -> None:
        self.orchestrator: Final = Orchestrator(slower)
        self.scene: Final = Scene(settings or ReadingOptions())
        self.now = 0.0
        self._under_way: list[tuple[float, OrchestratorRead, HistoryPage | JobDocument | JobPage]] = []
        self._stored: dict[str, float] = {}
        self.found_s: Final[dict[str, float]] = {}
        """How long each job was in the record before its end was in the log."""

    def store(self, name: str, size: int = SMALL) -> None:
        """A job that no frame names is stored now."""
        self.orchestrator.store(name, size, self.now)
        self._stored[name] = self.now

    def run(self, until: float) -> None:
        """Let time pass."""
        while True:
            for read in self.scene.reads(self.now):
                answer, took_s = self.orchestrator.answer(read)
                self._under_way.append((self.now + took_s, read, answer))
            due = [self.scene.readers.wake_at(), *(back for back, *_ in self._under_way)]
            now = min((time for time in due if time is not None), default=until)
            if now >= until:
                self.now = until
                return
            self.now = max(self.now, now)
            for one in [one for one in self._under_way if one[0] <= self.now]:
                self._under_way.remove(one)
                _, read, answer = one
                self.scene.readers.answered(read, answer, self.now)
            self._note()

    def _note(self) -> None:
        self.scene.published()
        for name in [name for name in self._stored if f"default.{name}" in self.scene.log]:
            self.found_s[name] = self.now - self._stored.pop(name)

    def submit_some(self, count: int, dice: random.Random) -> list[float]:
        """One small job after the other, some seconds apart; gives how long each took to be found, in order."""
        names = [f"new-{number}" for number in range(count)]
        for name in names:
            self.store(name)
            self.run(self.now + dice.uniform(5.0, 15.0))
        self.run(self.now + 600.0)
        return sorted(self.found_s[name] for name in names)

    def find(self, large: int) -> list[float]:
        """With 20 small jobs stored, and *large* ones after them: how long each of 60 new ones takes to be found."""
        for number in range(20):
            self.store(f"small-{number}")
        self.run(5.0)
        for number in range(large):
            self.store(f"large-{number}", LARGE)
            self.run(self.now + 0.2)
        return self.submit_some(60, random.Random(1))


def percentile(found_s: list[float], share: int) -> float:
    """Of seconds in order."""
    return found_s[min(len(found_s) * share // 100, len(found_s) - 1)]


@pytest.mark.parametrize(("large", "most_s"), [(0, 2.0), (10, 8.0)])
def test_a_job_without_a_frame_is_found_soon(large: int, most_s: float) -> None:
    """With small specifications within 2 s, with ten large ones within 8 s: and lists take a twentieth of the time."""
    scene = Discovery()
    assert scene.find(large)[-1] <= most_s
    assert scene.orchestrator.busy_s <= 0.05 * scene.now


@pytest.mark.parametrize(("large", "most_s"), [(0, 2.0), (10, 8.0)])
def test_lists_that_have_to_wait_for_once_hide_nothing_for_long(large: int, most_s: float) -> None:
    """One list in ten takes five times as long, as while a burst keeps the machine busy. That was 31 s."""
    dice = random.Random(1)
    scene = Discovery(lambda: 5.0 if dice.random() < 0.1 else 1.0)
    assert scene.find(large)[-1] <= most_s


def test_on_a_busy_machine_lists_stay_at_what_they_cost() -> None:
    """Each list takes up to four times as long as it costs: nine of ten jobs are found within 8 s, which were 17 s."""
    dice = random.Random(1)
    scene = Discovery(lambda: dice.uniform(1.0, 4.0))
    found_s = scene.find(10)
    assert percentile(found_s, 90) <= 8.0
    assert scene.orchestrator.busy_s <= 0.1 * scene.now


def test_more_of_them_than_a_page_has_are_found_as_soon() -> None:
    """Fifty jobs without a frame at once, beside ten large ones: the larger page does not wait for a second pause."""
    scene = Discovery()
    scene.find(10)
    for number in range(50):
        scene.store(f"burst-{number}")
    scene.run(scene.now + 60.0)
    assert max(scene.found_s[f"burst-{number}"] for number in range(50)) <= 8.0
    scene.run(scene.now + 600.0)
    assert scene.orchestrator.busy_s <= 0.05 * scene.now


def test_little_is_sent_where_little_has_changed() -> None:
    """Ten large jobs among the newest are sent while they are that; once small ones came after them, no more."""
    scene = Discovery()
    scene.find(10)
    before, since = scene.orchestrator.sent, scene.now
    scene.run(scene.now + 600.0)
    assert (scene.orchestrator.sent - before) / (scene.now - since) < 20_000


@pytest.mark.parametrize("large", [0, 10, 30])
def test_how_soon_is_told(large: int) -> None:
    """What the metric says at any moment holds for what is stored then; it is no more than twice what is needed."""
    scene = Discovery()
    scene.find(large)
    told: list[float] = []
    for number in range(50):
        told.append(scene.scene.readers.found_within_s(scene.now))
        scene.store(f"later-{number}")
        scene.run(scene.now + 40.3)
        assert scene.found_s[f"later-{number}"] <= told[-1] + 0.1
    assert max(told) <= 2 * max(scene.found_s[f"later-{number}"] for number in range(50))
