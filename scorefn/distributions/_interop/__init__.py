"""Facts about objects of other libraries: the only room that knows their classes."""
