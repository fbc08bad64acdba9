"""A function whose result nobody wants."""


def function() -> str:
    return "x" * 50 * 1024 * 1024
