"""`jobstate doctor`: goes through both sides as an operator would, and says of each check what to do next.

Looking and judging are apart: `probing` asks and brings facts, `judging` makes findings of them and is pure. The
order of the checks is in `examination`. Nothing is changed on either side: requests are all that is sent.
"""
