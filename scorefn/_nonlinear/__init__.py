"""Functions of expectations, and statistics of samples."""
