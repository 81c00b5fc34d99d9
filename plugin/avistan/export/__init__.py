"""Draws and units in the formats of other tools."""
