"""Short forms of `make torture` (`python -m tests.lab.torture`): a few kills and pauses at random moments."""

from pathlib import Path
from typing import Final

import msgspec
import pytest

from consumer.core.appends import Entry
from consumer.model import Job, Update
from tests.lab.torture import (
    NAMES,
    DemoPlan,
    Outcome,
    ReportPlan,
    compare_logs,
    fold_one_by_one,
    torture_demos,
    torture_reports,
)

PLAYED: Final = ("ops", "rerun", "queued_then_runs")


async def _demos(folder: Path, faults: dict[str, int], daemons: int = 1) -> Outcome:
    plan = DemoPlan(scenario="short", faults=faults, rounds=1, played=PLAYED, daemons=daemons)
    return await torture_demos(plan, 1, folder, print)


@pytest.mark.server
async def test_killed_daemons_leave_the_log_of_an_undisturbed_one(tmp_path: Path) -> None:
    """kill -9 of the daemon, and of the server under it: per job the same updates, nothing missing, nothing doubled."""
    outcome = await _demos(tmp_path, {"daemon": 3, "server": 1})
    assert not outcome.wrong
    assert outcome.numbers["updates"] == 36


@pytest.mark.server
async def test_two_daemons_leave_the_log_of_one(tmp_path: Path) -> None:
    """Both write one log, stopped and woken at random: the same log."""
    outcome = await _demos(tmp_path, {"pause": 3}, daemons=2)
    assert not outcome.wrong
    assert outcome.numbers["updates"] == 36


@pytest.mark.server
async def test_reports_come_to_their_sequential_fold_whatever_is_killed(tmp_path: Path) -> None:
    """Two daemons, kills of them and of the server, pauses: log, refused stream and bucket are the reference's."""
    plan = ReportPlan(faults={"daemon": 2, "server": 1, "pause": 2, "start": 1}, reports=4000, jobs=300, seconds=5)
    outcome = await torture_reports(plan, 1, tmp_path, print)
    assert not outcome.wrong
    assert outcome.numbers["updates"] > 1000
    assert outcome.numbers["refused"] > 500


# -- the judges see what is wrong ----------------------------------------------------------------------------------


def _update(sequence: int, state: str, message: str = "") -> Update:
    job = Job(ID="j-1", Namespace="default", Version=1, Revision=sequence)
    return Update(
        StateType=state, Message=message, Job=job, Previous=None, Sequence=sequence, Time=None, Source="observed"
    )


LOG: Final = [_update(1, "Pending"), _update(2, "Running"), _update(3, "Completed")]


@pytest.mark.parametrize(
    "other",
    [
        LOG[:2],
        [*LOG, LOG[-1]],
        [LOG[0], LOG[2], LOG[1]],
        [*LOG[:2], _update(3, "Failed")],
        [*LOG[:2], _update(3, "Completed", "another message")],
        [*LOG, msgspec.structs.replace(LOG[0], Job=Job(ID="j-2", Namespace="default"))],
    ],
    ids=["missing", "doubled", "misordered", "other-state", "other-message", "other-job"],
)
def test_a_log_that_differs_is_seen(other: list[Update]) -> None:
    """One update less, one twice, two exchanged, another state, message or job: each is told."""
    assert compare_logs(LOG, LOG) == []
    assert len(compare_logs(LOG, other)) == 1


def test_the_reference_decides_by_hand() -> None:
    """Legal, the same again, after the end, unknown, unreadable, of another job, a new life, and a late one."""
    bodies = [
        b'{"StateType":"Running"}',
        b'{"StateType":"Running"}',
        b'{"StateType":"Completed","Job":{"Version":1}}',
        b'{"StateType":"Running"}',
        b'{"StateType":"Paused"}',
        b"{",
        b'{"StateType":"Failed","Job":{"ID":"j-2"}}',
        b'{"StateType":"Running","Job":{"Version":2}}',
        b'{"StateType":"Failed","Job":{"Version":1}}',
    ]
    expected = fold_one_by_one(
        Entry(number=number, subject=f"{NAMES.in_prefix}default.j-1", body=body, time_ns=number)
        for number, body in enumerate(bodies, 1)
    )
    log = expected.logs["default.j-1"]
    assert [(one["state"], one["version"], one["flags"], one["input"]) for one in log] == [
        ("Running", None, [], "1@1"),
        ("Completed", 1, [], "3@3"),
        ("Running", 2, ["skipped"], "8@8"),
    ]
    assert expected.unchanged == 2
    assert expected.refused == {
        "quarantine after-terminal default.j-1 4-4",
        "quarantine unknown-state default.j-1 5-5",
        "undecodable 6-6",
        "quarantine identity default.j-1 7-7",
    }
