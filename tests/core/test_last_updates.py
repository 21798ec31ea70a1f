"""What is known of the log: which number a job's next entry follows."""

from typing import Final

from consumer.core.last_updates import LastUpdates
from consumer.core.verify import NOTHING, VerifiedJob
from consumer.wire.subjects import job_key

KEY: Final = job_key("default", "j-1")


def test_a_job_that_was_forgotten_follows_no_stranger_any_more() -> None:
    """Of foreign entries only the number counts, and only while they are there: else it is refused for ever."""
    jobs = LastUpdates()
    jobs.adopt(KEY, VerifiedJob(known=None, number=9, foreign=(9,)))
    assert jobs.expected(KEY) == 9
    jobs.adopt(KEY, NOTHING)
    assert jobs.expected(KEY) == 0
