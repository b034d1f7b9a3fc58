"""What an error of SQLite says: something of the disk or the moment, or that the file is not what it should be."""

from __future__ import annotations

import sqlite3

_DISK = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}


def says_damaged(error: sqlite3.Error) -> bool:
    """Whether the file is damaged, and to be set aside; a disk that does not let us says nothing about the file."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF not in _DISK or code == sqlite3.SQLITE_IOERR_SHORT_READ
