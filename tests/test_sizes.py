"""`make sizes` counts what is there."""

from pathlib import Path

from tools.sizes import Class, measure

SOURCE = '''"""A module."""


class Thing:
    kind: str
    size: int = 0

    def __init__(self):
        self.kind, self.other = "a", 1
        self.more: int = 2

    async def grow(self):
        def by(count):
            return count

        local = self.size
        self.size = by(local)
'''


def test_it_counts_lines_methods_and_variables(tmp_path: Path) -> None:
    """Of each module, function (inner ones too) and class; a variable counts once, a local one not at all."""
    (tmp_path / "consumer").mkdir()
    (tmp_path / "consumer/long.py").write_text(SOURCE)
    (tmp_path / "consumer/short.py").write_text("x = 1\n")
    sizes = measure(tmp_path)
    assert sizes.lines == 18
    assert sizes.modules == [(17, "consumer.long"), (1, "consumer.short")]
    assert sizes.functions == [
        (6, "consumer.long.Thing.grow"),
        (3, "consumer.long.Thing.__init__"),
        (2, "consumer.long.Thing.grow.by"),
    ]
    assert sizes.classes == [Class("consumer.long.Thing", methods=2, variables=4, lines=14)]
