"""What a mutant is: one small change of one module, made in its syntax tree. Nothing here runs anything.

Left alone are annotations, decorators, docstrings, asserts (they speak to mypy) and sentences.
"""

import ast
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Final, NamedTuple

COMPARED: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
COMPUTED: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.Pow: ast.Mult,
}
CALLED: Final = {"min": "max", "max": "min", "any": "all", "all": "any"}
FIELDS_LEFT_ALONE: Final = frozenset({"annotation", "returns", "decorator_list", "bases", "type_params"})
CALLS_LEFT_ALONE: Final = frozenset({"cast", "NewType", "TypeVar", "field"})


class Mutant(NamedTuple):
    """One change. `make` makes it in the tree that it was found in."""

    first: int
    """The first line of the statement, by which coverage knows it."""
    line: int
    end: int
    """Where the change is: its first and last line."""
    before: Callable[[], str]
    after: Callable[[], str]
    """What is changed, and what it becomes, as text; to be asked before it is made."""
    function: tuple[str, int] | None
    """Qualified name and first line of the outermost function whose body has it; None if it takes a new import."""
    make: Callable[[], None]


class _Site(NamedTuple):
    """A node, and how another is put in its place."""

    node: ast.AST
    put: Callable[[ast.AST], None]
    statement: ast.stmt
    function: tuple[str, int] | None


def parse(source: str, number: int) -> tuple[ast.Module, Mutant]:
    """The tree of *source* with its mutant *number* made in it, and that mutant."""
    tree = ast.parse(source)
    mutant = next(islice(find(tree), number, None))
    mutant.make()
    return ast.fix_missing_locations(tree), mutant


def find(tree: ast.Module) -> Iterator[Mutant]:
    """Every mutant of the module *tree*, in the order of its text. Make one; take the next from a new tree."""
    for site in _sites(tree, None, (), None):
        node = site.node
        seen = _seen(node) or site.statement
        for after, make in _changes(site):
            yield Mutant(
                first=min(site.statement.lineno, seen.lineno),
                line=seen.lineno,
                end=seen.end_lineno or seen.lineno,
                before=partial(_text, node),
                after=after,
                function=site.function,
                make=make,
            )


def _sites(
    node: ast.AST, statement: ast.stmt | None, path: tuple[str, ...], function: tuple[str, int] | None
) -> Iterator[_Site]:
    """Each node below *node* that may be changed."""
    for name, value in ast.iter_fields(node):
        if name in FIELDS_LEFT_ALONE or (isinstance(node, ast.ClassDef) and name == "keywords"):
            continue
        inside = function
        within = path
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and name == "body":
            within = (*path, node.name)
            if not isinstance(node, ast.ClassDef):
                if inside is None:
                    inside = (".".join(within), min([node.lineno, *(one.lineno for one in node.decorator_list)]))
                within = (*within, "<locals>")
        items: list[tuple[object, Callable[[ast.AST], None]]] = [(value, partial(setattr, node, name))]
        if isinstance(value, list):
            items = [(item, partial(value.__setitem__, at)) for at, item in enumerate(value)]
        for item, put in items:
            if not isinstance(item, ast.AST) or _is_left_alone(item):
                continue
            owner = item if isinstance(item, ast.stmt) else statement
            if isinstance(item, ast.stmt | ast.expr | ast.comprehension | ast.match_case | ast.pattern):
                assert owner is not None
                yield _Site(item, put, owner, inside)
            yield from _sites(item, owner, within, inside)


_Change = tuple[Callable[[], str], Callable[[], None]]
"""What a node becomes, and how that is made."""


def _is_left_alone(node: ast.AST) -> bool:
    match node:
        case ast.Assert() | ast.Import() | ast.ImportFrom() | ast.JoinedStr():
            return True
        case ast.Expr(value=ast.Constant()):  # a docstring, or `...`
            return True
        case ast.Constant(value=str() as text):
            return " " in text  # prose
        case ast.Assign(targets=[ast.Name(id="__all__" | "__slots__")]) | ast.FunctionDef(name="__repr__"):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Subscript(value=ast.Name(id="Literal")):
            return True
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name in CALLS_LEFT_ALONE or name.endswith("Error")
    return False


def _changes(site: _Site) -> Iterator[_Change]:
    """Each change of one node: what it becomes, and how it is made."""
    node, put = site.node, site.put
    match node:
        case ast.Compare(ops=ops):
            for at in range(len(ops)):
                yield _in_place(node, at)
        case ast.BoolOp(values=values):
            for at in range(len(values)):
                rest = [*values[:at], *values[at + 1 :]]
                yield _replaced(put, rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield _replaced(put, operand)
        case ast.BinOp(op=operator) if type(operator) in COMPUTED and not _is_type(node):
            yield _replaced(put, ast.BinOp(node.left, COMPUTED[type(operator)](), node.right))
        case ast.IfExp(body=body, orelse=orelse):
            yield _replaced(put, body)
            yield _replaced(put, orelse)
        case ast.Constant(value=value):
            if (other := _other(value)) is not None:
                yield _replaced(put, ast.Constant(other))
        case ast.Call(func=ast.Name(id="sorted"), args=[first, *_]):
            yield _replaced(put, ast.Call(ast.Name("list", ast.Load()), [first], []))
        case ast.Call(func=ast.Name(id=name)) if name in CALLED:
            yield _replaced(put, ast.Call(ast.Name(CALLED[name], ast.Load()), node.args, node.keywords))
        case ast.Set(elts=parts) if len(parts) > 1:
            for at, part in enumerate(parts):
                yield partial(_text, part, "without "), partial(parts.__delitem__, at)
        case ast.Dict(keys=keys, values=values) if len(keys) > 1:
            for at, key in enumerate(keys):
                less = ast.Dict([*keys[:at], *keys[at + 1 :]], [*values[:at], *values[at + 1 :]])
                yield partial(_text, key or values[at], "without "), partial(put, less)
        case ast.comprehension(ifs=ifs):
            for at, condition in enumerate(ifs):
                yield partial(_text, condition, "without if "), partial(ifs.__setitem__, at, ast.Constant(True))
        case ast.match_case(guard=guard) if guard is not None:
            yield partial(_text, guard, "without if "), partial(setattr, node, "guard", None)
        case ast.MatchOr(patterns=patterns):
            for at, pattern in enumerate(patterns):
                others = [*patterns[:at], *patterns[at + 1 :]]
                one = others[0] if len(others) == 1 else ast.MatchOr(others)
                yield partial(_text, pattern, "without "), partial(put, one)
        case ast.Match(cases=cases) if len(cases) > 1:
            for at, case in enumerate(cases):
                yield partial(_text, case.pattern, "without case "), partial(cases.__delitem__, at)
        case ast.If() | ast.While():
            for test in (True, False) if isinstance(node, ast.If) else (False,):
                yield partial(_text, ast.Constant(test), "if "), partial(setattr, node, "test", ast.Constant(test))
        case ast.Return(value=value) if value is not None and not isinstance(value, ast.Constant):
            yield _replaced(put, ast.Return(ast.Constant(None)))
        case ast.AugAssign(op=operator):
            yield _replaced(put, ast.Pass())
            if type(operator) in COMPUTED:
                yield _replaced(put, ast.AugAssign(node.target, COMPUTED[type(operator)](), node.value))
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]) | ast.Expr() | ast.Raise() | ast.Delete():
            yield _replaced(put, ast.Pass())
        case ast.Continue():
            yield _replaced(put, ast.Break())
        case ast.Break():
            yield _replaced(put, ast.Continue())


def _seen(node: ast.AST) -> ast.stmt | ast.expr | ast.pattern | None:
    """The part of *node* that says where it is: of a statement with a body, its head."""
    match node:
        case ast.If(test=head) | ast.While(test=head) | ast.Match(subject=head) | ast.comprehension(iter=head):
            return head
        case ast.match_case(pattern=pattern):
            return pattern
        case ast.stmt() | ast.expr() | ast.pattern():
            return node
    return None


def _replaced(put: Callable[[ast.AST], None], node: ast.AST) -> _Change:
    return partial(_text, node), partial(put, node)


def _in_place(node: ast.Compare, at: int) -> _Change:
    """Another comparison at *at*: the text is that of the whole."""
    other = COMPARED[type(node.ops[at])]()
    ops = [*node.ops[:at], other, *node.ops[at + 1 :]]
    return partial(_text, ast.Compare(node.left, ops, node.comparators)), partial(node.ops.__setitem__, at, other)


def _is_type(node: ast.BinOp) -> bool:
    """Whether this is `A | None`: a type that is spelled where a value could stand."""

    def names_a_type(part: ast.expr) -> bool:
        match part:
            case ast.Constant(value=None) | ast.Subscript():
                return True
            case ast.Name(id=name) | ast.Attribute(attr=name):
                return not name.isupper() and (name[0].isupper() or name in {"int", "str", "bytes", "float", "list"})
            case ast.BinOp():
                return _is_type(part)
        return False

    return isinstance(node.op, ast.BitOr) and names_a_type(node.left) and names_a_type(node.right)


def _other(value: object) -> str | bytes | int | float | None:
    """Another constant of the same type; None if there is none that would say anything."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str() if value:
            return value + "~"
        case bytes() if value:
            return value + b"~"
    return None


def _text(node: ast.AST, before: str = "") -> str:
    """What *node* reads like, on one line; of a statement with a body, its head."""
    return before + " ".join(ast.unparse(node).partition(":\n")[0].split())
