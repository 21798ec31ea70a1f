"""Frames and answers become events and reads. Pure: `Join` is the one class; the shapes of its reads stand in `reads`."""

from consumer.join.join import Join, JoinSettings
from consumer.join.reads import Missing, OrchestratorRead, ReadHistory, ReadJob, ReadJobs

__all__ = ["Join", "JoinSettings", "Missing", "OrchestratorRead", "ReadHistory", "ReadJob", "ReadJobs"]
