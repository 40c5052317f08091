"""TREES -> WEIGHTS: exact log-probabilities, advantages, losses, updates, checkpoints.

No torch here: the modules that need it import it, and are imported when a model is trained.
"""
