"""`calculate_output` of a multi grader: arithmetic over the rewards of its graders. Pure.

Owns the grammar: numbers, the graders' names, `+ - * / **`, brackets, and `min max abs floor ceil exp sqrt
log`. It is parsed, never run as a program.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping

_OPERATORS: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: math.pow,
}
_FUNCTIONS: Mapping[str, Callable[..., float]] = {
    "min": min, "max": max, "abs": abs, "floor": math.floor, "ceil": math.ceil, "exp": math.exp,
    "sqrt": math.sqrt, "log": math.log,
}  # fmt: skip
_MAX_NODES = 200


class BadFormula(ValueError):
    """A formula that cannot be read, or that has no value."""


def parse(formula: str) -> ast.expr:
    """Return the formula, read and checked but for its names.

    Raises: BadFormula.
    """
    try:
        tree = ast.parse(formula.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadFormula(f"is no formula: {error}") from error
    if sum(1 for _ in ast.walk(tree)) > _MAX_NODES:
        raise BadFormula(f"has more than {_MAX_NODES} parts")
    return tree.body


def names(formula: str) -> set[str]:
    """Return the graders that a formula names.

    Raises: BadFormula.
    """
    found = {node.id for node in ast.walk(parse(formula)) if isinstance(node, ast.Name)}
    return found - set(_FUNCTIONS)


def calculate(formula: str, values: Mapping[str, float]) -> float:
    """Return the value of a formula.

    Raises: BadFormula: also where there is none (division by 0, a root of less than 0, beyond all bounds).
    """
    try:
        value = _value(parse(formula), values)
    except (ArithmeticError, ValueError, TypeError) as error:
        raise error if isinstance(error, BadFormula) else BadFormula(f"has no value: {error}") from error
    if not math.isfinite(value):
        raise BadFormula("has no finite value")
    return value


def _value(node: ast.expr, values: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(value=bool()):
            raise BadFormula("holds true or false, which is no number")
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name) if name in values:
            return values[name]
        case ast.Name(id=name):
            raise BadFormula(f"names {name}, which is no grader; graders: {', '.join(values)}")
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_value(inner, values)
        case ast.UnaryOp(op=ast.UAdd(), operand=inner):
            return _value(inner, values)
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _OPERATORS:
            return _OPERATORS[type(sign)](_value(left, values), _value(right, values))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return float(_FUNCTIONS[name](*(_value(one, values) for one in arguments)))
    raise BadFormula(f"holds what is no arithmetic: {ast.unparse(node)[:100]}")
