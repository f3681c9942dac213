"""Compiled code on disk is never older than its sources."""

import ast
from pathlib import Path

import fedsi
from fedsi import compiler

PACKAGE = Path(fedsi.__file__).parent


def names_in(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def compiled_names(tree: ast.Module) -> set[str]:
    """Return the objects that a module's compiled functions refer to, directly or indirectly."""
    made = {"compiled", "compiled_as_written", "overload", "intrinsic"}
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    pending = [
        function
        for function in functions.values()
        if any(names_in(decorator) & made for decorator in function.decorator_list)
    ]
    seen: set[str] = set()
    while pending:
        names = names_in(pending.pop()) - seen
        seen |= names
        pending += [functions[name] for name in names if name in functions]
    return seen


def test_everything_that_compiled_code_is_made_of_is_among_the_sources() -> None:
    checked = 0
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        used = compiled_names(tree)
        if not used:
            continue
        assert str(path.relative_to(PACKAGE)) in compiler.SOURCES
        for node in tree.body:
            if not isinstance(node, ast.ImportFrom) or not str(node.module).startswith("fedsi."):
                continue
            if used & {alias.name for alias in node.names}:
                source = str(node.module).removeprefix("fedsi.").replace(".", "/") + ".py"
                assert source in compiler.SOURCES, f"{path.name} compiles in what {source} has"
                checked += 1
    assert checked > 10


def test_a_changed_source_is_compiled_anew() -> None:
    assert compiler._FOLDER.name == f"compiled-{compiler.sources_sha256()[:16]}"
    assert all((PACKAGE / name).is_file() for name in compiler.SOURCES)
    assert str(compiler._FOLDER) in str(_kept_at())


def _kept_at() -> object:
    from fedsi.kernels.cpu.layer_norm import normalise

    return normalise._cache.cache_path  # type: ignore[attr-defined]
