"""Quantizers: where they go, what types they hold, and the configurations that say so."""
