"""What Home Assistant sees of this machine, and what it may ask of it, over the owner's own broker."""
