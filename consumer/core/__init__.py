"""What decides, in one object: the source of events, the lanes, and the pump between them. Pure."""

from consumer.core.core import Core, Settled, Source

__all__ = ["Core", "Settled", "Source"]
