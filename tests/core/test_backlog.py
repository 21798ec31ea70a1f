"""What lists spare: reads of jobs that they show unchanged, and of ends that a busy orchestrator is late to record."""

import pytest

from consumer.core import ReadHistory, ReadingOptions, ReadJob, ReadJobs
from consumer.core.backlog import SAMPLE, Backlog
from consumer.model import FrameKind
from tests.core.scene import Scene, history, message, page, snapshot

JOBS = 40


def busy_scene() -> Scene:
    """Forty jobs run; the first list has shown them."""
    scene = Scene(ReadingOptions())
    rows = [snapshot("Running", 2, job=f"j-{number}", modified_ns=number + 1) for number in range(JOBS)]
    for number in range(JOBS):
        scene.has("Running", 2, job=f"j-{number}")
    scene.answer(scene.read_list(0.0), page(*rows), 0.01)
    return scene


def play(scene: Scene, since: float, until: float, ended_at: float = float("inf")) -> list[float]:
    """Answer all that is asked; the record has the ends from *ended_at* on. Gives when each job was read."""
    reads = []
    for step in range(int(since * 200), int(until * 200)):
        now = step / 200
        for read in scene.reads(now):
            if isinstance(read, ReadJobs):
                ended = [snapshot("Completed", 3, job=f"j-{n}", modified_ns=1000 + n) for n in reversed(range(JOBS))]
                running = [snapshot("Running", 2, job=f"j-{n}", modified_ns=1 + n) for n in reversed(range(JOBS))]
                rows = ended if now >= ended_at else running
                shown = rows[: read.limit]
                scene.answer(read, page(*shown, more="more" if len(shown) < JOBS else ""), now + 0.001)
                continue
            assert isinstance(read, ReadHistory | ReadJob)
            reads.append(now)
            states = ("Pending", "Running", "Completed") if now >= ended_at else ("Pending", "Running")
            scene.answer(read, history(*states), now + 0.001)
        scene.published()
    return reads


def test_a_list_without_a_job_stands_for_a_read_of_it() -> None:
    """It shows what has changed, so the others have not; each is read now and then all the same."""
    scene = busy_scene()
    play(scene, 0.0, 3.0)
    reads = play(scene, 3.0, 33.0)
    # Ten stand on each page. Of the others each is read two to four times; by their turns it would be 23 times.
    assert (JOBS - 10) * 2 <= len(reads) <= (JOBS - 10) * 4


def test_a_change_that_a_list_has_shown_is_read_all_the_same() -> None:
    """The next list does not show it again, and that says nothing while the job was not read since."""
    scene = busy_scene()
    play(scene, 0.0, 3.0, ended_at=2.0)
    assert {known.state for known in scene.log.values()} == {"Completed"}


def test_ends_that_the_record_follows_late_are_left_to_lists() -> None:
    """After some that were not there in 0.1 s one in eight is looked for at once; all are found with a list."""
    scene = busy_scene()
    play(scene, 0.0, 3.0)
    for number in range(JOBS):
        scene.readers.frame(message(FrameKind.RUN_RESULT, f"e-{number}", job=f"j-{number}"), 3.0 + number * 0.05)
        late = play(scene, 3.0 + number * 0.05, 3.05 + number * 0.05)
        if number == JOBS - 1:
            assert len(late) <= 2
    play(scene, 5.0, 7.0, ended_at=5.5)
    assert {known.state for known in scene.log.values()} == {"Completed"}


@pytest.mark.parametrize(("prompt", "waits"), [(True, 0), (False, 21)])
def test_one_end_in_eight_is_looked_for_while_the_record_is_behind(*, prompt: bool, waits: int) -> None:
    """And one that is there promptly, again and again, ends it."""
    backlog = Backlog()
    for _ in range(4 * SAMPLE):
        backlog.saw(prompt=prompt)
    assert sum(backlog.can_wait() for _ in range(3 * SAMPLE)) == waits
    for _ in range(4):
        backlog.saw(prompt=True)
    assert not backlog.can_wait()
