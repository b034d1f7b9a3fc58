"""What this machine did for others and what that took: jobs, credit, energy and its cost, bytes; by day and family.

Kept in one small file in the state directory, written at most twice an hour, and for its owner alone.
"""
