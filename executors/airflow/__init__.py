"""Airflow's triggers and deferrable operators, run by an interpreter that has Airflow; the worker never imports it.

`child/main.py` is run by that interpreter, by its path; all else here is the worker's side.
"""
