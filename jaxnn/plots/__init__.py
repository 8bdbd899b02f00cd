"""Figures, through matplotlib (an extra). They import no training code."""
