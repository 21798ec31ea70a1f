"""The pages say what the program does: its exit codes, its metrics, its bodies; and their links lead somewhere."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from consumer.cli.display import say_time, shorten_time
from consumer.cli.verbs import VERBS, Verb
from consumer.doctor.finding import CHECKS
from consumer.errors import ExitCode
from consumer.model import NOTICE_KINDS, InputPosition
from consumer.observe import Metrics
from consumer.replay.recording import Recording
from consumer.replay.virtual import VirtualReplay
from consumer.rules import load
from consumer.wire import decode_report, decode_update, encode_update, entries
from consumer.wire.decoding import ID_MAX, NAME_MAX, TEXT_MAX
from consumer.wire.subjects import Names

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])

_CODE = re.compile(r"^\| (\d+) \| `([A-Z_]+)` \|", re.MULTILINE)
_METRIC = re.compile(r"^\| `(jobstate_\w+)` \| ([^|]*)\|", re.MULTILINE)
_BODY = re.compile(r"^```json (\w+)\n(.+)\n```$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_CITED = re.compile(r"design/(\w+)\.md((?:(?:,| and| to)? \d+(?:\.\d+)*(?![\w.]*\w))*)")
_SECTION = re.compile(r"^#+ (\d+(?:\.\d+)*)\.? ", re.MULTILINE)


def _reread(decode: Callable[[bytes], object]) -> Callable[[bytes], bytes]:
    return lambda data: msgspec.json.encode(decode(data))


def _reread_report(data: bytes) -> bytes:
    report = decode_report(Names(), "jobstate.v1.main.in.default.my-job", data, InputPosition(1, 1))
    return b"" if report.problem else data


REREAD: dict[str, Callable[[bytes], bytes]] = {
    "update": lambda data: encode_update(decode_update(data)),
    "report": _reread_report,
    "quarantine": _reread(entries.decode_quarantine),
    "undecodable": _reread(entries.decode_undecodable),
    "advisory": _reread(entries.decode_advisory),
    "format": _reread(entries.decode_format),
    "checkpoint": lambda data: entries.encode_checkpoint(entries.decode_checkpoint(data)),
}
"""Of each kind of body: what comes of it when it is decoded and written again."""


def test_every_exit_code_is_told_with_what_to_do() -> None:
    """docs/operations/exit-codes.md has each `ExitCode` by number and name, and no other."""
    page = (DOCS / "operations/exit-codes.md").read_text(encoding="utf-8")
    told = {int(number): name for number, name in _CODE.findall(page)}
    assert told == {code.value: code.name for code in ExitCode}


def test_every_metric_is_told_with_its_labels() -> None:
    """docs/operations/running.md has each metric as Prometheus names it, its labels in order, and no other."""
    metrics = Metrics()
    exposed = {}
    for family in metrics.registry.collect():
        if family.name.startswith("jobstate_"):
            exposed[family.name + ("_total" if family.type == "counter" else "")] = ""
    for part in vars(metrics).values():
        inner = getattr(part, "_metric", None)
        if inner is not None:
            name = inner._name + ("_total" if inner._type == "counter" else "")
            exposed[name] = ", ".join(f"`{label}`" for label in inner._labelnames)
    page = (DOCS / "operations/running.md").read_text(encoding="utf-8")
    assert {name: labels.strip() for name, labels in _METRIC.findall(page)} == exposed


def test_every_kind_of_advisory_is_told() -> None:
    """docs/guide/promise.md says of each kind what it means and what to do, in their order, and of no other."""
    page = (DOCS / "guide/promise.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[a-z`, ]+`) \|", page.partition("## Advisories")[2], re.MULTILINE)
    assert [kind for row in rows for kind in re.findall(r"`(\w+)`", row)] == list(NOTICE_KINDS)


def test_every_body_that_is_shown_is_one() -> None:
    """Each example in docs/reference/streams.md, decoded and written again, is the same; each kind has one."""
    shown = _BODY.findall((DOCS / "reference/streams.md").read_text(encoding="utf-8"))
    for kind, body in shown:
        assert REREAD[kind](body.encode()).decode() == body
    assert {kind for kind, _ in shown} == set(REREAD)


def test_the_bounds_of_texts_are_told() -> None:
    """Where a name or a message is cut, or refused, a reader can see that it is."""
    page = (DOCS / "reference/streams.md").read_text()
    assert NAME_MAX == ID_MAX
    assert page.count(f"{NAME_MAX:,} characters") == 2  # of a record, and of a report
    assert page.count(f"{TEXT_MAX:,} characters") == 1


def test_the_update_of_the_readme_is_one() -> None:
    """The body that README.md explains decodes as an update."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    body = next(line for line in readme.splitlines() if line.startswith('{"StateType"'))
    assert decode_update(body.encode()).Sequence == 7


def test_the_readme_explains_every_flag() -> None:
    """The table of flags in README.md has those of docs/reference/streams.md."""
    flag = re.compile(r"^\| `([a-z]+)` \|", re.MULTILINE)
    readme = (ROOT / "README.md").read_text(encoding="utf-8").partition("| flag |")[2].partition("\n\n")[0]
    streams = (DOCS / "reference/streams.md").read_text(encoding="utf-8").partition("| flag |")[2].partition("\n\n")[0]
    assert set(flag.findall(readme)) == set(flag.findall(streams))
    assert len(flag.findall(readme)) >= 5


def test_each_guarantee_of_the_readme_names_its_exceptions() -> None:
    """Where a guarantee has exceptions, it names the flags that mark them: a reader must not find out by surprise."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    promises = {
        title: text
        for title, text in re.findall(r"(?s)^- \*\*([^*]+)\.\*\* (.*?)(?=^- |\n\n)", readme, re.MULTILINE)
        if "Exception" in text
    }
    excepted = {title: set(re.findall(r"`(\w+)`", text)) for title, text in promises.items()}
    assert excepted == {
        "Truth": {"corrected"},
        "Finished is final": {"corrected"},
        "Each state once": {"message", "corrected"},
    }
    assert "- **Nothing lost, nothing doubled.**" in readme


def test_numbers_in_the_readme_are_those_of_the_program() -> None:
    """The exit codes that it names, and about how many checks `jobstate doctor` has."""
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"it lists them and exits {ExitCode.AMBIGUOUS:d}" in readme
    assert f"{ExitCode.WRONG:d}: it failed or was stopped, {ExitCode.TIMEOUT:d}: timeout" in readme
    assert "about forty read-only checks" in readme
    assert 35 <= len(CHECKS) <= 45


def test_every_verb_is_shown_somewhere() -> None:
    """Whoever reads the pages meets each verb of the command line."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [verb for verb in VERBS if f"jobstate {verb}" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    """A link to a page of ours names a file that is there, and a heading that it has."""
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in _anchors(target), f"{page.name}: {link}"


_CALL = re.compile(r"(?<![\w/.-])jobstate ([a-z]+)\b([^`\n#|]*)")
_OPTION = re.compile(r"(?<![\w-])(--?[a-z][a-z-]*)")
_TARGET = re.compile(r"(?:^|[`;&(] ?)make ([a-z][a-z-]*)\b", re.MULTILINE)
_CODE_BLOCK = re.compile(r"(?s)```\w*\n(.*?)```")
_CODE_SPAN = re.compile(r"`([^`\n]+)`")


def test_every_command_line_that_a_page_shows_is_one() -> None:
    """Each option behind `jobstate VERB` is one that the verb has, so that a reader can type it."""
    shown, unknown = set(), []
    for page, code in _code():
        for name, rest in _CALL.findall(code):
            if name not in VERBS:
                continue
            command: Any = Verb(name, *VERBS[name]).load()
            inner = getattr(command, "commands", {})
            words = rest.split()
            known = command if not inner else inner.get(words[0] if words else "", command)
            options = {option for parameter in known.params for option in parameter.opts} | {"-h", "--help"}
            shown.add(name)
            unknown += [f"{page.name}: {name} {one}" for one in _OPTION.findall(rest) if one not in options]
    assert unknown == []
    assert {"list", "get", "history", "watch", "wait", "send", "quarantine", "run", "doctor", "demo"} <= shown


def test_every_target_that_a_page_shows_is_one() -> None:
    """Each `make TARGET` in code names a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    shown = {target for _, code in _code() for target in _TARGET.findall(code)}
    assert {"demo", "test", "install"} <= shown
    assert shown - targets - {"test-lowest", "test-newest"} == set()


def _code() -> Iterator[tuple[Path, str]]:
    """Each block and each span of code in the pages."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in _CODE_BLOCK.findall(text):
            yield page, block
        for span in _CODE_SPAN.findall(_CODE_BLOCK.sub("", text)):
            yield page, span


def _anchors(page: Path) -> set[str]:
    """The names that GitHub gives to the headings of *page*."""
    headings = _HEADING.findall(page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_index_of_decisions_has_each_by_its_title() -> None:
    """docs/decisions/README.md lists every page beside it, in order, with the title that the page has."""
    folder = DOCS / "decisions"
    rows = re.findall(r"^\| \[(\d{4})\]\(([\w-]+\.md)\) \| (.+) \|$", (folder / "README.md").read_text(), re.MULTILINE)
    pages = sorted(page for page in folder.glob("*.md") if page.name != "README.md")
    assert [name for _, name, _ in rows] == [page.name for page in pages]
    assert [f"# {number}: {title}" for number, _, title in rows] == [page.read_text().splitlines()[0] for page in pages]


def test_every_citation_of_a_design_page_resolves() -> None:
    """Where code, tests or pages cite a section of a design page, that page exists and has that section."""
    pages = (DOCS / "design").glob("*.md")
    sections = {page.stem: set(_SECTION.findall(page.read_text(encoding="utf-8"))) for page in pages}
    cited = [(file, name, numbers) for file in _sources() for name, numbers in _CITED.findall(_read_joined(file))]
    lost = [
        f"{file.relative_to(ROOT)}: design/{name}.md {number}"
        for file, name, numbers in cited
        for number in re.findall(r"[\d.]+", numbers) or [""]
        if name not in sections or (number and number not in sections[name])
    ]
    assert lost == []
    assert {name for _, name, numbers in cited if numbers} == {"bacalhau", "design", "nats"}


def test_no_page_is_cited_that_readers_do_not_have() -> None:
    """The upper-case documents that the design pages came from are cited nowhere: they are not in the repository."""
    gone = re.compile("|".join(rf"\b{name}\.md" for name in ("DESIGN", "BACALHAU", "NATS")))
    assert [str(file.relative_to(ROOT)) for file in _sources() if gone.search(file.read_text(encoding="utf-8"))] == []


def _sources() -> list[Path]:
    """Every file of ours that may cite a page."""
    code = [file for folder in ("consumer", "tests", "docs", "config") for file in (ROOT / folder).rglob("*.*")]
    return [file for file in [*code, *PAGES] if file.suffix in {".py", ".md", ".toml"}]


def _read_joined(file: Path) -> str:
    """The text of *file* with its line breaks (and comment marks) folded, so that a wrapped citation is whole."""
    return re.sub(r"\s*\n\s*#?\s*", " ", file.read_text(encoding="utf-8"))


def test_the_transcript_in_the_readme_is_what_the_recordings_say() -> None:
    """Each row, from its time to its source, is one of the recordings; further lines are of their messages."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    command, head, *lines = re.findall(r"(?s)```console\n(.*?)\n```", readme)[0].splitlines()
    scenarios = [ROOT / "tests/recordings/bacalhau-v1.9.3" / name for name in ("queued_then_runs", "rerun")]
    updates = [
        update
        for scenario in scenarios
        for update in (one.update for _, one in VirtualReplay(Recording.load(scenario), load()).run().published)
    ]
    told = {
        (
            *shorten_time(say_time(one.Time), datetime(2027, 1, 1, tzinfo=UTC)).split(),
            one.StateType,
            one.Job.Namespace,
            one.Job.ID[:10],
            one.Job.Name,
            str(one.Sequence),
            str(one.Job.Version),
            one.Source,
        )
        for one in updates
    }
    messages = {line.strip() for one in updates for line in one.Message.splitlines()}
    assert command == "$ jobstate watch --since start --job wait-for-node --job rerun-failed"
    assert head.split() == ["TIME", "STATE", "NAMESPACE", "JOB", "NAME", "SEQ", "VER", "SOURCE", "MESSAGE"]
    rows = [line.split() for line in lines if not line.startswith(" ")]
    assert len(rows) >= 10
    assert {tuple(row[:9]) for row in rows} <= told
    assert {line.strip() for line in lines if line.startswith(" ")} <= messages
