"""Which entries of a job are true, and which are foreign: `consumer.core.verify`."""

from typing import Any

import msgspec
import pytest

from consumer.core.appends import Entry
from consumer.core.verify import NOTHING, is_guarded, read_position, verify_all, verify_last
from consumer.model import NOWHERE, REPORTED, InputPosition, Job, JobKey, Update
from consumer.wire.subjects import Names
from consumer.wire.update import encode_update

NAMES = Names()
KEY = JobKey("default.j-1")


def entry(
    number: int,
    sequence: int,
    state: str,
    *,
    previous: str | None = None,
    expected: int | None = None,
    job: str = "j-1",
    report: str = "",
) -> Entry:
    """An update of ours as the log's entry *number*."""
    update = Update(
        StateType=state,
        Job=Job(ID=job, Namespace="default"),
        Previous=previous,
        Sequence=sequence,
        Time=None,
        Source=REPORTED,
    )
    return Entry(
        number=number,
        subject=NAMES.state(KEY, state),
        body=encode_update(update),
        input=report,
        expected=expected,
        filter=NAMES.states(KEY),
    )


def stranger(number: int, state: str = "Running", *, expected: int | None = None) -> Entry:
    """What somebody else published under the job's subject."""
    return Entry(
        number=number,
        subject=NAMES.state(KEY, state),
        body=b'{"hello":1}',
        expected=expected,
        filter=NAMES.states(KEY),
    )


PENDING = entry(4, 1, "Pending", expected=0)
RUNNING = entry(6, 2, "Running", previous="Pending", expected=4)

IMITATIONS: dict[str, dict[str, Any]] = {
    "no headers": {"expected": None, "filter": ""},
    "no number": {"expected": None},
    "no filter": {"filter": ""},
    "its own subject as filter": {"filter": RUNNING.subject},
    "all jobs as filter": {"filter": f"{NAMES.state_prefix}*.*.*"},
    "a number before": {"expected": 3},
    "a number from after": {"expected": 6},
    "another state before it": {"body": entry(6, 2, "Running", previous="Queued").body},
    "no state before it": {"body": entry(6, 2, "Running").body},
}
"""What is wrong with an entry that else is exactly the job's next."""


class TestAll:
    """By all of a job's entries."""

    def test_no_entry_is_nothing(self) -> None:
        """A job without entries is not known, and its first update expects 0."""
        assert verify_all(NAMES, KEY, []) == NOTHING

    def test_the_last_true_one_is_known(self) -> None:
        """Entries that count from 1 are ours; the last one says where the job stands."""
        truth = verify_all(NAMES, KEY, [PENDING, RUNNING])
        assert truth.known is not None
        assert (truth.known.number, truth.known.sequence, truth.known.state) == (6, 2, "Running")
        assert (truth.number, truth.foreign) == (6, ())

    def test_a_body_that_is_no_update_is_foreign(self) -> None:
        """Its content is ignored, its number is what the next compare-and-set expects."""
        truth = verify_all(NAMES, KEY, [PENDING, stranger(7, expected=4)])
        assert truth.known is not None
        assert (truth.known.state, truth.known.number, truth.number) == ("Pending", 7, 7)
        assert truth.foreign == (7,)

    def test_a_sequence_that_does_not_follow_is_foreign(self) -> None:
        """A hole, and a copy of an older update, are nobody's of ours; what follows the true one is."""
        entries = [
            entry(1, 1, "Pending", expected=0),
            entry(2, 3, "Failed", previous="Pending", expected=1),
            entry(3, 1, "Pending", expected=2),
            entry(4, 2, "Running", previous="Pending", expected=3),
        ]
        truth = verify_all(NAMES, KEY, entries)
        assert truth.known is not None
        assert (truth.known.sequence, truth.known.state) == (2, "Running")
        assert truth.foreign == (2, 3)

    def test_a_body_of_another_job_is_foreign(self) -> None:
        """Subject and body must say the same."""
        truth = verify_all(NAMES, KEY, [entry(3, 1, "Pending", job="j-2", expected=0)])
        assert (truth.known, truth.number, truth.foreign) == (None, 3, (3,))

    def test_the_last_covered_report_goes_along(self) -> None:
        """An entry without `Jobstate-Input` leaves what the one before it covered."""
        truth = verify_all(NAMES, KEY, [msgspec.structs.replace(PENDING, input="5@50"), RUNNING])
        assert truth.known is not None
        assert truth.known.input == InputPosition(50, 5)

    @pytest.mark.parametrize("wrong", IMITATIONS.values(), ids=IMITATIONS)
    def test_an_imitation_that_is_wrong_in_one_thing_is_foreign(self, wrong: dict[str, Any]) -> None:
        """`Sequence`, subject and body follow: that is not enough, and ours goes behind it."""
        ours = entry(9, 2, "Queued", previous="Pending", expected=6)
        truth = verify_all(NAMES, KEY, [PENDING, msgspec.structs.replace(RUNNING, **wrong), ours])
        assert truth.known is not None
        assert (truth.known.state, truth.number, truth.foreign) == ("Queued", 9, (6,))

    def test_the_first_is_imitated_no_better(self) -> None:
        """Without headers, with a number though nothing stands there, or with a state before it."""
        for wrong in ({"expected": None}, {"expected": 5}, {"body": entry(4, 1, "Pending", previous="Queued").body}):
            assert verify_all(NAMES, KEY, [msgspec.structs.replace(PENDING, **wrong)]).foreign == (4,)

    def test_one_that_fits_in_every_respect_is_taken_for_ours(self) -> None:
        """Nobody could tell: it is what one of ours would have written."""
        assert verify_all(NAMES, KEY, [PENDING, RUNNING]).foreign == ()

    def test_what_follows_an_entry_that_is_gone_is_true(self) -> None:
        """An operator who removes a stranger's entry takes nothing away from ours after it."""
        ours = entry(9, 2, "Running", previous="Pending", expected=7)
        truth = verify_all(NAMES, KEY, [PENDING, stranger(7, expected=4), ours])
        assert truth.foreign == (7,)
        assert verify_all(NAMES, KEY, [PENDING, ours]) == msgspec.structs.replace(truth, foreign=())


class TestLast:
    """By the last entry of each of the job's state subjects: what a start reads."""

    def test_no_entry_is_nothing(self) -> None:
        """A job without entries needs no other look."""
        assert verify_last(NAMES, KEY, []) == NOTHING

    def test_a_first_update_is_enough(self) -> None:
        """Sequence 1, stored after nothing, is the whole truth."""
        truth = verify_last(NAMES, KEY, [msgspec.structs.replace(PENDING, input="5@50")])
        assert truth is not None
        assert truth.known is not None
        assert (truth.known.number, truth.known.state, truth.known.input) == (4, "Pending", InputPosition(50, 5))

    def test_two_that_follow_are_enough(self) -> None:
        """The last one says what the one before it was, and was stored directly after it."""
        truth = verify_last(NAMES, KEY, [PENDING, RUNNING])
        assert truth is not None
        assert truth.known is not None
        assert (truth.known.number, truth.known.sequence) == (6, 2)

    def test_a_stranger_on_top_needs_all(self) -> None:
        """What the last entry hides only all entries can tell."""
        assert verify_last(NAMES, KEY, [entry(4, 1, "Pending", expected=0), stranger(6, expected=4)]) is None

    def test_a_stranger_below_needs_all(self) -> None:
        """The one before the last must be ours as well."""
        entries = [stranger(4, "Pending", expected=0), entry(6, 2, "Running", previous="Pending", expected=4)]
        assert verify_last(NAMES, KEY, entries) is None

    def test_the_server_must_have_seen_that_it_follows(self) -> None:
        """Without the compare-and-set of the entry before, a copy could stand on top of a later update of ours."""
        for expected in (None, 0, 3):
            last = entry(6, 2, "Running", previous="Pending", expected=expected)
            assert verify_last(NAMES, KEY, [entry(4, 1, "Pending", expected=0), last]) is None

    def test_a_hole_needs_all(self) -> None:
        """A sequence that does not follow, or a first entry that is no first, is not believed."""
        later = entry(6, 3, "Running", previous="Pending", expected=4)
        assert verify_last(NAMES, KEY, [entry(4, 1, "Pending", expected=0), later]) is None
        assert verify_last(NAMES, KEY, [entry(4, 2, "Running", expected=0)]) is None

    def test_another_previous_state_needs_all(self) -> None:
        """An update that names another state before it than stands there is not believed."""
        entries = [entry(4, 1, "Pending", expected=0), entry(6, 2, "Running", previous="Queued", expected=4)]
        assert verify_last(NAMES, KEY, entries) is None

    @pytest.mark.parametrize("wrong", IMITATIONS.values(), ids=IMITATIONS)
    def test_an_imitation_needs_all(self, wrong: dict[str, Any]) -> None:
        """As the last of the job, and with one of ours on top of it."""
        imitation = msgspec.structs.replace(RUNNING, **wrong)
        assert verify_last(NAMES, KEY, [PENDING, imitation]) is None
        for sequence, previous in ((2, "Pending"), (3, "Running")):
            ours = entry(9, sequence, "Queued", previous=previous, expected=6)
            assert verify_last(NAMES, KEY, [PENDING, imitation, ours]) is None

    def test_what_hides_others_of_ours_is_believed_as_long_as_they_can_be_there(self) -> None:
        """Running, Queued, Running again: the first is hidden by the third, and the second says that there was one."""
        queued = entry(7, 3, "Queued", previous="Running", expected=6)
        again = entry(8, 4, "Running", previous="Queued", expected=7)
        truth = verify_last(NAMES, KEY, [PENDING, queued, again])
        assert truth is not None
        assert truth.known is not None
        assert truth.known.sequence == 4
        too_few = entry(7, 2, "Queued", previous="Running", expected=6)
        assert (
            verify_last(NAMES, KEY, [PENDING, too_few, entry(8, 3, "Running", previous="Queued", expected=7)]) is None
        )

    def test_an_imitation_that_another_goes_behind_needs_all(self) -> None:
        """Two strangers' entries may follow one another: the first of them does not follow ours."""
        first = entry(9, 7, "Queued", previous="Running", expected=6)
        second = entry(10, 8, "Failed", previous="Queued", expected=9)
        assert verify_last(NAMES, KEY, [PENDING, RUNNING, first, second]) is None
        assert verify_all(NAMES, KEY, [PENDING, RUNNING, first, second]).foreign == (9, 10)


def test_a_position_is_read_or_is_nowhere() -> None:
    """`<sequence>@<time>`; whatever else stands there covers no report."""
    assert read_position("5@50") == InputPosition(50, 5)
    for text in ("", "5", "@", "5@", "@50", "-5@50", "5@5.0", "a@b", "9" * 40 + "@1"):
        assert read_position(text) == NOWHERE


@pytest.mark.parametrize(
    ("fields", "guarded"),
    [
        ({}, True),
        ({"expected": 0}, True),
        ({"expected": None}, False),
        ({"expected": 6}, False),
        ({"filter": "a.*"}, False),
        ({"filter": ""}, False),
    ],
)
def test_ours_was_stored_over_its_own_subject(fields: dict[str, Any], *, guarded: bool) -> None:
    """Checkpoint and format: a compare-and-set over just that subject, after an entry before it."""
    ours = Entry(number=6, subject="a.b", body=b"", expected=5, filter="a.b")
    assert is_guarded(msgspec.structs.replace(ours, **fields)) is guarded
