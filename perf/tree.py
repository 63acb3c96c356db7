"""How large the package is and how it is cut: ``python perf/tree.py [ROOT]``.

Lines are physical lines of ``*.py``. A one-use helper is a module-level function or method whose name begins with an
underscore and is named once beside its definition. A shared name is a class name that stands for two or more classes.
"""

import ast
import sys
from collections import Counter, defaultdict
from pathlib import Path
from statistics import median


def main(root: Path) -> None:
    rooms: Counter[str] = Counter()
    functions: list[int] = []
    longest: list[tuple[int, str]] = []
    classes: dict[str, list[str]] = defaultdict(list)
    helpers: Counter[str] = Counter()
    names: Counter[str] = Counter()
    files = sorted((root / "blindspot").rglob("*.py"))
    sizes = []
    for path in files:
        text = path.read_text(encoding="utf-8")
        place = path.relative_to(root / "blindspot")
        lines = len(text.splitlines())
        sizes.append(lines)
        rooms[place.parts[0]] += lines
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                functions.append(length)
                longest.append((length, f"{place}:{node.name}"))
                if node.name.startswith("_") and not node.name.startswith("__"):
                    helpers[node.name] += 1
            elif isinstance(node, ast.ClassDef):
                classes[node.name].append(str(place))
            elif isinstance(node, ast.Name):
                names[node.id] += 1
            elif isinstance(node, ast.Attribute):
                names[node.attr] += 1
    private = [name for name, count in helpers.items() if count == 1]
    once = [name for name in private if names[name] <= 1]
    shared = {name: places for name, places in classes.items() if len(places) > 1}
    tests = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (root / "tests").rglob("*.py"))
    print(f"package: {sum(sizes):,} lines in {len(files)} files; tests: {tests:,} lines")
    print(f"median file {median(sizes):.0f} lines, function {median(functions):.0f} of {len(functions):,}")
    print(f"one-use helpers: {len(once)} of {len(private)} private names ({len(once) / len(private):.0%})")
    print(f"class names that stand for several classes: {len(shared)}: {', '.join(sorted(shared))}")
    print(
        f"functions over 60 lines: {', '.join(f'{name} {length}' for length, name in sorted(longest) if length > 60)}"
    )
    for room, lines in rooms.most_common():
        print(f"{lines:>7,}  {room}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1])
