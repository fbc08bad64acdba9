"""What another interpreter runs: stdlib only, Python 3.9 and later, started by the path of main.py.

A folder of its own: an interpreter looks for modules first where its script lies, and would find ours for its own.
"""
