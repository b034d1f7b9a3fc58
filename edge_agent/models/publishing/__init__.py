"""What an operator does to a catalogue: make variants, describe them, sign and serve what is published.

The agent and the coordinator never import this package: they see its outcome, a TUF repository, through
`edge_agent.models.refresh`.
"""
