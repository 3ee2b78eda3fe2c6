"""How much memory a program under test has had at most."""

#: Source of a program's function `peak`, which returns bytes; Linux only. Not by getrusage's ru_maxrss, which begins with what
#: the parent had, even after an exec.
PEAK = r"""
import re

def peak():
    with open("/proc/self/status") as status:
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read())[1]) * 1024
"""
