"""Models as this network knows them: families and their variants, what they cost, and which one to serve.

`catalogue` says what there is, `store` hands out verified files, `golden` knows what a healthy variant
answers, `fit` predicts what a variant costs on a machine, `selection` chooses among variants that were
measured. The `train_…` scripts make the built-in family; the agent never imports them.
"""
