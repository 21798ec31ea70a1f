"""Facts become findings. Pure: the same facts are always judged alike, and no server is needed to see how."""
