"""Histories of star formation and enrichment, and the light of many populations."""
