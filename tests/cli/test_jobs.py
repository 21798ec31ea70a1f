"""`list`, `get`, `history` on a real server."""

import asyncio
import json
import os
import re
import signal
from pathlib import Path

import pytest

from consumer.cli.naming import ASK_DOCTOR
from consumer.errors import ExitCode
from consumer.wire.subjects import job_key
from consumer.wire.update import encode_update
from tests.cli.conftest import Stage, life, make_streams, named, staged
from tests.waiting import DEADLINE_S

LONG = "j-0123abcd-0000-4000-8000-000000000001"
HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e\x9b31m\tend\r\n<b>[red]"


async def test_list_shows_each_job_once_with_its_present_state(stage: Stage) -> None:
    """Two jobs of four updates are two lines; the one with the newest entry comes last, whatever the times say."""
    await stage.live("j-1", "Pending", "Running")
    await stage.live("j-2", "Pending")
    await stage.update(life("j-1", "Completed", after=life("j-1", "Pending", "Running"))[0])

    ended = await stage.verb("list")

    rows = [line.split("\t") for line in ended.lines]
    assert [(row[3], row[1], row[5]) for row in rows] == [("j-2", "Pending", "1"), ("j-1", "Completed", "3")]
    assert rows[1][0] == "2026-11-24T05:00:02.123456Z"
    assert ended.code == ExitCode.OK


async def test_list_is_told_by_state_and_namespace_whatever_they_are_made_of(stage: Stage) -> None:
    """A state in any case, a namespace with dots and wildcards: exactly those jobs."""
    await stage.live("j-1", "Running", namespace="team.a.*")
    await stage.live("j-2", "Running")
    await stage.live("j-3", "Failed", namespace="team.a.*")

    ended = await stage.verb("list", "--state", "rUNNING", "--namespace", "team.a.*", "--json")

    assert [said["update"]["Job"]["ID"] for said in ended.objects] == ["j-1"]


async def test_list_takes_several_namespaces(stage: Stage) -> None:
    """As `watch` does; in the order of the log across them, which --limit goes by, and one twice is one."""
    await stage.live("j-1", "Running", namespace="b")
    await stage.live("j-2", "Running", namespace="c")
    await stage.live("j-3", "Running", namespace="a")
    await stage.live("j-4", "Running", namespace="b")
    both = ("--namespace", "a", "--namespace", "b", "--namespace", "a")

    every = await stage.verb("list", *both, "--json")
    last = await stage.verb("list", *both, "--limit", "2", "--json")

    assert [said["update"]["Job"]["ID"] for said in every.objects] == ["j-1", "j-3", "j-4"]
    assert [said["update"]["Job"]["ID"] for said in last.objects] == ["j-3", "j-4"]
    assert every.err == ""


async def test_json_is_the_update_as_it_is_on_the_wire_and_where_the_log_has_it(stage: Stage) -> None:
    """Subject, number and time are the log's."""
    await stage.live("j-0", "Pending")
    number = await stage.update(life("j-1", "Pending", message="é")[0])

    for verb in (("get", "j-1"), ("list", "--limit", "1"), ("history", "j-1")):
        (said,) = (await stage.verb(*verb, "--json")).objects
        assert said.pop("stored").endswith("Z")
        assert said == {
            "subject": stage.names.state(job_key("default", "j-1"), "Pending"),
            "sequence": number,
            "update": json.loads(encode_update(life("j-1", "Pending", message="é")[0])),
        }


async def test_list_reads_more_jobs_than_one_request_brings(stage: Stage) -> None:
    """1,201 jobs are 1,201 lines; with a limit, the last."""
    for index in range(1201):
        (update,) = life(f"j-{index}", "Pending")
        key = job_key("default", f"j-{index}")
        await stage.client.publish(
            stage.names.state(key, "Pending"), encode_update(update), headers=stage.after(key, 0)
        )
    await stage.bucket_has(1201)

    ended = await stage.verb("list", "--json")
    few = await stage.verb("list", "--limit", "2", "--json")

    assert [said["update"]["Job"]["ID"] for said in ended.objects] == [f"j-{index}" for index in range(1201)]
    assert few.objects == ended.objects[-2:]


@pytest.mark.parametrize("named", [LONG, "j-0123abcd", "j-01", f"default/{LONG}", "default/j-0123abcd"])
async def test_a_job_is_named_by_its_id_its_beginning_or_its_namespace(stage: Stage, named: str) -> None:
    """Each way to name it finds the same job."""
    await stage.live(LONG, "Pending", "Queued")
    await stage.live("j-9", "Running")

    ended = await stage.verb("get", named)

    assert f"job        {LONG}\n" in ended.out
    assert "state      Queued\n" in ended.out


async def test_an_id_in_full_hides_those_that_begin_with_it(stage: Stage) -> None:
    """`j-1` is `j-1`, though there is `j-11`."""
    await stage.live("j-11", "Failed")
    await stage.live("j-1", "Running")

    assert (await stage.verb("get", "j-1", "--json")).objects[0]["update"]["StateType"] == "Running"


async def test_a_job_that_is_not_there_or_not_one_is_refused_with_the_next_step(stage: Stage) -> None:
    """Unknown: exit 3 and where to look. Two that begin alike, or have one id: exit 6 and both."""
    await stage.live("j-11", "Failed")
    await stage.live("j-12", "Running", namespace="other")
    await stage.live("j-3", "Running")
    await stage.live("j-3", "Failed", namespace="other")

    unknown = await stage.verb("get", "j-2")
    alike = await stage.verb("history", "j-1")
    same = await stage.verb("get", "j-3")

    absent = "no job j-2 in cluster main: write the job's id, its beginning, or the job's name"
    assert unknown == (3, "", f"jobstate: {absent} (`jobstate list` shows those there are)\n")
    step = "write one of these, or more of the id"
    assert alike == (6, "", f"jobstate: j-1 may be one of 2 jobs: {step}\n  default/j-11\n  other/j-12\n")
    assert same == (6, "", f"jobstate: j-3 may be one of 2 jobs: {step}\n  default/j-3\n  other/j-3\n")


async def test_a_job_is_found_by_its_name(stage: Stage) -> None:
    """In any namespace, or in its own; whatever a name is made of; an id in full comes before it."""
    names = ("nightly", 'team/build "1" é', "j-9", "default/x")
    for number, name in enumerate(names):
        await stage.update(named(f"j-{number}", name, "Pending", namespace="a.b"))
    await stage.live("j-9", "Running")

    async def found(*arguments: str) -> str:
        ended = await stage.verb(*arguments, "--json")
        assert ended.code == ExitCode.OK, ended
        (said,) = ended.objects
        return str(said["update"]["Job"]["ID"])

    assert await found("get", "nightly") == "j-0"
    assert await found("history", "a.b/nightly") == "j-0"
    assert await found("get", names[1]) == "j-1"
    assert await found("get", f"a.b/{names[1]}") == "j-1"
    assert await found("get", "j-9") == "j-9", "an id, and another job's name"
    assert await found("get", "a.b/j-9") == "j-2"
    assert await found("get", "default/x") == "j-3"
    assert await found("watch", "--job", "nightly", "--since", "start", "--count", "1") == "j-0"
    assert (await stage.verb("get", "default/nightly")).code == ExitCode.NO_INPUT


async def test_a_name_of_several_jobs_lists_them(stage: Stage) -> None:
    """Exit 6 and a line each, at most twenty; also where it is one's name and the beginning of another's id."""
    for number in range(23):
        await stage.live(f"j-{number:02}", "Pending")
    await stage.update(named("j-99", "build", "Pending", namespace="other"))
    await stage.live("build-7", "Running")

    many = await stage.verb("get", "n", "--json")
    two = await stage.verb("history", "build")
    one = await stage.verb("get", "other/build", "--json")
    watched = await stage.verb("watch", "--job", "build")

    step = "write one of these, or more of the id"
    lines = ["  default/build-7", *(f"  default/j-{number:02}" for number in range(19))]
    lines = [f"jobstate: n may be one of 24 jobs: {step}", *lines, "  and 4 more"]
    assert (many.code, many.out, many.err.splitlines()) == (ExitCode.AMBIGUOUS, "", lines)
    said = f"jobstate: build may be one of 2 jobs: {step}\n  default/build-7\n  other/j-99\n"
    assert two == (ExitCode.AMBIGUOUS, "", said)
    assert watched == two
    assert one.objects[0]["update"]["Job"]["ID"] == "j-99"


async def test_an_id_with_line_breaks_is_one_line_of_a_list(stage: Stage) -> None:
    """What others wrote makes no line of its own, where several are listed: in `get` and as the end of a verb."""
    for end in ("1", "2"):
        await stage.live(f"j\n  default/fake{end}", "Pending")

    for verb in ("get", "history"):
        ended = await stage.verb(verb, "j")
        assert ended.err.splitlines()[1:] == [rf"  default/j\n  default/fake{end}" for end in ("1", "2")]


async def test_a_namespace_without_a_job_is_told(stage: Stage) -> None:
    """Nothing on stdout and exit 0, and a word on stderr; not where only the state hides its jobs."""
    await stage.live("j-1", "Pending")

    for flags in ((), ("--json",)):
        told = await stage.verb("list", "--namespace", "nosuch", *flags)
        assert told == (0, "", "jobstate: no job is known in namespace nosuch of cluster main\n")
    several = await stage.verb("list", "--namespace", "nosuch", "--namespace", "default", "--namespace", "nor=this")
    assert (len(several.lines), several.err.splitlines()) == (
        1,
        [f"jobstate: no job is known in namespace {name} of cluster main" for name in ("nosuch", "nor=this")],
    )
    nothing = (0, "", "jobstate: no job is Failed or Stopped: 1 are not\n")
    assert await stage.verb("list", "--namespace", "default", "--state", "failed", "--state", "stopped") == nothing
    assert await stage.verb("list", "--state", "stopped,failed", "-o", "json") == nothing


async def test_an_empty_list_says_so(stage: Stage) -> None:
    """On standard error, and nothing in a pipe: of jobs, of what was refused, of what was announced."""
    for verb, said in (
        (("list",), f"no job is known in cluster main yet ({ASK_DOCTOR})"),
        (("quarantine", "list"), "nothing was refused in cluster main"),
        (("advisories",), "nothing was announced in cluster main"),
    ):
        for flags in ((), ("--json",)):
            assert await stage.verb(*verb, *flags) == (0, "", f"jobstate: {said}\n")


async def test_several_states_are_named_at_once(stage: Stage) -> None:
    """Parted by commas, repeated, and `open` and `terminal`: what has not ended, and what has."""
    for number, state in enumerate(("Pending", "Queued", "Running", "Completed", "Failed", "Stopped")):
        await stage.live(f"j-{number}", state)

    async def shown(*flags: str) -> str:
        ended = await stage.verb("list", "--json", *flags)
        return "".join(said["update"]["Job"]["ID"][-1] for said in ended.objects)

    assert await shown("--state", "open") == "012"
    assert await shown("--state", "Terminal") == "345"
    assert await shown("--state", "failed, queued", "--state", "stopped") == "145"
    assert await shown("--state", "open,failed") == "0124"
    ended = await stage.verb("watch", "--since", "start", "--state", "terminal", "--count", "3", "-o", "json")
    assert [said["update"]["StateType"] for said in ended.objects] == ["Completed", "Failed", "Stopped"]


async def test_several_jobs_are_got_at_once(stage: Stage) -> None:
    """Each once, in the order in which they were named; what is not there is told, and is the exit code."""
    for job in ("j-1", "j-2", "j-31", "j-32"):
        await stage.live(job, "Running")

    both = await stage.verb("get", "j-2", "default/j-1", "j-2", "--json")
    text = await stage.verb("get", "j-1", "j-2")
    partly = await stage.verb("get", "nosuch", "j-1", "j-3", "--json")

    assert [said["update"]["Job"]["ID"] for said in both.objects] == ["j-2", "j-1"]
    assert [part.splitlines()[0] for part in text.out.split("\n\n")] == ["job        j-1", "job        j-2"]
    assert [said["update"]["Job"]["ID"] for said in partly.objects] == ["j-1"]
    assert partly.code == ExitCode.NO_INPUT
    assert [line.split(":")[0] for line in partly.err.splitlines()] == [
        "jobstate",
        "jobstate",
        "  default/j-31",
        "  default/j-32",
    ]


async def test_a_list_goes_on_with_what_comes(stage: Stage) -> None:
    """--watch: first the jobs, then each change of them and of new ones, none twice, none lost; Ctrl-C is 0."""
    await stage.live("j-2", "Failed")
    first = await stage.live("j-1", "Running")
    running = await stage.begin("list", "--watch", "--state", "open", "--json", environ={"PYTHONUNBUFFERED": "1"})
    assert json.loads(await running.line())["update"]["Job"]["ID"] == "j-1"
    await stage.live("j-3", "Pending")
    await stage.store(stage.names.state(job_key("default", "j-9"), "Running"), b"{}")  # a stranger's
    await stage.update(life("j-1", "Completed", after=first)[0])
    await stage.live("j-4", "Failed")  # was never open
    await stage.live("j-5", "Queued")

    said = [json.loads(await running.line())["update"] for _ in range(3)]
    assert [(update["Job"]["ID"], update["StateType"]) for update in said] == [
        ("j-3", "Pending"),
        ("j-1", "Completed"),
        ("j-5", "Queued"),
    ]
    assert await running.end(signal.SIGINT) == (0, "", "")


@pytest.mark.parametrize(
    ("user", "verb"),
    [
        ("publishes", ("list",)),
        ("publishes", ("send", "j-1", "Running")),
        ("subscribes", ("list",)),
    ],
)
async def test_what_may_not_be_asked_is_told_with_the_permission(
    tmp_path: Path, user: str, verb: tuple[str, ...]
) -> None:
    """Where the server forbids the request or its answers: exit 11, and where the permissions stand."""
    denied = {"publishes": 'publish: { deny: ">" }', "subscribes": 'subscribe: { deny: ">" }'}[user]
    users = f'users: [{{ user: "a", password: "p" }}, {{ user: "u", password: "p", permissions: {{ {denied} }} }}]'
    async with staged(tmp_path, f"authorization {{ {users} }}\nno_auth_user: a") as stage:
        await make_streams(stage.client, stage.names)
        secret = {"JOBSTATE_NATS__USER": "u", "JOBSTATE_NATS__PASSWORD": "p"}
        ended = await stage.verb(*verb, **secret)

    assert (ended.code, ended.out) == (ExitCode.SERVER, "")
    assert "permissions violation for" in ended.err
    assert "grant this user what docs/operations/running.md#permissions lists" in ended.err
    assert "no answer within" not in ended.err


async def test_history_shows_every_update_in_order_and_marks_what_is_foreign(stage: Stage) -> None:
    """Three of ours and three that strangers stored, the last of them a likely one: six entries, three foreign."""
    key = job_key("default", "j-1")
    await stage.live("j-1", "Pending", "Running")
    (copied,) = life("j-1", "Failed")
    await stage.store(stage.names.state(key, "Failed"), encode_update(copied))  # its Sequence does not follow
    await stage.store(stage.names.state(key, "Stopped"), b"\xff\x1b[2J")
    (ours,) = life("j-1", "Completed", after=life("j-1", "Pending", "Running"))
    await stage.store(stage.names.state(key, "Completed"), encode_update(ours))  # without a daemon's headers
    await stage.update(ours)

    said = (await stage.verb("history", "j-1", "--json")).objects
    plain = await stage.verb("history", "j-1")

    assert [(one["update"] or {}).get("StateType") for one in said] == [
        "Pending",
        "Running",
        "Failed",
        None,
        "Completed",
        "Completed",
    ]
    assert [one.get("foreign", False) for one in said] == [False, False, True, True, True, False]
    assert [one["sequence"] for one in said] == [1, 2, 3, 4, 5, 6]
    assert "observed,foreign" in plain.lines[2]
    assert "foreign" in plain.lines[3]


async def test_get_says_what_the_log_has_of_ours_whatever_the_bucket_copied(stage: Stage) -> None:
    """A likely Completed without a daemon's headers is in the bucket: the job is still Running."""
    key = job_key("default", "j-1")
    await stage.live("j-1", "Pending", "Running")
    (forged,) = life("j-1", "Completed", after=life("j-1", "Pending", "Running"))
    await stage.store(stage.names.state(key, "Completed"), encode_update(forged))
    await stage.store(stage.names.state(job_key("default", "j-2"), "Running"), encode_update(life("j-2", "Running")[0]))
    await stage.bucket_has(1, stage.names.key_in_bucket(key), encode_update(forged))
    await stage.bucket_has(1, stage.names.key_in_bucket(job_key("default", "j-2")))

    (said,) = (await stage.verb("get", "j-1", "--json")).objects
    nothing = await stage.verb("get", "j-2")

    assert (said["update"]["StateType"], said["sequence"]) == ("Running", 2)
    assert nothing.code == ExitCode.NO_INPUT
    assert "no update of default/j-2 that is ours: `jobstate history j-2`" in nothing.err


async def test_list_shows_what_is_ours_where_a_jobs_last_entry_is_not(stage: Stage) -> None:
    """Bytes, another job's update, and what has no daemon's headers or is announced as foreign give way to ours."""
    names, number = stage.names, 0
    (other,) = life("j-x", "Failed")
    for job, body in (("j-1", b"{}"), ("j-2", encode_update(other)), ("j-3", encode_update(life("j-3", "Failed")[0]))):
        await stage.live(job, "Running")
        number = await stage.store(names.state(job_key("default", job), "Failed"), body)
        await stage.bucket_has(1, names.key_in_bucket(job_key("default", job)), body)
    await stage.store(names.advisory("foreign", str(number)), b"{}")
    await stage.store(names.state(job_key("default", "j-4"), "Running"), b"\xff")
    await stage.bucket_has(4)

    said = (await stage.verb("list", "--json")).objects
    running = await stage.verb("list", "--state", "running")

    assert [one["update"] and one["update"]["StateType"] for one in said] == ["Running", "Running", "Running", None]
    assert [one["sequence"] for one in said] == [1, 3, 5, 8]
    assert [one.get("foreign", False) for one in said] == [False, False, False, True]
    assert [line.split("\t")[3] for line in running.lines] == ["j-1", "j-2", "j-3"]


@pytest.mark.parametrize("how", ["purged", "gone"])
async def test_every_verb_rests_on_the_log_whatever_the_bucket_has(stage: Stage, how: str) -> None:
    """Whole ids, beginnings, namespaces and names are found where the bucket has nothing, and nothing is left out."""
    await stage.update(named(LONG, "nightly", "Running"))
    await stage.live("j-9", "Pending", "Completed")
    if how == "purged":
        await stage.client.jsm().purge_stream(stage.names.bucket_stream)
    else:
        await stage.client.jsm().delete_stream(stage.names.bucket_stream)

    listed = await stage.verb("list")
    assert [line.split("\t")[1::2][:2] for line in listed.lines] == [["Running", LONG], ["Completed", "j-9"]]
    assert len((await stage.verb("list", "--state", "completed")).lines) == 1
    for called in (LONG, "j-0123abcd", f"default/{LONG}", "default/j-0123abcd", "nightly"):
        assert f"job        {LONG}\n" in (await stage.verb("get", called)).out
        assert len((await stage.verb("history", called)).lines) == 1
        ended = await stage.verb("wait", called, "--for", "running", "--timeout", "1h")
        assert (ended.code, "not known" in ended.err, "is known yet" in ended.err) == (ExitCode.OK, False, False)
        seen = await stage.verb("watch", "--job", called, "--since", "start", "--count", "1")
        assert (seen.code, len(seen.lines), seen.err) == (ExitCode.OK, 1, "")


async def test_what_others_wrote_cannot_act_on_a_terminal(stage: Stage) -> None:
    """Escapes, bells, right-to-left, line breaks and markup in a message and a name reach no output as they are."""
    (update,) = life(f"j-1{HOSTILE}", "Failed", namespace="a.b\x1b", message=HOSTILE)
    await stage.update(update)

    for verb in (("list",), ("get", "j-1"), ("history", "j-1"), ("watch", "--since", "start", "--count", "1")):
        for flags in ((), ("--json",)):
            ended = await stage.verb(*verb, *flags)
            assert ended.code == ExitCode.OK
            shown = ended.out.replace("\n", "").replace("\t", "")
            assert shown.isprintable(), (verb, flags)
            assert "\u202e" not in shown
            if flags:
                assert ended.objects[0]["update"]["Message"] == HOSTILE
    assert len((await stage.verb("list")).lines) == 1


async def test_on_a_terminal_there_is_a_table_and_messages_are_no_markup(stage: Stage) -> None:
    """A head, the short id, the message as it was written but for its escapes."""
    (update,) = life(LONG, "Failed", message=HOSTILE)
    await stage.update(update)
    ours, theirs = os.openpty()

    running = await stage.begin("list", stdout=theirs, environ={"COLUMNS": "200", "TERM": "xterm"})
    os.close(theirs)
    async with asyncio.timeout(DEADLINE_S):
        shown = (await asyncio.to_thread(os.read, ours, 65536)).decode()
    os.close(ours)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", shown)  # the table's own colors

    assert (await running.end()).code == ExitCode.OK
    head, row = shown.splitlines()[:2]
    assert head.split()[:5] == ["TIME", "AGE", "STATE", "NAMESPACE", "JOB"]
    assert "j-0123abcd " in row
    assert LONG not in shown
    assert "<b>[red]" in shown
    assert "\x1b" not in shown


async def test_a_missing_log_says_what_to_start(bare: Stage) -> None:
    """Each verb that reads or writes a log: exit 3 and one line with the cluster, the server and the next step."""
    missing = f"jobstate: no log of cluster main on {bare.server.url}: has `jobstate run` been started?\n"
    for verb in (
        ("list",),
        ("get", "j-1"),
        ("history", "j-1"),
        ("watch",),
        ("wait", "j-1"),
        ("send", "j-1", "Running"),
        ("quarantine", "list"),
    ):
        ended = await bare.verb(*verb)
        assert ended == (3, "", missing), verb


async def test_a_server_that_is_not_there_is_one_line_and_soon(bare: Stage) -> None:
    """Nobody listens: exit 11 after three seconds of trying, one line with the address."""
    ended = await bare.verb("list", "--nats", "nats://user:secret@127.0.0.1:1")

    assert ended.code == ExitCode.SERVER
    *warnings, error = ended.err.splitlines()
    assert len(warnings) == 1  # that a URL holds a secret
    assert "no connection to nats://***@127.0.0.1:1 within 3 s" in error
    assert "user:secret" not in ended.err
    assert "(connection refused): is the server up, and is nats.url right?" in error


async def test_an_address_that_is_none_is_a_usage_error(bare: Stage) -> None:
    """A URL of another kind: exit 2, one line that names the setting."""
    ended = await bare.verb("list", "--nats", "http://127.0.0.1:4222")

    assert ended.code == ExitCode.USAGE
    assert "nats.url" in ended.err
