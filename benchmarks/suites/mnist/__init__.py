"""The suite `rodeo`."""
