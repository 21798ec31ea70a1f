"""Recordings of real networks: what they hold, the same join and fold over them, and the simulated orchestrator."""
