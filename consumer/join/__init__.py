"""Frames and answers become events and reads. Pure: `Join` is the one class; its reads' shapes stand in `reads`."""

from consumer.join.join import Join, JoinSettings
from consumer.join.reads import Missing, OrchestratorRead, ReadHistory, ReadJob, ReadJobs

__all__ = ["Join", "JoinSettings", "Missing", "OrchestratorRead", "ReadHistory", "ReadJob", "ReadJobs"]
