"""The operator's view in a browser: static files, one stream of events for what is live, calls for what is looked up.

No framework, no build step, nothing from elsewhere: docs/adr/0023 says why, with figures.
"""
