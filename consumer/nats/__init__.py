"""NATS: nats-py's client mended, connections, why a server cannot be used, and JetStream's API with types.

Knows nothing of jobs. What is stored where is `consumer.jetstream`; what Bacalhau's NATS says, `consumer.bacalhau`.
Everything here follows design/nats.md.
"""
