"""What an operator does to a catalogue: make variants, describe them, sign and serve what is published.

From one float model to the variants worth having: `graphs` prepares the model, `samples` reads what it is
calibrated and measured on, `ranges` finds the activations' ranges, `variants` makes the files from the table in
`forms`, `quantizers` and `runs` are where onnxruntime comes in. From variants to what agents fetch: `repository`
and what it imports.

The agent and the coordinator never import this package: they see its outcome, a TUF repository, through
`edge_agent.models.refresh`.
"""
