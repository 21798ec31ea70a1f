"""NATS JetStream: connection, topology, input, writer, recovery, and a server of our own. Carries out; decides nothing.

Everything here follows NATS.md; a number in a docstring is a section of it.
"""
