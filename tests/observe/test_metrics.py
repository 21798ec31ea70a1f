"""What is counted, under which names, and that labels stay few."""

import ast
from pathlib import Path

from prometheus_client import Counter, Gauge
from prometheus_client.parser import text_string_to_metric_families

import consumer
from consumer.bacalhau import tap
from consumer.core.flight import Tally
from consumer.faults import NEXT_STEP
from consumer.model import NOTICE_KINDS, REJECTED_REASONS, UNCHANGED_REASONS, ReadCause
from consumer.observe import Metrics
from consumer.observe.metrics import OTHER, SURPRISES, TAP_GAPS, Family
from consumer.rules import load


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What a scrape would read: (name, labels) -> value."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.expose().decode())
        for sample in family.samples
    }


def test_a_decision_is_counted_under_its_labels() -> None:
    """The scrape shows what was counted, label by label."""
    metrics = Metrics()
    metrics.decisions("accepted", "").inc(3)
    metrics.decisions("rejected", "after-terminal").inc()
    found = samples(metrics)
    assert found["jobstate_decisions_total", (("decision", "accepted"), ("reason", ""))] == 3
    assert found["jobstate_decisions_total", (("decision", "rejected"), ("reason", "after-terminal"))] == 1


def test_two_of_them_share_nothing() -> None:
    """There is no global registry: a second daemon in one process counts for itself."""
    one, other = Metrics(), Metrics()
    one.tap_drops.inc()
    assert samples(one)["jobstate_tap_drops_total", ()] == 1
    assert samples(other)["jobstate_tap_drops_total", ()] == 0


def test_what_is_to_rise_begins_at_0() -> None:
    """Each series of each counter is there before its first event: Prometheus sees it rise."""
    rules = load()
    # fewer values than there are kinds of advisories
    metrics = Metrics(label_values=8, states=rules.states, read_faults=NEXT_STEP)
    counters = [value for value in vars(metrics).values() if isinstance(value, Family)]
    counters = [family for family in counters if isinstance(family._metric, Counter)]
    found = samples(metrics)
    for family in counters:
        series = {labels for name, labels in found if name == f"{family._metric._name}_total"}
        assert series, f"{family._metric._name} appears only with its first event"
        assert {found[f"{family._metric._name}_total", labels] for labels in series} == {0}
        assert OTHER not in {value for labels in series for _, value in labels}
    assert len(counters) == 13
    for name, labels in (
        ("advisories", {"kind": "stuck"}),
        ("appends", {"stream": "log", "outcome": "lost"}),
        ("deaf", {"connection": "tap"}),
        ("decisions", {"decision": "rejected", "reason": "after-terminal"}),
        ("frames", {"kind": "RunResult", "profile": "1.8+"}),
        ("reads", {"kind": "history", "cause": "hint", "outcome": "unreachable"}),
        ("reads", {"kind": "list", "cause": "scan", "outcome": "slow"}),
        ("reconnects", {"connection": "writer"}),
        ("slow_consumers", {"connection": "reader"}),
        ("streams_lost", {"stream": "log"}),
        ("surprises", {"kind": "foreign"}),
        ("tap_gaps", {"cause": "denied"}),
        ("undecodable", {"reason": "not-utf8", "source": "report"}),
        ("updates", {"state": "Failed", "source": "observed"}),
    ):
        assert found[f"jobstate_{name}_total", tuple(sorted(labels.items()))] == 0


def test_a_scrape_stays_small() -> None:
    """What is there from the beginning: below 1,000 series and 100 kB, whatever the cluster does."""
    metrics = Metrics(states=load().states, read_faults=NEXT_STEP)
    assert len(samples(metrics)) < 1_000
    assert len(metrics.expose()) < 100_000


def test_what_begins_at_0_is_what_the_daemon_counts() -> None:
    """The kinds of every `Notice` that is made, and what the lanes count as a surprise."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in Path(consumer.__path__[0]).rglob("*.py")]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    notices = [call.keywords for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Notice"]
    kinds = {ast.literal_eval(keyword.value) for keywords in notices for keyword in keywords if keyword.arg == "kind"}
    assert kinds == set(NOTICE_KINDS)
    assert set(SURPRISES) < set(Tally.__struct_fields__)
    made = [call for call in calls if isinstance(call.func, ast.Name)]
    for kind, reasons in (("Unchanged", UNCHANGED_REASONS), ("Rejected", REJECTED_REASONS)):
        given = [key.value for call in made if call.func.id == kind for key in call.keywords if key.arg == "reason"]  # type: ignore[attr-defined]
        assert {leaf.value for one in given for leaf in ast.walk(one) if isinstance(leaf, ast.Constant)} == set(reasons)
    gaps = (tap.LATE, tap.RECONNECT, tap.RESTART, tap.SERVER_CHANGE, tap.LAME_DUCK, tap.SILENT, tap.DEAD_READER)
    assert {*gaps, tap.SLOW_CONSUMER, tap.DENIED} == set(TAP_GAPS)


def test_label_values_are_bounded() -> None:
    """Whatever the world sends as a type or reason, a label has so many values and then `other`; nothing is lost."""
    metrics = Metrics(label_values=8)
    for number in range(10_000):
        metrics.updates(f"state-{number}", "observed").inc()
        metrics.decisions("undecodable", f"reason-{number}").inc()
    found = {labels: value for (name, labels), value in samples(metrics).items() if name == "jobstate_updates_total"}
    assert len(found) == 8 + 1
    assert found[("source", "observed"), ("state", OTHER)] == 10_000 - 8
    assert len(metrics.updates._children) == 8
    assert samples(metrics)["jobstate_decisions_total", (("decision", "undecodable"), ("reason", OTHER))] == 10_000


def test_a_huge_label_value_is_other() -> None:
    """Nobody but us chooses how large a scrape is."""
    metrics = Metrics()
    metrics.updates("x" * 1_000, "observed").inc()
    assert ("jobstate_updates_total", (("source", "observed"), ("state", OTHER))) in samples(metrics)


def test_every_metric_is_ours_and_explained() -> None:
    """Names begin with `jobstate_`, each has a sentence, and no label could hold a job's name."""
    metrics = Metrics()
    for family in metrics.registry.collect():
        if family.name.startswith(("process_", "python_")):
            continue
        assert family.name.startswith("jobstate_")
        assert family.documentation.endswith(".")
    families = [value for value in vars(metrics).values() if isinstance(value, Family)]
    assert len(families) >= 10
    labels = {label for family in families for label in family._metric._labelnames}
    assert labels.isdisjoint({"job", "job_id", "namespace", "name", "message", "execution", "node"})


def test_a_gauge_may_be_asked_when_it_is_read() -> None:
    """What is a look at a length needs no counting: the scrape looks."""
    metrics = Metrics()
    lanes = {"a": 1, "b": 2}
    metrics.lanes_active.set_function(lambda: len(lanes))
    assert samples(metrics)["jobstate_lanes_active", ()] == 2
    assert isinstance(metrics.lanes_active, Gauge)
    assert isinstance(metrics.resends, Counter)


def test_a_histogram_has_buckets_for_milliseconds_and_for_a_minute() -> None:
    """5 ms and 100 ms, which the aims name, are limits of buckets."""
    metrics = Metrics()
    metrics.lag(ReadCause.HINT).observe(0.004)
    found = samples(metrics)
    assert found["jobstate_lag_seconds_bucket", (("cause", "hint"), ("le", "0.005"))] == 1
    assert found["jobstate_lag_seconds_bucket", (("cause", "hint"), ("le", "0.0025"))] == 0
    assert ("jobstate_lag_seconds_bucket", (("cause", "hint"), ("le", "0.1"))) in found
