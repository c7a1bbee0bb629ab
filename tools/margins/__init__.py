"""How far the tests stay from their tolerances on other instruction sets."""
