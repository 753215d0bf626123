"""Compressed layers: inflate, split into spans, and record the checkpoints where reading can start."""
