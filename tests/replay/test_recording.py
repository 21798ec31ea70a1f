"""Loading a recording: all that is shared, and every way in which a path is none."""

import errno
import shutil
from pathlib import Path

import pytest

from consumer.errors import ExitCode, RecordingError
from consumer.replay.recording import Recording
from tests.replay.shared import ROOT, SCENARIOS, recording

SMALL = "bacalhau-v1.9.3/success"
VERSION = b'{"/api/v1/agent/version":{"GitVersion":"v1.9.3"}'
NO_HISTORY = (
    b'{"Job":{"ID":"j-1","Namespace":"default","Type":"batch","State":{"StateType":"Pending"},'
    b'"Revision":1,"CreateTime":1,"ModifyTime":1}}'
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A recording that may be broken."""
    return Path(shutil.copytree(ROOT / SMALL, tmp_path / "success"))


def test_every_frame_of_every_recording_is_read() -> None:
    """74 recordings of five releases hold 2,823 frames, in order of arrival, with times, bytes and headers."""
    recordings = [recording(scenario) for scenario in SCENARIOS]
    frames = [frame for one in recordings for frame in one.frames]
    assert len(frames) == 2823
    assert sum(frame.headers is not None for frame in frames) == 1855
    assert all(frame.data for frame in frames)
    assert {one.release for one in recordings} == {"v1.5.0", "v1.5.2", "v1.6.1", "v1.7.0", "v1.9.3"}
    for one in recordings:
        assert [frame.t for frame in one.frames] == sorted(frame.t for frame in one.frames)


def test_a_frame_is_what_was_on_the_wire() -> None:
    """The first frame of `success` is an NCL envelope of json-v1 that asked for an answer."""
    frame = recording(SMALL).frames[0]
    assert frame.subject == "bacalhau.global.compute.n-c1.in.msgs"
    assert frame.reply
    assert frame.headers is not None
    assert frame.headers["Bacalhau-Type"] == "AskForBid"
    assert frame.data[:5].hex() == "0180b515fe"


def test_files_as_windows_writes_them_are_read(copy: Path) -> None:
    """A byte-order mark and CRLF change nothing of a recording."""
    for file in copy.iterdir():
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    read, original = Recording.load(copy), recording(SMALL)
    assert (read.frames, read.documents, read.start_ns) == (original.frames, original.documents, original.start_ns)


def test_frames_and_record_are_on_one_clock() -> None:
    """The record's rows and the frames lie within the same seconds, first to last."""
    one = recording(SMALL)
    rows = [(t_ns - one.start_ns) / 1e9 for job in one.jobs for t_ns in job.row_ns]
    assert one.first_t == min([*rows, one.frames[0].t])
    assert one.last_t == max([*rows, one.frames[-1].t])
    assert 0 <= one.first_t < one.last_t < 5
    assert one.ns_of(1.5) == one.start_ns + 1_500_000_000


def test_jobs_of_odd_namespaces_are_found() -> None:
    """Paths with an escaped namespace are the same job's as those without."""
    assert {job.namespace for job in recording("bacalhau-v1.9.3/namespaces").jobs} >= {"team.b > *", "ops team/x"}


def test_a_recording_keeps_the_name_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a slash at its end or without, relative or not: the name is the path as given, the content the same."""
    monkeypatch.chdir(ROOT)
    plain, slashed = Recording.load(SMALL), Recording.load(SMALL + "/")
    assert (plain.name, slashed.name) == (SMALL, SMALL + "/")
    assert plain.frames == slashed.frames == recording(SMALL).frames


def test_only_frames_documents_and_clock_are_needed(copy: Path) -> None:
    """What was done and what polling saw is for people; a recording is one without them."""
    (copy / "scenario.json").unlink()
    (copy / "rest.jsonl").unlink()
    assert Recording.load(copy).jobs == recording(SMALL).jobs


@pytest.mark.parametrize("path", ["", ".", "/nowhere", str(ROOT / "README.md"), str(ROOT), "a\0b"])
def test_a_path_that_is_no_recording_is_named(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 3: what was named is not what it should be."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecordingError, match="no recording") as caught:
        Recording.load(path)
    assert str(caught.value).startswith(path)
    assert caught.value.exit_code == ExitCode.NO_INPUT


@pytest.mark.parametrize("file", ["messages.jsonl", "final.json", "clock.json"])
def test_a_missing_file_is_named(copy: Path, file: str) -> None:
    """Each of the three files is needed."""
    (copy / file).unlink()
    with pytest.raises(RecordingError, match=f"no file {file}"):
        Recording.load(copy)


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("final.json", b"{", "truncated"),
        ("final.json", b"[]", "Expected `object`"),
        ("final.json", b"{}", "agent/version is missing"),
        ("final.json", b'{"/api/v1/agent/version":{}}', "GitVersion"),
        ("final.json", b"[" * 100_000, "final.json"),
        ("final.json", VERSION + b',"/api/v1/orchestrator/jobs/j-1":{"Job":{"ID":"j-1"}}}', "Namespace"),
        ("final.json", VERSION + b',"/api/v1/orchestrator/jobs/j-1":' + NO_HISTORY + b"}", "no job-level history"),
        ("clock.json", b"{}", "start_ns"),
        ("clock.json", b'{"start_ns":"now"}', "Expected `int`"),
        ("clock.json", b"\xff", "clock.json"),
        ("messages.jsonl", b'{"t":1,"subject":"a","data":"YQ=="}\n{"t":', "line 2"),
        ("messages.jsonl", b'{"t":1,"subject":"a","data":"no base64"}', "line 1"),
        ("messages.jsonl", b'{"t":1,"data":"YQ=="}', "line 1.*subject"),
        ("messages.jsonl", b'{"t":NaN,"subject":"a","data":"YQ=="}', "line 1"),
    ],
)
def test_a_broken_file_is_named_with_the_reason(copy: Path, file: str, content: bytes, reason: str) -> None:
    """Broken JSON, a wrong shape, a cut line: the error says where and why."""
    (copy / file).write_bytes(content)
    with pytest.raises(RecordingError, match=reason) as caught:
        Recording.load(copy)
    assert file in str(caught.value)


def test_a_file_that_may_not_be_read_is_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's reason, with the path once."""

    def read(file: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(file))

    monkeypatch.setattr(Path, "read_bytes", read)
    with pytest.raises(RecordingError) as caught:
        Recording.load(copy)
    assert str(caught.value) == f"{copy / 'final.json'}: Permission denied"
