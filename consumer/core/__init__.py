"""What decides, in one object: readers or frames bring events, the lanes decide them, the core pumps between. Pure."""

from consumer.core.core import Core, Settled, Source
from consumer.core.decide import decide, follow
from consumer.core.lanes import Decided, Lanes, Published
from consumer.core.options import ReadingOptions
from consumer.core.readers import Readers
from consumer.core.reads import Missing, OrchestratorAnswer, OrchestratorRead, ReadHistory, ReadJob, ReadJobs
from consumer.faults import Scope

__all__ = [
    "Core",
    "Decided",
    "Lanes",
    "Missing",
    "OrchestratorAnswer",
    "OrchestratorRead",
    "Published",
    "ReadHistory",
    "ReadJob",
    "ReadJobs",
    "Readers",
    "ReadingOptions",
    "Scope",
    "Settled",
    "Source",
    "decide",
    "follow",
]
