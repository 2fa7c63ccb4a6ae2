"""What users write and read: names, and the models that the CRDs are rendered from.

This layer imports nothing of ours. Everything that a user of the API may rely on stands here.
"""
