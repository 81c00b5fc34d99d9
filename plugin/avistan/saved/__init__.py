"""Fits as folders."""
