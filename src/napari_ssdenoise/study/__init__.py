"""How many images does it take? What learning without clean images costs: in theory, in networks, in one's own data."""
