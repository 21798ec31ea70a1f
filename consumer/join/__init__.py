"""Frames and answers become events and reads. Pure: `Join` with an orchestrator, `Derivation` without."""

from consumer.join.derive import Derivation, DerivationSettings
from consumer.join.join import Join
from consumer.join.options import JoinSettings
from consumer.join.reads import Missing, OrchestratorRead, ReadHistory, ReadJob, ReadJobs

__all__ = [
    "Derivation",
    "DerivationSettings",
    "Join",
    "JoinSettings",
    "Missing",
    "OrchestratorRead",
    "ReadHistory",
    "ReadJob",
    "ReadJobs",
]
