"""What follows from facts: no server is needed to see it."""

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import pytest

from consumer.doctor import facts
from consumer.doctor.finding import CHECKS, Finding, Verdict, fail, held_up, ok, say_bytes, say_seconds, skipped
from consumer.doctor.judging import agreement, log, orchestrator, server, streams
from consumer.errors import OrchestratorError
from consumer.model import (
    DERIVED,
    OBSERVED,
    REPORTED,
    FrameKind,
    HistoryEntry,
    Identity,
    InputPosition,
    Job,
    Profile,
    Snapshot,
    Source,
    Update,
)
from consumer.wire.subjects import Names

NOW: Final = datetime(2026, 11, 24, 6, tzinfo=UTC)
NAMES: Final = Names()
ONE: Final = facts.Stream(name="JOBSTATE_main", there=True, messages=3, bytes=100, max_bytes=1000, last_seq=3)
FOUR: Final = facts.Streams(log=ONE, input=ONE, refused=ONE, bucket=ONE)
ACCOUNT: Final = facts.Account(level=1)


def verdicts(**given: Finding) -> dict[str, str]:
    """Name and verdict of each."""
    return {name: finding.verdict.value for name, finding in given.items()}


def test_a_check_is_skipped_after_one_that_it_needs() -> None:
    """After a failure it says whose, along a whole chain; after a warning it is made."""
    tls = next(check for check in CHECKS if check.name == "nats.tls")
    auth = next(check for check in CHECKS if check.name == "nats.auth")
    down = held_up(tls, [fail("nats.reach", "nobody", "start it")])
    assert down == skipped("nats.tls", "nats.reach failed")
    assert down is not None
    assert held_up(auth, [down]) == skipped("nats.auth", "nats.reach failed")
    assert held_up(tls, [ok("nats.reach", "there")]) is None


def test_every_check_stands_behind_what_it_needs() -> None:
    """No check needs one that is made later, or that there is not."""
    before: set[str] = set()
    for check in CHECKS:
        assert set(check.needs) <= before
        before.add(check.name)
    assert len(before) == len(CHECKS)


@pytest.mark.parametrize(
    ("pattern", "subject", "covers", "meets"),
    [
        (">", "a.b", True, True),
        ("a.>", "a.b.c", True, True),
        ("a.>", "a", False, False),
        ("a.*", "a.b", True, True),
        ("a.*", "a.b.c", False, False),
        ("a.*", "a.>", False, True),
        ("a.b", "a.*", False, True),
        ("a.b", "a.c", False, False),
        ("a.*.c", "a.b.*", False, True),
        ("a.> queue", "a.b", True, True),
    ],
)
def test_a_permission_takes_in_what_its_pattern_says(pattern: str, subject: str, covers: bool, meets: bool) -> None:
    """An allowed pattern must take in all of a subject; a denied one that meets any of it takes it away."""
    assert server.covers(pattern, subject) is covers
    assert server.meets(pattern, subject) is meets


def test_permissions_are_judged_by_what_the_daemon_needs() -> None:
    """Nothing said: all. The list of the documentation: all. A stream that may not be made: a warning."""
    api = [
        "INFO",
        "STREAM.INFO.*",
        "STREAM.MSG.GET.*",
        "CONSUMER.CREATE.*.>",
        "CONSUMER.DELETE.*.>",
        "CONSUMER.MSG.NEXT.*.>",
    ]
    listed = facts.Permissions(
        publish_allow=("jobstate.v1.main.>", *(f"$JS.API.{one}" for one in api)),
        subscribe_allow=("_INBOX_jobstate_main.>",),
    )
    deaf = facts.Permissions(subscribe_allow=("other.>",))
    assert verdicts(
        free=server.asks(facts.Permissions(), NAMES, "create"),
        listed=server.asks(listed, NAMES, "bind"),
        making=server.asks(listed, NAMES, "create"),
        writes=server.writes(listed, NAMES),
        deaf=server.asks(deaf, NAMES, "bind"),
        untold=server.asks(None, NAMES, "create"),
    ) == {"free": "ok", "listed": "ok", "making": "warn", "writes": "ok", "deaf": "fail", "untold": "warn"}


def test_a_secret_in_the_clear_is_a_warning_off_the_loopback() -> None:
    """Where the way is another's; with TLS or on this machine it is none."""
    there = facts.Contact(address="nats://far:4222", secret=True)
    asked = facts.Answer(address="http://far:1234", secret=True)
    assert verdicts(
        clear=server.tls("nats", there),
        here=server.tls("nats", msgspec.structs.replace(there, loopback=True)),
        private=server.tls("nats", msgspec.structs.replace(there, private=True)),
        http=orchestrator.tls(asked),
        https=orchestrator.tls(msgspec.structs.replace(asked, private=True)),
    ) == {"clear": "warn", "here": "ok", "private": "ok", "http": "warn", "https": "ok"}
    offered = msgspec.structs.replace(there, offers_tls=True)
    assert server.tls("nats", there).next.startswith("enable TLS on that server, then write tls://")
    assert server.tls("nats", offered).next.startswith("write tls://")


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        ("2.9.1", "fail"),
        ("2.10.26", "fail"),
        ("unknown", "fail"),
        ("2.11.0", "ok"),
        ("v2.15.1", "ok"),
        ("3.0.0", "warn"),
    ],
)
def test_our_server_must_be_one_that_keeps_the_compare_and_set(version: str, verdict: str) -> None:
    """2.11 to 2.15 are known; older ones lose states, newer ones are to be watched."""
    assert server.version(facts.Contact(address="", version=version)).verdict == verdict


def test_streams_that_are_absent_are_made_or_missed() -> None:
    """None there: a warning where the daemon makes them, a fault where it may not; some there: a fault."""
    absent = msgspec.structs.replace(ONE, there=False)
    none = facts.Streams(log=absent, input=absent, refused=absent, bucket=absent)
    some = msgspec.structs.replace(FOUR, bucket=absent)
    assert verdicts(
        create=streams.streams(none, "create"),
        bind=streams.streams(none, "bind"),
        some=streams.streams(some, "create"),
        all=streams.streams(FOUR, "create"),
    ) == {"create": "warn", "bind": "fail", "some": "fail", "all": "ok"}


@pytest.mark.parametrize(
    ("log_bytes", "account", "verdict"),
    [
        (100, ACCOUNT, "ok"),
        (800, ACCOUNT, "warn"),
        (990, ACCOUNT, "fail"),
        (100, facts.Account(level=1, storage=90, storage_max=100), "warn"),
        (100, facts.Account(level=1, storage=99, storage_max=100), "fail"),
        (100, facts.Account(level=1, streams=4, streams_max=4), "ok"),
        (100, facts.Account(level=1, streams=5, streams_max=4), "fail"),
    ],
)
def test_room_runs_out_before_it_is_out(log_bytes: int, account: facts.Account, verdict: str) -> None:
    """From four fifths it is told, of the log and of the account; full is a fault."""
    log_stream = msgspec.structs.replace(ONE, bytes=log_bytes)
    assert streams.room(msgspec.structs.replace(FOUR, log=log_stream), account, None).verdict == verdict


def test_room_for_streams_that_are_to_be_made_is_looked_for_in_the_server_too() -> None:
    """The monitoring port knows the server's own limit, which no client is told."""
    absent = msgspec.structs.replace(FOUR, log=facts.Stream(name="JOBSTATE_main", there=False, max_bytes=1000))
    small, large = facts.Monitor(storage_max=1500, reserved=600), facts.Monitor(storage_max=1700, reserved=600)
    assert streams.room(absent, ACCOUNT, small).verdict == Verdict.FAIL
    assert streams.room(absent, ACCOUNT, large).verdict == Verdict.OK
    assert streams.room(absent, ACCOUNT, None).verdict == Verdict.OK


def test_replicas_are_judged_by_where_they_are() -> None:
    """One on a server alone is a choice, one in a cluster a waste; one that lags is told; no leader is a fault."""
    clustered = msgspec.structs.replace(ONE, cluster="c", leader="a", copies=3)
    lagging = (facts.Replica(name="b", current=True), facts.Replica(name="c", offline=True))

    def judged(stream: facts.Stream) -> Finding:
        return streams.replicas(msgspec.structs.replace(FOUR, log=stream))

    assert verdicts(
        alone=judged(ONE),
        one=judged(msgspec.structs.replace(clustered, copies=1)),
        three=judged(clustered),
        lagging=judged(msgspec.structs.replace(clustered, replicas=lagging)),
        leaderless=judged(msgspec.structs.replace(clustered, leader="")),
    ) == {"alone": "ok", "one": "warn", "three": "ok", "lagging": "warn", "leaderless": "fail"}
    assert "c is behind" in judged(msgspec.structs.replace(clustered, replicas=lagging)).found


def test_what_a_power_loss_takes_is_said() -> None:
    """By default acknowledged entries, so it warns, seen or not; synced always or with copies it does not."""
    three = msgspec.structs.replace(FOUR, log=msgspec.structs.replace(ONE, copies=3))
    default = facts.Monitor(sync_interval_s=120)
    assert verdicts(
        unseen=streams.sync(FOUR, None),
        seen=streams.sync(FOUR, default),
        always=streams.sync(FOUR, facts.Monitor(sync_always=True)),
        copies=streams.sync(three, None),
        silent=streams.sync(FOUR, facts.Monitor(fault="connection refused")),
    ) == {"unseen": "warn", "seen": "warn", "always": "ok", "copies": "ok", "silent": "warn"}
    assert "--monitor" in streams.sync(FOUR, None).next
    assert "acknowledged entries" in streams.sync(FOUR, default).found


def test_the_input_is_laid_beside_the_checkpoint() -> None:
    """What came after it waits; a checkpoint behind its end is another input's; what was purged is not waited for."""
    purged = msgspec.structs.replace(FOUR, input=msgspec.structs.replace(ONE, first_seq=4, last_seq=3))
    assert verdicts(
        read=log.input_(FOUR, InputPosition(1, 3)),
        waiting=log.input_(FOUR, InputPosition(1, 1)),
        lost=log.input_(FOUR, InputPosition(1, 9)),
        purged=log.input_(purged, None),
    ) == {"read": "ok", "waiting": "warn", "lost": "warn", "purged": "ok"}
    assert log.input_(FOUR, InputPosition(1, 1)).found.startswith("2 reports")


def test_rules_and_format_must_be_the_logs() -> None:
    """Others are a fault, unless they are to be taken; what cannot be read is one; a new log has none."""
    head = facts.LogHead(format=1, rules="bacalhau", rules_hash="a" * 64)

    def judged(found: facts.LogHead | None, *, accept: bool = False, hash_: str = "a" * 64) -> Finding:
        return log.rules(found, name="bacalhau", hash_=hash_, accept=accept)

    assert verdicts(
        same=judged(head),
        other=judged(head, hash_="b" * 64),
        accepted=judged(head, hash_="b" * 64, accept=True),
        newer=judged(msgspec.structs.replace(head, format=2)),
        unread=judged(facts.LogHead(unread="entry 5")),
        new=judged(None),
    ) == {"same": "ok", "other": "fail", "accepted": "warn", "newer": "fail", "unread": "warn", "new": "skipped"}


def test_only_a_recent_advisory_is_news() -> None:
    """They stay in the log for ever: after a day one is told without a warning."""
    old = facts.Told(kind="gap", count=2, last_age_s=100_000)
    assert log.advisories([]).verdict == Verdict.OK
    assert log.advisories([old]).verdict == Verdict.OK
    assert "2 gap" in log.advisories([old]).found
    news = log.advisories([old, facts.Told(kind="stuck", count=1, last_age_s=5)])
    assert news.verdict == Verdict.WARN
    assert "jobstate advisories" in news.next, "a verb of ours, which works where this one does"
    assert log.refused(0, 0).verdict == Verdict.OK
    assert log.refused(1, 0).verdict == Verdict.WARN


@pytest.mark.parametrize(
    ("version", "verdict", "profile"),
    [
        ("v1.4.0", "warn", "1.6-1.7"),
        ("v1.5.0", "ok", "1.5.0"),
        ("v1.5.2", "ok", "1.5.2"),
        ("v1.7.0", "ok", "1.6-1.7"),
        ("v1.9.3", "ok", "1.8+"),
        ("v1.10.0", "warn", "1.8+"),
        ("", "warn", None),
    ],
)
def test_a_release_says_the_profile(version: str, verdict: str, profile: Profile | None) -> None:
    """1.5 to 1.9 are known; others, and one that is not said, are told."""
    assert orchestrator.version(facts.Answer(address="", version=version)).verdict == verdict
    if version != "v1.4.0":
        assert orchestrator.profile_of(version) == profile


@pytest.mark.parametrize(
    ("ahead", "verdict"), [(0, "ok"), (-4, "ok"), (7, "warn"), (-59, "warn"), (60, "fail"), (-90, "fail")]
)
def test_clocks_may_differ_a_little(ahead: float, verdict: str) -> None:
    """5 seconds are told, a minute is a fault: of jobs that stand still a minute is the precision."""
    found = orchestrator.clock(facts.Answer(address="", ahead_s=ahead), 1.0)
    assert found.verdict == verdict
    assert "JetStream's" in found.found


def test_a_list_is_followed_by_a_pause_of_20_times_its_time() -> None:
    """0.3 s: a change without a frame is found within 6.6 s. With 0.8 s it is late, unless `scan.list` says so."""
    few = orchestrator.lists(facts.Listed(seconds=0.3), None)
    many = orchestrator.lists(facts.Listed(seconds=0.8), None)
    wanted = orchestrator.lists(facts.Listed(seconds=0.8), 30.0)
    assert "is found within 6.6 s" in few.found
    assert "20,000 stored jobs" in many.found
    assert "is found within 17.6 s" in many.found
    assert "large inputs" in many.next
    assert "is found within 31.6 s" in wanted.found
    assert [one.verdict for one in (few, many, wanted)] == [Verdict.OK, Verdict.WARN, Verdict.OK]
    assert orchestrator.lists(facts.Listed(fault=OrchestratorError("slow").fault), None).verdict == Verdict.FAIL


def test_a_list_that_is_whole_says_how_many_jobs_there_are() -> None:
    """Nothing is guessed of the time that a list took, where the list itself tells: of none, and of a few."""
    one = Snapshot(job=Identity(id="j-1", namespace="default"), count=1, version=1, revision=1, state="Running")
    none = orchestrator.lists(facts.Listed(seconds=0.0014, complete=True), None).found
    few = orchestrator.lists(facts.Listed(seconds=0.0014, jobs=(one, one), complete=True), None).found
    assert none == "it stores no job yet, and a list took 1 ms: a change that no frame tells of is found within 1.0 s"
    assert few == "a list of all 2 jobs took 1 ms: a change that no frame tells of is found within 1.0 s"


# -- the log beside the record ----------------------------------------------------------------------------------------


def record(*states: str, version: int = 1) -> tuple[HistoryEntry, ...]:
    """A history of these states, a minute apart, the last an hour before NOW."""
    first = NOW - timedelta(hours=1, minutes=len(states) - 1)
    return tuple(
        HistoryEntry(
            number=number, version=version, state=state, message="", time=first + timedelta(minutes=number - 1)
        )
        for number, state in enumerate(states, 1)
    )


def updates(
    *told: tuple[int | None, str], source: Source = OBSERVED, flags: tuple[str, ...] = ()
) -> tuple[Update, ...]:
    """Updates of these (revision, state)."""
    return tuple(
        Update(
            StateType=state,
            Job=Job(ID="j-1", Namespace="default", Version=1, Revision=revision),
            Previous=None,
            Sequence=sequence,
            Time=None,
            Source=source,
            Flags=flags if sequence == len(told) else (),
        )
        for sequence, (revision, state) in enumerate(told, 1)
    )


HISTORY: Final = record("Pending", "Queued", "Running", "Running", "Completed")


@pytest.mark.parametrize(
    ("told", "contradiction", "behind"),
    [
        (updates((1, "Pending"), (2, "Queued"), (3, "Running"), (5, "Completed")), "", 0),
        (updates((1, "Pending"), (2, "Queued")), "", 2),
        (updates((1, "Pending"), (2, "Queued"), (3, "Running")), "", 1),
        (updates((1, "Pending"), (2, "Running")), "revision 2 is Running in the log and Queued in the record", 0),
        (updates((1, "Pending"), (6, "Failed")), "the log is at revision 6, the record ends at 5", 0),
        (updates((1, "Pending"), (3, "Running")), "the log has left out 1 states between revisions 1 and 3", 0),
        (updates((1, "Pending"), (3, "Running"), flags=("skipped",)), "", 1),
        (updates((1, "Failed"), (5, "Completed"), flags=("corrected",)), "", 0),
        (updates((1, "Pending"), (3, "Running"), source=DERIVED), "", 1),
        (updates((None, "Running"), source=DERIVED), "", 1),
        (updates((None, "Failed"), source=DERIVED), "the log says Failed, the record never did", 0),
        (updates((9, "Failed"), source=REPORTED), "", 4),
    ],
)
def test_a_log_is_a_prefix_of_the_record_or_contradicts_it(
    told: tuple[Update, ...], contradiction: str, behind: int
) -> None:
    """Each update is the entry that it names, none is left out between two; equal neighbours are one."""
    standing = agreement.compare(facts.Pair(job="j-1", updates=told, entries=HISTORY))
    assert (standing.contradiction, standing.behind if not contradiction else 0) == (contradiction, behind)


def test_jobs_are_judged_together() -> None:
    """Known to nobody: another cluster. One unknown, one late, one lacking: told. One that differs: a fault."""
    right = facts.Pair(
        job="j-1", updates=updates((1, "Pending"), (2, "Queued"), (3, "Running"), (5, "Completed")), entries=HISTORY
    )
    late = facts.Pair(job="j-2", updates=updates((1, "Pending")), entries=HISTORY)
    wrong = facts.Pair(job="j-3", updates=updates((1, "Failed")), entries=HISTORY)
    gone = facts.Pair(job="j-4", updates=updates((1, "Pending")), entries=None)
    soon = (HISTORY[0], msgspec.structs.replace(HISTORY[1], time=NOW - timedelta(seconds=5)))
    fresh = facts.Pair(job="j-5", updates=updates((1, "Pending")), entries=soon)

    def judged(*pairs: facts.Pair, **more: object) -> Finding:
        return agreement.agrees(facts.Sample(pairs=pairs, **more), NOW)  # type: ignore[arg-type]

    assert verdicts(
        right=judged(right),
        fresh=judged(right, fresh),
        late=judged(right, late),
        wrong=judged(right, wrong),
        gone=judged(right, gone),
        other=judged(gone),
        lacking=judged(right, lacking=("j-6",)),
        trouble=judged(right, trouble="slow"),
        reports=judged(reported=3),
    ) == {
        "right": "ok",
        "fresh": "ok",
        "late": "warn",
        "wrong": "fail",
        "gone": "warn",
        "other": "fail",
        "lacking": "warn",
        "trouble": "warn",
        "reports": "skipped",
    }
    assert "1 a few states behind" in judged(right, fresh).found
    assert "j-2 (3 states since" in judged(right, late).found


def test_frames_are_laid_beside_the_orchestrators_release() -> None:
    """Frames of a later release than it says are of another cluster; older nodes beside it are no wonder."""
    some = facts.Heard(
        seconds=5, frames=2, kinds={FrameKind.ASK_FOR_BID: 2}, profiles={"1.8+": 1, "ncl": 1}, jobs=(("j-1", ""),)
    )
    assert verdicts(
        same=agreement.heard(some, "v1.9.3"),
        older=agreement.heard(some, "v1.6.1"),
        nodes=agreement.heard(msgspec.structs.replace(some, profiles={"1.5.2": 1}), "v1.7.0"),
        unsaid=agreement.heard(some, ""),
        quiet=agreement.heard(facts.Heard(seconds=5), "v1.9.3"),
        part=agreement.heard(msgspec.structs.replace(some, unread={"bad-crc": 1}), "v1.9.3"),
        all=agreement.heard(msgspec.structs.replace(some, unread={"bad-crc": 2}), "v1.9.3"),
        gaps=agreement.heard(msgspec.structs.replace(some, gaps=2), "v1.9.3"),
    ) == {
        "same": "ok",
        "older": "warn",
        "nodes": "ok",
        "unsaid": "ok",
        "quiet": "skipped",
        "part": "warn",
        "all": "fail",
        "gaps": "warn",
    }
    assert verdicts(
        all=agreement.known(some, facts.Looked(known=("j-1",))),
        none=agreement.known(some, facts.Looked(unknown=("j-1",))),
        some=agreement.known(some, facts.Looked(known=("j-1",), unknown=("j-2",))),
        trouble=agreement.known(some, facts.Looked(trouble="slow")),
    ) == {"all": "ok", "none": "fail", "some": "warn", "trouble": "warn"}


def test_a_daemon_that_says_what_was_found_already_is_no_second_fault() -> None:
    """Not ready by itself: a fault; after another one: told. None there: told. Another service: told."""
    unready = facts.Readiness(address="http://h", unready={"log": "no connection"})
    assert verdicts(
        alone=agreement.ready(unready, (), "main"),
        after=agreement.ready(unready, ("nats.reach",), "main"),
        ready=agreement.ready(facts.Readiness(address="http://h", ready=True), (), "main"),
        away=agreement.ready(facts.Readiness(address="http://h", away="connection refused"), (), "main"),
        alien=agreement.ready(facts.Readiness(address="http://h", alien=True), (), "main"),
        none=agreement.ready(None, (), "main"),
    ) == {"alone": "fail", "after": "warn", "ready": "ok", "away": "warn", "alien": "warn", "none": "skipped"}
    assert "log: no connection" in agreement.ready(unready, (), "main").found


@pytest.mark.parametrize("is_ready", [True, False])
def test_a_daemon_of_another_cluster_says_nothing_of_ours(is_ready: bool) -> None:
    """Ready or not, it is told whose it is, and what to do; ours, and an older one that does not say, are believed."""
    unready = {} if is_ready else {"log": "no connection"}
    found = facts.Readiness(address="http://h", cluster="lab", ready=is_ready, unready=unready)
    other = agreement.ready(found, (), "main")
    assert other.verdict == Verdict.WARN
    assert "follows the cluster lab, and these settings are of main" in other.found
    assert "start one for main; if one runs, set http.port" in other.next
    assert "no connection" not in other.found
    for whose in ("main", ""):
        ours = agreement.ready(msgspec.structs.replace(found, cluster=whose), (), "main")
        assert ours.verdict == (Verdict.OK if is_ready else Verdict.FAIL)


def test_numbers_are_said_for_eyes() -> None:
    """Bytes and seconds in the unit that fits."""
    assert [say_bytes(count) for count in (0, 1023, 1536, 5 * 1024**4)] == ["0 B", "1023 B", "1.5 KiB", "5.0 TiB"]
    said = [say_seconds(seconds) for seconds in (0.0123, 3.21, 119, 150, 7300, 200_000)]
    assert said == ["12 ms", "3.2 s", "119.0 s", "2 min", "2 h", "2 d"]
