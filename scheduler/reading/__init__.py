"""How what users type is read: YAML strictly, with lines kept for the faults, overrides and secrets handled with care."""
