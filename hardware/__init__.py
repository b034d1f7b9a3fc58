"""What is this machine, and what can it carry right now?

`profile()` reads the machine (or a tree laid out like a root file system) and returns a `Profile`: plain,
frozen values. Nothing is guessed: what cannot be known is None, and `Profile.unknown` says why. This
package imports nothing of the rest of the project.
"""

from hardware.profile import profile
from hardware.schema import Profile

__all__ = ["Profile", "profile"]
