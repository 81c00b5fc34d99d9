"""Random programs of assignments, branches and loops that depend on parameters, each in Stan and in Python.

Every piece of code is made in both languages at once, so that neither is translated from the other.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

REALS, INTEGERS, ENTRIES = ("a", "b", "c"), ("m", "n"), ("1", "2", "3")
RESULT = ("a", "2 * b", "3 * c", "4 * m", "5 * n", "w[1]", "6 * w[2]", "7 * w[3]")
POINTS = ((-1.3, 0.4), (0.3, 2.2), (1.7, -0.6), (2.6, 1.1), (0.0, 0.0))


class Code(NamedTuple):
    """The same in Stan and in Python."""

    stan: str
    python: str

    @classmethod
    def same(cls, text: str) -> Code:
        return cls(text, text)


class RandomProgram:
    """A function of two reals, `p` and `q`, with the locals `a`, `b`, `c`, `m`, `n` and the vector `w`.

    Attributes:
        stan: statements of Stan that declare the locals and end in `real result = ..;`.
        python: the function.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._counters: list[str] = []
        self._lines: list[Code] = []
        pick = self._random.choice
        starts = {"a": pick(("0.5", "p", "3")), "b": pick(("1", "q", "-2.5")), "c": "0"}
        m, first, last = pick(("-1", "0", "2")), pick(("1", "p")), pick(("0", "q"))
        stan = [f"real {name} = {value};" for name, value in starts.items()]
        stan += [f"int m = {m};", "int n = 0;", f"vector[3] w = [{first}, 2, {last}]';"]
        python = [f"{name} = {value}" for name, value in starts.items()]
        python += [f"m = {m}", "n = 0", f"w = [None, {first}, 2, {last}]"]
        self._block(1, 0)
        self._block(1, 0)
        total = " + ".join(RESULT)
        self.stan = "\n  ".join([*stan, *(line.stan for line in self._lines), f"real result = {total};"])
        body = "\n  ".join([*python, *(line.python for line in self._lines), f"return {total}"])
        scope: dict[str, Callable[[float, float], float]] = {}
        exec(f"def function(p, q):\n  {body}", {}, scope)  # made here, of names and numbers
        self.python = scope["function"]

    def _entry(self) -> Code:
        return Code.same(f"w[{self._random.choice((*ENTRIES, *self._counters))}]")

    def _real(self, depth: int = 0) -> Code:
        kind = self._random.random()
        if depth > 2 or kind < 0.45:
            number = f"{self._random.randint(1, 3)}.5"
            return self._random.choice([*map(Code.same, (*REALS, "p", "q", "m", number)), self._entry()])
        if kind < 0.85:
            sign = self._random.choice("+-*")
            return self._both("({} " + sign + " {})", self._real(depth + 1), self._real(depth + 1))
        if kind < 0.95:
            condition, yes, no = self._condition(depth + 1), self._real(depth + 1), self._real(depth + 1)
            return Code(
                f"({condition.stan} ? {yes.stan} : {no.stan})",
                f"({yes.python} if {condition.python} else {no.python})",
            )
        return self._both("abs({})", self._real(depth + 1))

    def _integer(self) -> Code:
        name = self._random.choice(INTEGERS)
        number = str(self._random.randint(0, 3))
        texts = (*INTEGERS, *self._counters, number, f"({name} + {number})", f"(abs({name}) % 3)")
        return Code.same(self._random.choice(texts))

    def _condition(self, depth: int = 0) -> Code:
        kind = self._random.random()
        if depth > 2 or kind < 0.5:
            sign = self._random.choice(("<", "<=", ">", ">="))
            return self._both("({} " + sign + " {})", self._real(2), self._real(2))
        if kind < 0.7:
            sign = self._random.choice(("<", "==", "!=", ">="))
            return self._both("({} " + sign + " {})", self._integer(), self._integer())
        one, other = self._condition(depth + 1), self._condition(depth + 1)
        if kind < 0.8:
            return Code(f"(!{one.stan})", f"(not {one.python})")
        stan, python = self._random.choice((("&&", "and"), ("||", "or")))
        return Code(f"({one.stan} {stan} {other.stan})", f"({one.python} {python} {other.python})")

    @staticmethod
    def _both(form: str, *parts: Code) -> Code:
        return Code(form.format(*(p.stan for p in parts)), form.format(*(p.python for p in parts)))

    def _add(self, indent: int, stan: str, python: str | None = None) -> None:
        space = "  " * (indent - 1)
        self._lines.append(Code(space + stan, space + (stan if python is None else python)))

    def _assign(self, indent: int, target: str, signs: tuple[str, ...], value: Code) -> None:
        sign = self._random.choice(signs)
        self._add(indent, f"{target} {sign} {value.stan};", f"{target} {sign} {value.python}")

    def _block(self, indent: int, depth: int) -> None:
        for _ in range(self._random.randint(1, 3)):
            self._statement(indent, depth)

    def _statement(self, indent: int, depth: int) -> None:
        kind = self._random.random()
        if kind < 0.4 or depth > 3:
            self._assign(indent, self._random.choice(REALS), ("=", "=", "+=", "*="), self._real())
        elif kind < 0.5:
            self._assign(indent, self._entry().stan, ("=",), self._real())
        elif kind < 0.6:
            self._assign(indent, self._random.choice(INTEGERS), ("=", "+="), self._integer())
        elif kind < 0.82:
            self._branch(indent, depth)
        elif kind < 0.93:
            self._for(indent, depth)
        else:
            self._while(indent, depth)

    def _branch(self, indent: int, depth: int) -> None:
        condition = self._condition()
        self._add(indent, f"if ({condition.stan}) {{", f"if {condition.python}:")
        self._block(indent + 1, depth + 1)
        if self._random.random() < 0.5:
            self._add(indent, "} else {", "else:")
            self._block(indent + 1, depth + 1)
        self._add(indent, "}", "")

    def _for(self, indent: int, depth: int) -> None:
        counter = f"i{indent}"
        self._add(indent, f"for ({counter} in 1:3) {{", f"for {counter} in (1, 2, 3):")
        self._counters.append(counter)
        self._block(indent + 1, depth + 1)
        if self._random.random() < 0.4:
            condition, word = self._condition(), self._random.choice(("break", "continue"))
            self._add(indent + 1, f"if ({condition.stan}) {word};", f"if {condition.python}: {word}")
            self._block(indent + 1, depth + 1)
        self._counters.pop()
        self._add(indent, "}", "")

    def _while(self, indent: int, depth: int) -> None:
        count, condition = f"u{len(self._lines)}", self._condition()
        self._add(indent, f"{{ int {count} = 0;", f"{count} = 0")
        self._add(
            indent,
            f"while ({count} < 3 && {condition.stan}) {{",
            f"while {count} < 3 and {condition.python}:",
        )
        self._add(indent + 1, f"{count} += 1;", f"{count} += 1")
        self._block(indent + 1, depth + 1)
        self._add(indent, "} }", "")
