"""Programs around cases: the same code in each block, and in functions called there.

Every program has parameters `x` and `y` of one entry a case and adds `s * y` to the target, where `s` is the case's
result: the gradient by `y` is its value, that by `x` its derivative, where the place differentiates.
"""

from __future__ import annotations

from collections.abc import Sequence

from .cases import Case
from .environment import VARIABLES

# place: (block, called as a function, differentiated)
PLACES: dict[str, tuple[str, bool, bool]] = {
    "transformed data": ("transformed data", False, False),
    "function in transformed data": ("transformed data", True, False),
    "model": ("model", False, False),
    "function in model": ("model", True, False),
    "model with parameters": ("model", False, True),
    "function with parameters": ("model", True, True),
    "transformed parameters": ("transformed parameters", False, True),
    "generated quantities": ("generated quantities", False, False),
}


def _argument_type(kind: str) -> str:
    """`array[2,3] vector[3]` as the type of a function's argument."""
    kind = kind.replace("vector[3]", "vector").replace("vector[2]", "vector").replace("vector[5]", "vector")
    if kind.startswith("matrix"):
        return "matrix"
    if not kind.startswith("array"):
        return kind
    sizes, _, element = kind.removeprefix("array[").partition("]")
    return f"array[{',' * sizes.count(',')}] {element.strip().split('[')[0]}"


def argument(case: Case, name: str) -> str:
    fixed = case.vary is not None and VARIABLES[name].slope is not None and not case.moves(name)
    return ("data " if fixed else "") + _argument_type(VARIABLES[name].type)


def _declare(name: str, kind: str) -> str:
    return f"  {kind} {name};\n"


def program(cases: Sequence[Case], place: str) -> str:
    """A Stan program with all cases in one place, each in a scope of its own."""
    block, called, differentiated = PLACES[place]
    functions, statements, outer = [], [], []
    for number, case in enumerate(cases, 1):
        functions.append(case.functions)
        body = f"{case.code} real s_; {case.total}"
        names = case.used
        moving = [name for name in names if differentiated and case.moves(name)]
        local = "".join(moved(name, f"{name}_at", number) for name in moving)
        if called:
            arguments = ", ".join(f"{argument(case, name)} {name}" for name in names)
            functions.append(f"real case_{number}({arguments}) {{ {body} return s_; }}")
            given = ", ".join(f"{name}_at" if name in moving else name for name in names)
            statements.append(f"{{ {local} s{number} = case_{number}({given}); }}")
        else:
            # shadowing data is not allowed: where names move, the data have other names
            local = "".join(moved(name, name, number, base=f"{name}_base") for name in moving)
            statements.append(f"{{ {local} {body} s{number} = s_; }}")
        outer.append(f"real s{number};")
    renamed = (
        {} if called or not differentiated else {name for c in cases for name in c.used if c.moves(name)}
    )
    kinds = {name: VARIABLES[name].type for c in cases for name in c.used}
    declared = "".join(_declare(f"{n}_base" if n in renamed else n, kind) for n, kind in kinds.items())
    if differentiated:
        declared += "".join(
            _declare(f"{n}_slope", kind)
            for n, kind in kinds.items()
            if any(c.moves(n) for c in cases if n in c.used)
        )
    work = "\n  ".join([*outer, *statements])
    target = "\n  ".join(f"target += s{number} * y[{number}];" for number in range(1, len(cases) + 1))
    blocks = {
        "functions": "\n  ".join(text for text in dict.fromkeys(functions) if text),
        "data": declared,
        "transformed data": "",
        "parameters": f"vector[{len(cases)}] x;\n  vector[{len(cases)}] y;",
        "transformed parameters": "",
        "model": target,
        "generated quantities": "",
    }
    if block == "model":
        blocks["model"] = f"{work}\n  {target}"
    elif block == "generated quantities":
        blocks[block], blocks["model"] = work, "target += -0.5 * dot_self(y);"
    else:
        blocks[block] = work
    return "".join(f"{name} {{\n  {text}\n}}\n" for name, text in blocks.items() if text)


def moved(name: str, to: str, number: int, base: str = "") -> str:
    """A local variable `to` that is the line through `name` at the parameter."""
    kind, start, x = VARIABLES[name].type, base or name, f"x[{number}]"
    if not kind.startswith("array"):
        return f"{kind} {to} = {start} + {x} * {name}_slope; "
    sizes = VARIABLES[name].type.removeprefix("array[").partition("]")[0].split(",")
    loops = "".join(f"for (j{axis}_ in 1:{size}) " for axis, size in enumerate(sizes))
    at = ", ".join(f"j{axis}_" for axis in range(len(sizes)))
    return f"{kind} {to}; {loops}{to}[{at}] = {start}[{at}] + {x} * {name}_slope[{at}]; "


def data_for(cases: Sequence[Case], place: str) -> dict[str, object]:
    """The data of `program(cases, place)`, by the names that it declares."""
    _, called, differentiated = PLACES[place]
    values: dict[str, object] = {}
    moving = {name for case in cases for name in case.used if differentiated and case.moves(name)}
    for case in cases:
        for name in case.used:
            renamed = name in moving and not called
            values[f"{name}_base" if renamed else name] = VARIABLES[name].base
    return values | {f"{name}_slope": VARIABLES[name].slope for name in moving}
