"""How the daemon is seen from outside: its log lines, its numbers, whether it lives and is ready.

Nothing here decides anything, and nothing that decides knows of it.
"""

from consumer.observe.health import Health, serve, url_of
from consumer.observe.log import configure, never_wait, tell_left_out, tell_left_out_at_end
from consumer.observe.metrics import Metrics

__all__ = ["Health", "Metrics", "configure", "never_wait", "serve", "tell_left_out", "tell_left_out_at_end", "url_of"]
