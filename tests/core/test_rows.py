"""What a list says beside the log: `consumer.core.rows`."""

import pytest

from consumer.core.rows import ANEW_NS, Row, lay_beside
from consumer.model import OBSERVED, REPORTED, LastUpdate, Source
from consumer.rules import load
from tests.core.scene import snapshot

RULES = load(None)
AT = 1_000_000_000_000


def known(
    state: str, revision: int | None, *, version: int = 0, source: Source = OBSERVED, time_ns: int = AT
) -> LastUpdate:
    """The log's last update of the job."""
    return LastUpdate(
        number=7, sequence=2, state=state, version=version, revision=revision, source=source, time_ns=time_ns
    )


@pytest.mark.parametrize(
    ("state", "modified_ns", "since_ns", "said"),
    [
        ("Running", AT, AT, Row.DIFFERS),
        ("Failed", AT, 0, Row.DIFFERS),
        ("Failed", 0, 0, Row.DIFFERS),  # a time that cannot be read leaves nothing out of a log of all jobs
        ("Failed", AT, AT, Row.AGREES),
        ("Failed", AT + 1, AT, Row.DIFFERS),
    ],
)
def test_a_job_that_the_log_has_not(state: str, modified_ns: int, since_ns: int, said: str) -> None:
    """It is read, unless it was over when the log began."""
    assert lay_beside(RULES, None, snapshot(state, 2, modified_ns=modified_ns), since_ns) == said


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (known("Failed", 2), Row.AGREES),
        (known("Failed", 3), Row.AGREES),
        (known("Running", 2), Row.DIFFERS),
        (known("Failed", 2, version=1), Row.DIFFERS),
        (known("Failed", 2, source=REPORTED), Row.DIFFERS),
        (known("Failed", 1), Row.PERHAPS),
        (known("Failed", None), Row.PERHAPS),
        (known("Failed", 2, time_ns=AT - ANEW_NS), Row.AGREES),
        (known("Failed", 2, time_ns=AT - ANEW_NS - 1), Row.PERHAPS),
        (known("Failed", 2, time_ns=AT + ANEW_NS + 1), Row.PERHAPS),
        (known("Failed", 3, time_ns=1), Row.AGREES),  # of another write
        (known("Failed", 2, time_ns=0), Row.AGREES),  # nobody said when
    ],
)
def test_a_job_that_the_log_has(there: LastUpdate, said: str) -> None:
    """The list shows it Failed in version 0 at revision 2."""
    assert lay_beside(RULES, there, snapshot("Failed", 2, modified_ns=AT), AT) == said


def test_what_has_not_ended_may_have_any_time() -> None:
    """Of a job that goes on a frame may have told, by another clock."""
    assert lay_beside(RULES, known("Running", 2), snapshot("Running", 2, modified_ns=9 * AT), AT) == Row.AGREES
