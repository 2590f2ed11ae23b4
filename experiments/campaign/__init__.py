"""The planned measuring campaign of a device: its plan, its steps, and the command that runs it.

Nothing is imported here, so that ``python -m experiments.campaign`` can say what is missing.
"""
