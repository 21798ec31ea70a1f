"""When an orchestrator that contradicts the log, or itself, is believed."""

from consumer.join import JoinSettings
from consumer.join.doubt import Contests, Doubt

SETTINGS = JoinSettings(doubts=3, doubt_s=60.0)
CLAIM = (1, 3, "Failed")


def test_few_or_quick_answers_are_old_ones() -> None:
    """Many within a minute, or few over an hour: neither is certain; many over a minute are."""
    quick, few, certain = Doubt(), Doubt(), Doubt()
    for number in range(50):
        quick.came(float(number))
    assert not quick.is_certain(49.0, SETTINGS)
    few.came(0.0)
    few.came(3600.0)
    assert not few.is_certain(3600.0, SETTINGS)
    for now in (0.0, 30.0, 60.0):
        certain.came(now)
    assert certain.is_certain(60.0, SETTINGS)


def test_a_good_answer_ends_the_doubt() -> None:
    """What comes after it counts anew."""
    doubt = Doubt()
    doubt.came(0.0)
    doubt.end()
    for now in (59.0, 60.0, 61.0):
        doubt.came(now)
    assert not doubt.is_certain(61.0, SETTINGS)


def test_a_list_is_told_once_and_when_the_history_still_agrees_with_the_log() -> None:
    """Not for what one read said just after it; a list that says something else begins anew."""
    contests, other = Contests(), (1, 4, "Failed")
    assert not contests.claim("j", CLAIM, 0.0, 60.0)
    contests.agree("j", 1.0)
    assert not contests.claim("j", CLAIM, 100.0, 60.0)
    contests.agree("j", 200.0)
    assert not contests.claim("j", other, 200.0, 60.0)
    contests.agree("j", 260.0)
    assert contests.claim("j", other, 261.0, 60.0)
    assert not contests.claim("j", other, 900.0, 60.0)


def test_a_list_that_agrees_ends_it() -> None:
    """What it said before does not count."""
    contests = Contests()
    contests.claim("j", CLAIM, 0.0, 60.0)
    contests.end("j")
    contests.agree("j", 100.0)
    assert not contests.claim("j", CLAIM, 100.0, 60.0)


def test_of_too_many_the_oldest_is_forgotten() -> None:
    """It begins anew; the others do not."""
    contests = Contests(most=2)
    for name in ("a", "b", "c"):
        contests.claim(name, CLAIM, 0.0, 60.0)
        contests.agree(name, 70.0)
    assert contests.claim("c", CLAIM, 70.0, 60.0)
    assert not contests.claim("a", CLAIM, 70.0, 60.0)
