"""What an event means for its job (`decide`), and how what it comes to gets into the log once (`Lanes`). Pure."""

from consumer.fold.decide import decide, follow
from consumer.fold.lanes import Decided, Lanes, Published

__all__ = ["Decided", "Lanes", "Published", "decide", "follow"]
