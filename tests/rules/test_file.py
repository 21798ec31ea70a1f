"""Every way in which a rules file can be wrong, and what makes two of them the same."""

from collections.abc import Callable
from pathlib import Path

import pytest

from consumer.errors import ExitCode, RulesError
from consumer.rules import DEFAULT, load

SOUND = """
name = "small"
states = ["Open", "Busy", "Shut"]
initial = "Open"
terminal = ["Shut"]
job_types = ["batch", "service"]

[aliases]
Closed = "Shut"

[new]
to = ["Open", "Busy"]
when = "late"
source = "here"

[restrictions.Shut]
only = ["batch"]
source = "here"

[dwell]
Open = "90s"
Busy = "none"

[[transitions]]
from = "Open"
to = "Busy"
when = "it begins"
source = "here"

[[transitions]]
from = "Busy"
to = "Shut"
when = "it ends"
source = "here"
"""

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a rules file."""

    def write(text: str) -> Path:
        path = tmp_path / "rules.toml"
        path.write_text(text)
        return path

    return write


def test_a_sound_file_loads(write: Write) -> None:
    """The file that the refusals below are made of has nothing wrong with it."""
    rules = load(write(SOUND))
    assert (rules.name, rules.initial, rules.states) == ("small", "Open", ("Open", "Busy", "Shut"))
    assert rules.following("Open") == ("Busy",)
    assert rules.find("closed") == "Shut"
    assert not rules.completable("service", "Shut")
    assert rules.dwell == {"Open": 90}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("90s", 90), ("10m", 600), ("2h", 7_200), ("7d", 604_800), ("999999999d", 86_399_999_913_600)],
)
def test_a_dwell_limit_is_a_number_and_a_unit(write: Write, text: str, seconds: int) -> None:
    """It comes out in seconds."""
    assert load(write(SOUND.replace('"90s"', f'"{text}"'))).dwell == {"Open": seconds}


def test_without_a_table_of_limits_no_state_has_one(write: Write) -> None:
    """A rules file from before there was one goes on as it is."""
    head, rest = SOUND.split("[dwell]")
    assert load(write(head + rest[rest.index("[[") :])).dwell == {}


def test_bacalhaus_limits() -> None:
    """Pending and Queued have one; Running has none, for services are to run for ever."""
    assert load().dwell == {"Pending": 600, "Queued": 3_600}


@pytest.mark.parametrize(
    "value",
    [
        '""',
        '"10"',
        '"m"',
        '"0s"',
        '"-1m"',
        '"1.5h"',
        '"1 h"',
        '"1H"',
        '"10min"',
        '"1h30m"',
        '"None"',
        "600",
        "true",
        "[]",
    ],
)
def test_a_nonsense_limit_is_refused(write: Write, value: str) -> None:
    """File, key, what it says, and how it is written."""
    path = write(SOUND.replace('Busy = "none"', f"Busy = {value}"))
    with pytest.raises(RulesError) as caught:
        load(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: dwell.Busy: ")
    assert "is no duration; write a number and s, m, h or d" in said
    assert '"none"' in said


REFUSALS = {
    "no-toml": ("name =", "nom =", "unknown field `nom`", "did you mean name?"),
    "unknown-key": ('terminal = ["Shut"]', 'terminal = ["Shut"]\ntermnal = []', "`termnal`", "did you mean terminal?"),
    "unknown-key-of-edge": ('when = "it ends"', 'wen = "it ends"', "`wen`", "transitions[1]"),
    "missing-key": ('initial = "Open"', "", "missing required field `initial`", ""),
    "wrong-type": ('to = "Shut"', "to = 3", "Expected `str`", "transitions[1].to"),
    "no-name": ('"small"', '" "', "name:", "is empty"),
    "odd-state": ('"Busy", "Shut"]\ni', '"Busy", "Shut", "Half shut"]\ni', "states:", "'Half shut' is no name"),
    "state-twice": ('"Busy", "Shut"]\ni', '"Busy", "Shut", "shut"]\ni', "states:", "shut is there twice (as Shut)"),
    "initial-unknown": ('initial = "Open"', 'initial = "Opne"', "initial:", "did you mean Open?"),
    "terminal-unknown": ('terminal = ["Shut"]', 'terminal = ["Shout"]', "terminal:", "did you mean Shut?"),
    "terminal-twice": ('terminal = ["Shut"]', 'terminal = ["Shut", "Shut"]', "terminal:", "twice"),
    "new-unknown": ('to = ["Open", "Busy"]', 'to = ["Open", "Buzy"]', "new.to:", "did you mean Busy?"),
    "new-without-initial": ('to = ["Open", "Busy"]', 'to = ["Busy"]', "new.to:", "lacks Open"),
    "alias-of-nothing": ('Closed = "Shut"', 'Closed = "Sht"', "aliases.Closed:", "did you mean Shut?"),
    "alias-is-a-state": ('Closed = "Shut"', 'busy = "Shut"', "aliases.busy:", "there twice (as Busy)"),
    "alias-twice": ('Closed = "Shut"', 'Closed = "Shut"\nCLOSED = "Busy"', "aliases.CLOSED:", "there twice"),
    "alias-blank": ('Closed = "Shut"', '" " = "Shut"', "aliases. :", "is blank"),
    "restriction-unknown": ("[restrictions.Shut]", "[restrictions.Shutt]", "restrictions.Shutt:", "mean Shut?"),
    "restriction-type": ('only = ["batch"]', 'only = ["bach"]', "restrictions.Shut.only:", "did you mean batch?"),
    "dwell-unknown": ('Open = "90s"', 'Opn = "90s"', "dwell.Opn:", "did you mean Open?"),
    "dwell-unknown-behind-none": ('Open = "90s"\nBusy = "none"', 'Busy = "none"\nOpn = "90s"', "dwell.Opn:", "Open?"),
    "dwell-of-an-end": (
        'Open = "90s"',
        'Shut = "90s"',
        "dwell.Shut:",
        "is an end, where a job stands for ever; remove",
    ),
    "dwell-no-table": ('[dwell]\nOpen = "90s"\nBusy = "none"', '[[dwell]]\nOpen = "90s"', "Expected `object`", "dwell"),
    "edge-from-unknown": ('from = "Busy"', 'from = "Bsy"', "transitions[1].from:", "did you mean Busy?"),
    "edge-to-unknown": ('to = "Busy"', 'to = "Bussy"', "transitions[0].to:", "did you mean Busy?"),
    "edge-to-itself": ('to = "Shut"', 'to = "Busy"', "transitions[1]:", "Busy to itself"),
    "edge-twice": (
        "[[transitions]]\n",
        '[[transitions]]\nfrom = "Open"\nto = "Busy"\nwhen = "a"\nsource = "b"\n[[transitions]]\n',
        "transitions[1]:",
        "Open to Busy is there twice",
    ),
    "edge-without-source": (
        'when = "it ends"\nsource = "here"',
        'when = "x"\nsource = " "',
        "transitions[1].source:",
        "",
    ),
    "end-with-a-way-out": ('terminal = ["Shut"]', 'terminal = ["Shut", "Busy"]', "terminal:", "leads to Shut"),
    "unreachable": ('from = "Open"\nto = "Busy"', 'from = "Open"\nto = "Shut"', "states:", "Busy cannot be reached"),
    "no-end": ('terminal = ["Shut"]', "terminal = []", "states:", "Open has no way to an end"),
}


@pytest.mark.parametrize(("old", "new", "key", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_what_cannot_hold_is_refused(write: Write, old: str, new: str, key: str, reason: str) -> None:
    """One thing wrong: the error names the file, the key and the reason, and the nearest name of a misspelt one."""
    assert old in SOUND
    path = write(SOUND.replace(old, new, 1))
    with pytest.raises(RulesError) as caught:
        load(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert key in said
    assert reason in said
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_trap_of_states_that_never_end_is_refused(write: Write) -> None:
    """Two states that only lead to each other have ways out, but none to an end."""
    trap = SOUND.replace('"Busy", "Shut"]\ni', '"Busy", "Shut", "Here", "There"]\ni')
    for previous, state in (("Open", "Here"), ("Here", "There"), ("There", "Here")):
        trap += f'[[transitions]]\nfrom = "{previous}"\nto = "{state}"\nwhen = "x"\nsource = "x"\n'
    with pytest.raises(RulesError, match="Here has no way to an end"):
        load(write(trap))


@pytest.mark.parametrize("data", [b"\xff\xfe", b"name = \x00", b"[[", b"", b"a=" + b"[" * 2_000])
def test_what_is_no_toml_is_refused(tmp_path: Path, data: bytes) -> None:
    """Bytes that nobody can read as rules are one `RulesError`, whatever the parser raised."""
    path = tmp_path / "rules.toml"
    path.write_bytes(data)
    with pytest.raises(RulesError, match=r"rules\.toml"):
        load(path)


def test_a_file_as_windows_writes_it_is_read(tmp_path: Path) -> None:
    """A byte-order mark and CRLF are no part of the rules: they have the same hash. UTF-16 is refused as what it is."""
    path = tmp_path / "rules.toml"
    text = DEFAULT.read_bytes()
    path.write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
    assert load(path).hash == load().hash
    path.write_bytes(text.decode().encode("utf-16"))
    with pytest.raises(RulesError, match=r"rules\.toml: is not UTF-8 text .*; save it as UTF-8"):
        load(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The error names the path and what the system said."""
    with pytest.raises(RulesError, match=r"none\.toml: cannot be read \(No such file"):
        load(tmp_path / "none.toml")


def test_the_hash_is_that_of_what_is_decided(write: Write) -> None:
    """Order, comments, sentences, dwell limits and the name do not change the hash."""
    head, first, second = SOUND.split("[[transitions]]\n")
    other = f"# other\n{head}[[transitions]]\n{second}[[transitions]]\n{first}".replace('"here"', '"there"')
    other = other.replace('["Open", "Busy", "Shut"]', '["Shut", "Open", "Busy"]').replace('"small"', '"other"')
    other = other.replace('"90s"', '"2h"')
    assert load(write(SOUND)).hash == load(write(other)).hash


@pytest.mark.parametrize("limits", ["", '[dwell]\nPending = "1s"\nRunning = "24h"\n', "[dwell]\n"])
def test_no_dwell_limit_is_in_the_hash(write: Write, limits: str) -> None:
    """They decide no transition: an operator changes them, and the log stays the one that it was."""
    head, rest = DEFAULT.read_text().split("[dwell]")
    other = load(write(head + limits + rest[rest.index("[[transitions]]") :]))
    assert other.dwell != load().dwell
    assert other.hash == load().hash


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('to = ["Open", "Busy"]', 'to = ["Open"]'),
        ('Closed = "Shut"', 'Closed = "Busy"'),
        ('only = ["batch"]', 'only = ["batch", "service"]'),
        (
            "[[transitions]]\n",
            '[[transitions]]\nfrom = "Open"\nto = "Shut"\nwhen = "x"\nsource = "x"\n[[transitions]]\n',
        ),
    ],
)
def test_the_hash_changes_with_what_is_decided(write: Write, old: str, new: str) -> None:
    """An entry, an alias, a restriction, an edge: each is in the hash."""
    assert load(write(SOUND)).hash != load(write(SOUND.replace(old, new, 1))).hash


def test_the_hash_of_bacalhaus_rules_is_the_one_that_logs_are_stamped_with() -> None:
    """Whoever changes the rules, or how the hash is made, orphans every log there is: change this line knowingly."""
    assert load().hash == "d4482a8bc0abfffe1ad2b0a728395af04d335cba342465061807d54b1fecd2a5"


@pytest.mark.parametrize("number", range(13))
def test_an_edge_left_out_is_seen(write: Write, number: int) -> None:
    """Without any one of its edges Bacalhau's file has another hash and forbids exactly that edge, or is refused."""
    pieces = DEFAULT.read_text().split("[[transitions]]\n")
    whole = load()
    edge = whole.edges[number]
    rules = load(write("[[transitions]]\n".join(pieces[: number + 1] + pieces[number + 2 :])))
    assert rules.hash != whole.hash
    forbidden = {
        (previous, state)
        for previous in whole.states
        for state in whole.states
        if whole.allows(previous, state) and not rules.allows(previous, state)
    }
    assert forbidden == {(edge.previous, edge.state)}
