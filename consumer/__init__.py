"""jobstate: Bacalhau's missing push feed. NATS is the fast hint, the orchestrator the truth, the log what came of both.

The way of the data: frame -> record -> event -> decision -> update -> log. Imports go down the list in DESIGN order:
`model`, `rules`, `wire`, `fold`, `core`, `derive` are pure; everything that touches the world stands after them.
"""

__version__ = "0.1.0"
