"""jobstate follows a Bacalhau cluster: messages are hints, the orchestrator's histories the truth, the log the result.

How data flows: frame -> record -> event -> decision -> update -> log. `model`, `rules`, `wire`,
`core` and `derive` are pure; everything that touches the world imports them. `pyproject.toml` says who may import whom.
"""

__version__ = "0.1.0"
