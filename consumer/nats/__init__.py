"""NATS: nats-py's client mended, connections, why a server cannot be used, and JetStream's API with types.

Knows nothing of jobs. `consumer.jetstream` knows our streams; `consumer.bacalhau` reads Bacalhau's NATS.
Everything here follows design/nats.md.
"""
