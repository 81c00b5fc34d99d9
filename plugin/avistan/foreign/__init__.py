"""Draws that others made, as DataTrees."""
