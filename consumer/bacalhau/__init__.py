"""Bacalhau itself: what it says over NATS, and its REST side. Carries out what the core asks."""
