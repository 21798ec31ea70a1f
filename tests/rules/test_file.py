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


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The error names the path and what the system said."""
    with pytest.raises(RulesError, match=r"none\.toml: cannot be read \(No such file"):
        load(tmp_path / "none.toml")


def test_the_hash_is_that_of_what_is_decided(write: Write) -> None:
    """Order, comments, sentences and the name do not change the hash."""
    head, first, second = SOUND.split("[[transitions]]\n")
    other = f"# other\n{head}[[transitions]]\n{second}[[transitions]]\n{first}".replace('"here"', '"there"')
    other = other.replace('["Open", "Busy", "Shut"]', '["Shut", "Open", "Busy"]').replace('"small"', '"other"')
    assert load(write(SOUND)).hash == load(write(other)).hash


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
