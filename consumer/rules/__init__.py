"""The rules a job's state obeys: states, ends, transitions, as data. All of them live here, and only here.

This package knows states. It knows no sequence, no transport and no clock; what an event comes to is `consumer.core`'s.
"""

from consumer.rules.file import DEFAULT, load
from consumer.rules.table import Edge, Rules

__all__ = ["DEFAULT", "Edge", "Rules", "load"]
