"""Makes text of others fit to be shown to a person. Stored and sent text is never changed."""


def printable_lines(text: str) -> str:
    """*text* as `printable` has it, but for its line breaks, which stay: whoever shows it sets each line apart."""
    return "\n".join(map(printable, text.replace("\r\n", "\n").split("\n")))


def printable(text: str) -> str:
    r"""*text* with everything escaped that a terminal would obey or hide, as Python spells it (`\x1b`, `\u202e`).

    That is control characters, line breaks, terminal escapes, bidirectional overrides, invisible format characters,
    unpaired surrogates. Letters of every script stay.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
