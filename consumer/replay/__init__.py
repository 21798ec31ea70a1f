"""Recordings of real networks: what they hold, the same core over them, and the simulated orchestrator."""
