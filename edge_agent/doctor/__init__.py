"""What `edge-agent doctor` looks at: a list of checks, each with what it found and how to mend it.

`checks.CHECKS` is the list; a check is a function of a `Context` that returns a `Finding`. Nothing is changed by any of
them: no key is made, no folder, no session, and a running agent is not disturbed.
"""
