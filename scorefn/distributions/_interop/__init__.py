"""Facts about objects of other libraries; no other package refers to their classes."""
