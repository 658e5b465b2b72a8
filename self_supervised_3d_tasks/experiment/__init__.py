"""The experiment file: what its keys are, what follows from them, and what they build."""
