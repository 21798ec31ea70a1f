"""`advisories` on a real server."""

from consumer.errors import ExitCode
from consumer.model import Notice, NoticeKind
from consumer.wire.entries import encode_advisory
from consumer.wire.subjects import job_key
from tests.cli.conftest import Stage


async def announce(stage: Stage, kind: NoticeKind, origin: str, text: str, job: str = "", **facts: str | int) -> str:
    """Store what the daemon stores of a notice. Its subject."""
    key = job_key("n.s", job) if job else None
    subject = stage.names.advisory(kind, origin)
    await stage.store(subject, encode_advisory(Notice(kind=kind, origin=origin, text=text, key=key, facts=dict(facts))))
    return subject


async def test_what_was_announced_is_listed_newest_last(stage: Stage) -> None:
    """A line each, with kind, job, text and facts, and nothing that acts on a terminal; a limit keeps the newest."""
    await stage.live("j-1", "Pending")
    await announce(stage, "stuck", "1", "stands", "j 1", state="Pending", limit_s=600)
    await announce(stage, "input", "gap", "\x1b[2Jgone")

    rows = [line.split("\t") for line in (await stage.verb("advisories")).lines]

    assert [row[1:] for row in rows] == [
        ["stuck", "n.s/j 1", "stands", "state=Pending limit_s=600"],
        ["input", "", "\\x1b[2Jgone", ""],
    ]
    assert len((await stage.verb("advisories", "--limit", "1")).lines) == 1


async def test_json_has_each_whole(stage: Stage) -> None:
    """Where it stands, and all that it says."""
    subject = await announce(stage, "gone", "j-1", "the orchestrator does not know it", "j-1", sequence=3)

    (told,) = (await stage.verb("advisories", "--json")).objects

    assert told.pop("stored").endswith("Z")
    assert told == {
        "subject": subject,
        "sequence": 1,
        "kind": "gone",
        "job": "n.s/j-1",
        "text": "the orchestrator does not know it",
        "facts": {"sequence": 3},
    }


async def test_what_a_stranger_stored_there_is_shown_as_that(stage: Stage) -> None:
    """It breaks nothing, and is no announcement."""
    await stage.store(stage.names.advisory("stuck", "1"), b"\xff")

    ended = await stage.verb("advisories")

    assert ended.code == ExitCode.OK
    assert ended.lines[0].split("\t")[1:] == ["stuck", "", "no daemon of ours wrote this", ""]
    assert (await stage.verb("advisories", "--json")).objects[0]["text"] == ""


async def test_nothing_was_announced(stage: Stage) -> None:
    """Exit 0, no line, and on standard error that there is none."""
    assert await stage.verb("advisories") == (ExitCode.OK, "", "jobstate: nothing was announced in cluster main\n")
