"""`quarantine` on a real server."""

import hashlib

from consumer.errors import ExitCode
from consumer.model import Identity, InputPosition, LastUpdate, Malformed, Rejected, Report
from consumer.wire.entries import encode_quarantine, encode_undecodable
from consumer.wire.subjects import job_key
from tests.cli.conftest import Stage

RULE = "after Completed there is nothing"
MESSAGE = "\x1b[2Jpwned"
DATA = b'{"StateType":\x1b[2J \xff'


async def reject(stage: Stage, job: str, number: int) -> str:
    """Store what the daemon stores of a rejected report. Its subject."""
    key = job_key("n.s", job)
    report = Report(
        key=key,
        job=Identity(id=job, namespace="n.s"),
        position=InputPosition(7, number),
        state="Running",
        message=MESSAGE,
    )
    known = LastUpdate(number=9, sequence=3, state="Completed", version=None, revision=None, source="reported")
    subject = stage.names.quarantine("after-terminal", key, f"{number}-7")
    await stage.store(subject, encode_quarantine(report, Rejected(reason="after-terminal", rule=RULE), known))
    return subject


async def misread(stage: Stage, number: int) -> str:
    """Store what the daemon stores of a report that it could not read. Its subject."""
    junk = Malformed(
        reason="not-json",
        origin=f"{number}-7",
        source="report",
        subject="jobstate.v1.main.in.a.b",
        size=len(DATA),
        sha256=hashlib.sha256(DATA).hexdigest(),
        detail="byte 13",
        data=DATA,
        position=InputPosition(7, number),
    )
    subject = stage.names.undecodable("not-json", f"{number}-7")
    await stage.store(subject, encode_undecodable(junk))
    return subject


async def test_list_shows_what_was_refused_newest_last(stage: Stage) -> None:
    """A rejection and junk: a line each, with kind, reason, job, origin and the rule; a limit keeps the newest."""
    await reject(stage, "j 1", 12)
    await misread(stage, 13)

    rows = [line.split("\t") for line in (await stage.verb("quarantine", "list")).lines]

    assert [row[1:] for row in rows] == [
        ["quarantine", "after-terminal", "n.s/j 1", "12-7", RULE],
        ["undecodable", "not-json", "", "13-7", "byte 13"],
    ]
    assert len((await stage.verb("quarantine", "list", "--limit", "1")).lines) == 1


async def test_show_tells_all_of_one_and_nothing_that_acts_on_a_terminal(stage: Stage) -> None:
    """The event, the state it met, the rule; of a report its bytes: escaped, also in JSON."""
    await reject(stage, "j 1", 12)
    subject = await misread(stage, 13)

    rejected = await stage.verb("quarantine", "show", "12-7")
    junk = await stage.verb("quarantine", "show", subject)
    (said,) = (await stage.verb("quarantine", "show", "13-7", "--json")).objects

    facts = dict(line.split(maxsplit=1) for line in rejected.lines)
    assert facts["Rule"] == RULE
    assert facts["Known.StateType"] == "Completed"
    assert facts["Event.Message"] == r"\x1b[2Jpwned"
    assert dict(line.split(maxsplit=1) for line in junk.lines)["Data"] == r'{"StateType":\x1b[2J \xff'
    assert (said["kind"], said["reason"], said["origin"]) == ("undecodable", "not-json", "13-7")
    assert said["refused"]["SHA256"] == hashlib.sha256(DATA).hexdigest()


async def test_show_shows_every_event_of_an_origin(stage: Stage) -> None:
    """One origin under two jobs: both; which is meant can be told by the subject."""
    first = await reject(stage, "j-1", 12)
    await reject(stage, "j-2", 12)

    both = await stage.verb("quarantine", "show", "12-7", "--json")
    one = await stage.verb("quarantine", "show", first, "--json")

    assert [said["job"] for said in both.objects] == ["n.s/j-1", "n.s/j-2"]
    assert [said["job"] for said in one.objects] == ["n.s/j-1"]


async def test_show_takes_the_beginning_of_an_origin(stage: Stage) -> None:
    """The one that begins so; a whole one hides those that begin with it; of several it says which there are."""
    await reject(stage, "j-1", 12)
    await misread(stage, 13)
    await stage.store(stage.names.undecodable("empty", "12-77"), b"{}")

    async def shown(origin: str) -> list[str]:
        return [said["origin"] for said in (await stage.verb("quarantine", "show", origin, "--json")).objects]

    assert await shown("13") == ["13-7"]
    assert await shown("12-7") == ["12-7"]
    several = await stage.verb("quarantine", "show", "1")
    assert several == (3, "", "jobstate: 1 may be 12-7, 12-77, 13-7: give more of the origin\n")


async def test_show_of_nothing_says_where_to_look(stage: Stage) -> None:
    """An origin that nobody has, a wildcard, what only begins as a subject of ours does: exit 3."""
    await reject(stage, "j-1", 12)
    begun = stage.names.prefix
    for origin in ("99-7", "*", ">", f"{begun}.a..b", f"{begun}.", f"{begun}.quarantine.>", f"{begun}. x"):
        ended = await stage.verb("quarantine", "show", origin)
        assert ended.code == ExitCode.NO_INPUT
        assert "`jobstate quarantine list` shows what was" in ended.err


async def test_what_strangers_store_among_the_refused_is_shown_and_breaks_nothing(stage: Stage) -> None:
    """Bytes that are nothing of ours: a line without a rule."""
    await stage.store(stage.names.undecodable("empty", "1"), b"\xff" + b"[" * 5000)
    await reject(stage, "j-1", 12)

    ended = await stage.verb("quarantine", "list")

    assert ended.code == ExitCode.OK
    assert [line.split("\t")[4] for line in ended.lines] == ["1", "12-7"]
