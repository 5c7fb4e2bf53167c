"""Works of `chaos` that run in processes. (Apart from it, for a child process imports what is in this file.)"""

import os
import signal
import threading
import time


def note(path: str, what: str, number: int) -> None:
    """One line, in one step, even if the process is killed the next moment."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{what} {number}\n".encode())
    os.close(file)


def work(path: str, number: int, span: float, error: bool) -> int:
    note(path, "begun", number)
    time.sleep(span)
    note(path, "ended", number)
    if error:
        raise ValueError(number)
    return number


def mine(path: str, number: int, span: float, error: bool) -> int:
    """Ends well, or not; and some moments later its process is killed, amid whatever it does then."""
    threading.Timer(span * 3, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return work(path, number, span, error)
