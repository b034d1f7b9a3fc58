"""Stands for a kernel that lacks calls: `python old_kernel.py 444,126 PROGRAM ARGS…` runs a program that finds none.

444 makes the rule sets of Landlock; without that one there is no Landlock.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

LANDLOCK = "444"
SET_SECCOMP, MODE_FILTER, SET_NO_NEW_PRIVS = 22, 2, 38


def main() -> None:
    """Install a filter, which whatever is started then inherits, and become the program."""
    program = [(0x20, 0, 0, 0)]  # load the number of the call
    for number in sys.argv[1].split(","):
        program += [(0x15, 0, 1, int(number)), (0x06, 0, 0, 0x00050000 | errno.ENOSYS)]
    program.append((0x06, 0, 0, 0x7FFF0000))  # allow
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *instruction) for instruction in program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    libc.prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(SET_SECCOMP, MODE_FILTER, header):
        raise OSError(ctypes.get_errno(), "no filter can be installed")
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - the program that is asked for


if __name__ == "__main__":
    main()
