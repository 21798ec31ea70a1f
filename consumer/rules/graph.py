"""The rules for people: a Mermaid diagram and Markdown tables. Text only; a terminal's colours are `consumer.cli`'s."""

from consumer.rules.table import Rules

START = "[*]"
"""Mermaid's beginning and end."""


def mermaid(rules: Rules) -> str:
    """The transitions as a Mermaid state diagram, without its fence. Entries but the initial one are left out."""
    lines = ["stateDiagram-v2", f"    {START} --> {rules.initial}"]
    lines += [f"    {edge.previous} --> {edge.state}" for edge in rules.edges]
    lines += [f"    {state} --> {START}" for state in rules.states if rules.is_terminal(state)]
    return "\n".join(lines)


def grid(rules: Rules) -> str:
    """Who may follow whom, as a Markdown table of crosses; ends have an empty row."""
    rows = [["", *rules.states], ["---", *(":-:" for _ in rules.states)]]
    for previous in (None, *rules.states):
        name = "(new)" if previous is None else f"**{previous}**" if rules.is_terminal(previous) else previous
        rows.append([name, *("x" if rules.allows(previous, state) else "" for state in rules.states)])
    return _table(rows)


def transitions(rules: Rules) -> str:
    """Each transition with what makes it happen and how we know, as a Markdown table."""
    rows = [["from", "to", "when", "source"], ["---"] * 4]
    rows.append(["(new)", ", ".join(rules.following(None)), rules.entry.when, rules.entry.source])
    rows += [[edge.previous, edge.state, edge.when, edge.source] for edge in rules.edges]
    return _table(rows)


def notes(rules: Rules) -> str:
    """List what the tables do not show: ends, restrictions, aliases, dwell limits, the stamp."""
    ends = [state for state in rules.states if rules.is_terminal(state)]
    lines = [f"Final: {', '.join(ends)}. A new version of the job begins again, at {rules.initial}."]
    lines += [f"{one.state} only for jobs of type {', '.join(one.only)} ({one.source})." for one in rules.restrictions]
    lines += [f"`{alias}` is read as {state}." for alias, state in rules.aliases.items()]
    limits = [f"{state} longer than {_duration(rules.dwell[state])}" for state in rules.states if state in rules.dwell]
    lines.append(f"Announced as stuck: {', '.join(limits) or 'nothing'}.")
    lines.append(f"Rules `{rules.name}`, hash `{rules.hash[:12]}`.")
    return "\n".join(lines)


def _duration(seconds: int) -> str:
    """*seconds* as a rules file spells them, in the largest unit that leaves no rest."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if not seconds % size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _table(rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
