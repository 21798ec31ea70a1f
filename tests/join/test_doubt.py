"""When an orchestrator that contradicts the log, or itself, is believed."""

from consumer.join import JoinSettings
from consumer.join.doubt import Contest, Doubt

SETTINGS = JoinSettings(doubts=3, doubt_s=60.0)


def test_few_or_quick_answers_are_old_ones() -> None:
    """Many within a minute, or few over an hour: neither is certain; many over a minute are, once."""
    quick, few, certain = Doubt(), Doubt(), Doubt()
    for number in range(50):
        quick.came(float(number))
    assert not quick.is_over(49.0, SETTINGS)
    few.came(0.0)
    few.came(3600.0)
    assert not few.is_over(3600.0, SETTINGS)
    for now in (0.0, 30.0, 60.0):
        certain.came(now)
    assert certain.is_over(60.0, SETTINGS)
    assert not certain.is_over(61.0, SETTINGS)


def test_a_good_answer_ends_the_doubt() -> None:
    """What comes after it counts anew."""
    doubt = Doubt()
    doubt.came(0.0)
    doubt.end()
    for now in (59.0, 60.0, 61.0):
        doubt.came(now)
    assert not doubt.is_over(61.0, SETTINGS)


def test_a_list_is_told_once_and_when_the_history_still_agrees_with_the_log() -> None:
    """Not for what one read said just after it; a list that says something else begins anew."""
    contest, claim = Contest(), (1, 3, "Failed")
    assert not contest.says(claim, None, 0.0, 60.0)
    assert not contest.says(claim, 1.0, 100.0, 60.0)
    assert not contest.says((1, 4, "Failed"), 200.0, 200.0, 60.0)
    assert contest.says((1, 4, "Failed"), 260.0, 261.0, 60.0)
    assert not contest.says((1, 4, "Failed"), 900.0, 900.0, 60.0)
    contest.end()
    assert not contest.is_open
