"""The vendor's tools for looking into a calibrated model."""
