"""Flyte as it is: connectors written for its SDK, connector servers, and runs on a remote Flyte.

Nothing of Flyte's is imported before an executor of this package is made.
"""
