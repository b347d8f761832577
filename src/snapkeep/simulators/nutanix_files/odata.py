"""``$filter`` of OData 4.01, as far as clients of the API use it.

Comparisons (``eq ne gt ge lt le``), ``and or not``, parentheses, ``startswith endswith contains``, paths with ``/``
or ``.``, and literals: strings with doubled quotes, numbers, booleans, null, times, UUIDs, enum members.
"""

import datetime
import operator
import re
from collections.abc import Callable, Set
from typing import Any, NamedTuple

Entity = dict[str, Any]
Value = Callable[[Entity], Any]
Predicate = Callable[[Entity], bool]


class ODataError(ValueError):
    """The expression is not understood; the text says why."""


class Token(NamedTuple):
    """A piece of the expression: its kind, text and place."""

    kind: str
    text: str
    place: int


_TOKENS = re.compile(
    r"""\s*(?:
    (?P<enum>[A-Za-z_][\w.]*'(?:[^']|'')*')
  | (?P<string>'(?:[^']|'')*')
  | (?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d))
  | (?P<uuid>[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12})
  | (?P<number>-?\d+(?:\.\d+)?)
  | (?P<name>[A-Za-z_$][\w]*(?:[./][A-Za-z_$][\w]*)*)
  | (?P<open>\() | (?P<close>\)) | (?P<comma>,)
    )""",
    re.VERBOSE,
)
_ORDERINGS: dict[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
}
_FUNCTIONS: dict[str, Callable[[str, str], bool]] = {
    "startswith": str.startswith,
    "endswith": str.endswith,
    "contains": operator.contains,
}
_CONSTANTS = {"true": True, "false": False, "null": None}


def compile_filter(text: str, fields: Set[str]) -> Predicate:
    """A function that says whether an entity fits. ``fields``: the entity's known properties."""
    parser = _Parser(_tokens(text), fields)
    predicate = parser.either()
    parser.expect_end()
    return predicate


def _tokens(text: str) -> list[Token]:
    tokens: list[Token] = []
    place = 0
    while text[place:].strip():
        found = _TOKENS.match(text, place)
        if found is None or found.lastgroup is None:
            raise ODataError(f"not understood at position {place}: {text[place : place + 20]!r}")
        tokens.append(Token(found.lastgroup, found.group(found.lastgroup), found.start(found.lastgroup)))
        place = found.end()
    return tokens


class _Parser:
    def __init__(self, tokens: list[Token], fields: Set[str]) -> None:
        self._tokens = tokens
        self._fields = fields
        self._at = 0

    def either(self) -> Predicate:
        """``or`` binds weakest."""
        terms = [self._all()]
        while self._take("name", "or"):
            terms.append(self._all())
        return terms[0] if len(terms) == 1 else lambda entity: any(term(entity) for term in terms)

    def expect_end(self) -> None:
        token = self._peek()
        if token is not None:
            raise ODataError(f"unexpected {token.text!r} at position {token.place}")

    def _all(self) -> Predicate:
        terms = [self._negation()]
        while self._take("name", "and"):
            terms.append(self._negation())
        return terms[0] if len(terms) == 1 else lambda entity: all(term(entity) for term in terms)

    def _negation(self) -> Predicate:
        if self._take("name", "not"):
            inner = self._negation()
            return lambda entity: not inner(entity)
        return self._primary()

    def _primary(self) -> Predicate:
        if self._take("open"):
            inner = self.either()
            self._need("close")
            return inner
        function = self._function()
        if function is not None:
            return function
        left, left_is_literal = self._operand()
        token = self._peek()
        if token is None or token.kind != "name" or token.text not in {"eq", "ne", *_ORDERINGS}:
            if not left_is_literal:
                return lambda entity: left(entity) is True
            raise ODataError("a comparison is expected")
        self._at += 1
        right, _ = self._operand()
        return _comparison(token.text, left, right)

    def _function(self) -> Predicate | None:
        token = self._peek()
        follower = self._tokens[self._at + 1] if self._at + 1 < len(self._tokens) else None
        if token is None or token.kind != "name" or follower is None or follower.kind != "open":
            return None
        test = _FUNCTIONS.get(token.text.lower())
        if test is None:
            raise ODataError(f"unknown function {token.text!r}")
        self._at += 2
        left, _ = self._operand()
        self._need("comma")
        right, _ = self._operand()
        self._need("close")
        return _text_test(test, left, right)

    def _operand(self) -> tuple[Value, bool]:
        token = self._peek()
        if token is None:
            raise ODataError("the expression ends too early")
        self._at += 1
        if token.kind == "name" and token.text not in _CONSTANTS:
            return property_of(token.text, self._fields), False
        constant = _literal(token)
        return lambda _entity: constant, True

    def _peek(self) -> Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _take(self, kind: str, text: str | None = None) -> bool:
        token = self._peek()
        if token is None or token.kind != kind or (text is not None and token.text != text):
            return False
        self._at += 1
        return True

    def _need(self, kind: str) -> None:
        if not self._take(kind):
            raise ODataError(f"{kind} is expected")


def property_of(path: str, fields: Set[str]) -> Value:
    """A function that reads a property, or one inside a property; absent ones are None."""
    steps = re.split(r"[./]", path)
    if steps[0] not in fields:
        raise ODataError(f"unknown property {steps[0]!r}")
    if len(steps) == 1:
        only = steps[0]
        return lambda entity: entity.get(only)

    def read(entity: Entity) -> Any:
        value: Any = entity
        for step in steps:
            value = value.get(step) if isinstance(value, dict) else None
        return value

    return read


def _literal(token: Token) -> Any:
    if token.kind == "string":
        return token.text[1:-1].replace("''", "'")
    if token.kind == "enum":
        return token.text[token.text.index("'") + 1 : -1].replace("''", "'")
    if token.kind == "number":
        return float(token.text) if "." in token.text else int(token.text)
    if token.kind == "time":
        return datetime.datetime.fromisoformat(token.text)
    if token.kind == "uuid":
        return token.text
    if token.kind == "name":
        return _CONSTANTS[token.text]
    raise ODataError(f"unexpected {token.text!r} at position {token.place}")


def _comparison(name: str, left: Value, right: Value) -> Predicate:
    if name == "eq":
        return lambda entity: operator.eq(*_same_kind(left(entity), right(entity)))
    if name == "ne":
        return lambda entity: operator.ne(*_same_kind(left(entity), right(entity)))
    order = _ORDERINGS[name]

    def compare(entity: Entity) -> bool:
        first, second = _same_kind(left(entity), right(entity))
        if first is None or second is None:
            return False
        try:
            return order(first, second)
        except TypeError as error:
            raise ODataError(f"{name} does not compare these types") from error

    return compare


def _same_kind(first: Any, second: Any) -> tuple[Any, Any]:
    """Times are text in an entity and times in an expression."""
    if isinstance(first, datetime.datetime) and isinstance(second, str):
        return first, _time(second)
    if isinstance(second, datetime.datetime) and isinstance(first, str):
        return _time(first), second
    return first, second


def _time(text: str) -> datetime.datetime | None:
    try:
        return datetime.datetime.fromisoformat(text)
    except ValueError:
        return None


def _text_test(test: Callable[[str, str], bool], left: Value, right: Value) -> Predicate:
    def check(entity: Entity) -> bool:
        first, second = left(entity), right(entity)
        return isinstance(first, str) and isinstance(second, str) and test(first, second)

    return check
