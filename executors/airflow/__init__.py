"""Airflow's triggers and deferrable operators, run by an interpreter that has Airflow; the worker never imports it.

`child.py` and `child_operators.py` are run by that interpreter, by their paths; all else is the worker's side.
"""
