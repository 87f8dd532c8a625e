"""Evaluation of many samples: in chunks, in one pass, on several devices."""
