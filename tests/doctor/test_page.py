"""docs/operations/doctor.md says what the program does."""

import re
from pathlib import Path

from consumer.doctor.finding import CHECKS, Verdict

PAGE = (Path(__file__).parents[2] / "docs/operations/doctor.md").read_text(encoding="utf-8")


def test_every_check_and_verdict_is_told_in_order() -> None:
    """The table has each check, in the order in which they are made, and no other; each verdict has its meaning."""
    rows = re.findall(r"^\| (`[a-z]+\.[a-z]+`[^|]*|`settings`|`rules`) \|", PAGE, re.MULTILINE)
    told = [name for row in rows for name in re.findall(r"`([a-z.]+)`", row)]
    assert told == [check.name for check in CHECKS]
    assert re.findall(r"^\| `(\w+)` \| ", PAGE, re.MULTILINE)[: len(Verdict)] == [verdict.value for verdict in Verdict]
