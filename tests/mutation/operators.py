"""Which small mistakes are planted: those of somebody who forgets a condition, a step, a field or a bound.

mutmut's own that matter here stay: other comparisons, numbers, truth values, `and` for `or`, cases and branches. Its texts,
names in upper case and arguments of None go: nearly all of them end in an exception at once and say nothing about tests.
In their place come what this code is made of: conditions of statements, columns, fields with a default, and steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import libcst as cst
from mutmut.mutation import mutators

# Calls of any number of arguments, each of which narrows, orders or fills something.
_VARIADIC = {"and_", "or_", "where", "order_by", "values", "case", "coalesce", "group_by", "dict"}
# Methods that make another statement of one, and functions of which only the first argument is needed to go on.
_STEPS = {"where", "order_by", "limit", "distinct", "group_by", "on_conflict_do_nothing", "desc"}
_WRAPPERS = {"sorted", "max", "min", "abs", "locked", "not_", "exists", "reversed"}


def _name(call: cst.Call) -> str:
    func = call.func
    return func.value if isinstance(func, cst.Name) else func.attr.value if isinstance(func, cst.Attribute) else ""


def _in_parentheses(node: cst.BaseExpression) -> cst.BaseExpression:
    # It may go over several lines.
    return node.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])


def forgotten_argument(node: cst.Call) -> Iterator[cst.Call]:
    """A condition, a column or a field less; what has a default gets it."""
    if _name(node) == "bindparam" or _name(node)[:1].isupper():
        return  # A type says nothing new, and a field without a default is missed at once.
    for place, argument in enumerate(node.args):
        if argument.star or (argument.keyword is None and _name(node) not in _VARIADIC):
            continue
        if len(node.args) > 1 or argument.keyword is not None:
            yield node.with_changes(args=[*node.args[:place], *node.args[place + 1 :]])


def forgotten_step(node: cst.Call) -> Iterator[cst.BaseExpression]:
    """`statement.where(…)` is `statement`, `sorted(rows)` is `rows`."""
    name = _name(node)
    if name in _STEPS and isinstance(node.func, cst.Attribute):
        yield _in_parentheses(node.func.value)
    elif name in _WRAPPERS and node.args and not node.args[0].star:
        yield _in_parentheses(node.args[0].value)


def forgotten_entry(node: cst.Dict) -> Iterator[cst.Dict]:
    """An entry of a dictionary less."""
    if len(node.elements) > 1:
        for place in range(len(node.elements)):
            yield node.with_changes(elements=[*node.elements[:place], *node.elements[place + 1 :]])


def forgotten_statement(node: cst.SimpleStatementLine) -> Iterator[cst.SimpleStatementLine]:
    """A call whose answer nobody asks for, an addition or a `continue` is left out."""
    (only, *more) = node.body
    if more:
        return
    called = isinstance(only, cst.Expr) and isinstance(only.value, (cst.Call, cst.Yield))
    if called or isinstance(only, (cst.AugAssign, cst.Continue)):
        yield node.with_changes(body=[cst.Pass()])


def decided_already(node: cst.If | cst.CompIf) -> Iterator[cst.If | cst.CompIf]:
    """An `if` that always holds, and one that never does."""
    for answer in ("True", "False"):
        test = cst.Name(answer)
        changed = {"whitespace_before_test": cst.SimpleWhitespace(" ")}
        yield node.with_changes(test=test, **changed)


def forgotten_half(node: cst.BooleanOperation) -> Iterator[cst.BaseExpression]:
    """`a and b` is `a`, or `b`."""
    yield _in_parentheses(node.left)
    yield _in_parentheses(node.right)


Operator = Callable[[Any], Iterable[cst.CSTNode]]
OPERATORS: Sequence[tuple[type[cst.CSTNode], Operator]] = [
    (cst.BaseNumber, mutators.operator_number),
    (cst.Name, mutators.operator_name),
    (cst.UnaryOperation, mutators.operator_remove_unary_ops),
    (cst.CSTNode, mutators.operator_keywords),
    (cst.CSTNode, mutators.operator_swap_op),
    (cst.Match, mutators.operator_match),
    (cst.IfExp, mutators.operator_if_exp),
    (cst.Call, forgotten_argument),
    (cst.Call, forgotten_step),
    (cst.Dict, forgotten_entry),
    (cst.SimpleStatementLine, forgotten_statement),
    (cst.If, decided_already),
    (cst.CompIf, decided_already),
    (cst.BooleanOperation, forgotten_half),
]
