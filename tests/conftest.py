"""What holds for every test, however it was started."""

import signal

# Started in the background of a shell, a process ignores Ctrl-C, and so would all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
