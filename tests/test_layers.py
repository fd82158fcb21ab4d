"""The architecture as a test: who may import whom, and what no file may do.

Every rule reads source with ``ast``, so nothing is imported, and every rule is shown to fail on
a small bad source at the end of this file.
"""

import ast
import functools
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "jaxsed"

# The part of the package that is directly below jaxsed/, and its layer. A part imports only
# lower layers; inside a part (a folder) files import each other freely, but never in a circle.
LAYERS = {
    "core": 0,
    "io": 1, "cosmology": 1, "params": 1,
    "bands": 2, "likelihood": 2, "rest_frame": 2,
    "sps": 3, "nets": 3, "learn": 3, "problem": 3,
    "emulators": 4, "stars": 4, "halos": 4,
    "infer": 5,
    "workflows": 6,
    "plots": 7, "catalog": 7,
    "posterior": 8, "cli": 8,
    "examples": 0,  # data only
    "weights": 9,  # the scripts that make the shipped files: they use everything, nothing uses them
}  # fmt: skip
ROOT_LAYER = 10  # jaxsed/__init__.py itself
FORBIDDEN_PAIRS = {("emulators", "sps"), ("stars", "sps"), ("halos", "sps")}

# One owner per library: the longest matching prefix decides who may name it.
OWNERS = {
    "flax": {"nets"},
    "flax.struct": set(LAYERS),
    "optax": {"learn"},
    "distrax": {"infer"},
    "tensorflow_probability": {"infer"},
    "blackjax": {"infer"},
    "numpyro": {"infer"},
    "numpyro.infer": {"infer"},
    "numpyro.distributions": {"params", "likelihood", "sps", "infer", "workflows"},
    "matplotlib": {"plots"},
    "corner": {"plots"},
    "sedpy": {"bands"},
    "sklearn": {"halos"},
    "colossus": {"halos"},
    "fsps": {"sps"},
    "typer": {"cli"},
}
# Slow or fragile to import: only inside the function that needs them.
LAZY = {
    "matplotlib", "corner", "arviz", "distrax", "tensorflow_probability", "fsps",
    "sklearn", "colossus",
}  # fmt: skip
PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
# The one importer of published networks may use the unpickler, to refuse all but plain arrays.
UNPICKLER = "jaxsed.emulators.spectral.unpickle"
UNPICKLER_MAY = {"pickle", "pickle.Unpickler"}
GLOBAL_SETTINGS = {
    "jax.config.update", "numpyro.enable_x64", "numpyro.set_platform",
    "numpyro.set_host_device_count",
}  # fmt: skip
# tests/conftest.py may: it undoes what importing DSPS does


class Name(NamedTuple):
    """A dotted name that a source refers to: ``numpy.load``, ``jaxsed.sps.dust.attenuation``."""

    dotted: str
    line: int
    imported: bool  # by an import statement, rather than as an attribute of something imported
    lazy: bool  # inside a function, or only for the type checker


@functools.cache
def names_used(module: str, tree: ast.Module) -> tuple[Name, ...]:
    """Every dotted name reached from an import, whatever it was called on the way."""
    package = module.split(".")[:-1]
    aliases: dict[str, str] = {}
    found: list[Name] = []

    def walk(node: ast.AST, lazy: bool) -> None:
        if isinstance(node, ast.Import):
            for item in node.names:
                aliases[item.asname or item.name.split(".")[0]] = (
                    item.name if item.asname else item.name.split(".")[0]
                )
                found.append(Name(item.name, node.lineno, True, lazy))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *(node.module.split(".") if node.module else [])])
            for item in node.names:
                aliases[item.asname or item.name] = f"{source}.{item.name}"
                found.append(Name(f"{source}.{item.name}", node.lineno, True, lazy))
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            lazy = True
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            lazy = True
        for child in ast.iter_child_nodes(node):
            walk(child, lazy)

    walk(tree, False)
    attributes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    reached = ((resolve(node, aliases), node.lineno) for node in attributes)
    return (*found, *(Name(dotted, line, False, True) for dotted, line in reached if dotted))


def resolve(node: ast.AST, aliases: dict[str, str]) -> str | None:
    """``np.load`` -> ``numpy.load``, or None where the expression does not start at an import."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in aliases:
        return None
    return ".".join([aliases[node.id], *reversed(parts)])


def longest_prefix(dotted: str, table: Collection[str]) -> str | None:
    parts = dotted.split(".")
    heads = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((head for head in heads if head in table), None)


def part_of(dotted: str) -> str:
    """The part of the package that a dotted name is in; "" for jaxsed/__init__.py itself."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LAYERS else ""


def is_of_package(dotted: str) -> bool:
    """Whether a name is one of ours that the layers rule; the version may be read from anywhere."""
    head, *rest = dotted.split(".")
    return head == "jaxsed" and bool(rest) and rest[0] != "__version__"


def layer_violations(module: str, tree: ast.Module) -> list[str]:
    """Upward and sideways imports, foreign libraries, and eager imports of lazy ones."""
    part = part_of(module)
    if not part and module != "jaxsed.__init__":
        return [f"{module} is in no layer: give its part of the package a line in LAYERS"]
    layer = LAYERS.get(part, ROOT_LAYER)
    problems = []
    for name in names_used(module, tree):
        where = f"{module}:{name.line}"
        if is_of_package(name.dotted):
            other = part_of(name.dotted)
            other_layer = LAYERS.get(other, ROOT_LAYER)
            sideways = other_layer == layer and layer > 0 and other != part
            if other != part and (other_layer > layer or sideways):
                way = "sideways" if sideways else "upward"
                problems.append(f"{where} {way} use of {name.dotted}")
            if (part, other) in FORBIDDEN_PAIRS:
                problems.append(f"{where} {part} must not use {other}: let the caller hand it in")
        library = longest_prefix(name.dotted, OWNERS)
        if library and part not in OWNERS[library] | {"weights"}:
            owners = ", ".join(sorted(OWNERS[library]))
            problems.append(f"{where} {name.dotted} belongs to {owners}")
        if longest_prefix(name.dotted, LAZY) and not name.lazy and part != "weights":
            problems.append(f"{where} {name.dotted} must be imported inside a function")
    return problems


def safety_violations(module: str, tree: ast.Module) -> list[str]:
    """Pickles, evaluation of text, and settings that outlive the file."""
    problems = []
    for name in names_used(module, tree):
        where = f"{module}:{name.line}"
        if name.dotted.split(".")[0] in PICKLES and (name.imported or module == UNPICKLER):
            if module != UNPICKLER or name.dotted not in UNPICKLER_MAY:
                problems.append(f"{where} {name.dotted}: nothing is pickled here")
        if longest_prefix(name.dotted, GLOBAL_SETTINGS) and module != "tests.conftest":
            problems.append(f"{where} {name.dotted} changes a global setting")
    for node in ast.walk(tree):
        where = f"{module}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                problems.append(f"{module}:{node.value.lineno} allow_pickle must be False")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in {"eval", "exec"}:
                problems.append(f"{where} {node.func.id}() of text")
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any("config.jax_" in ast.unparse(target) for target in targets):
            problems.append(f"{where} assigns to jax.config")
    return problems


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Import circles between files: each one found, as the list of its modules."""
    done: set[str] = set()
    found: list[list[str]] = []

    def visit(module: str, path: list[str]) -> None:
        if module in path:
            found.append([*path[path.index(module) :], module])
        elif module not in done:
            for other in sorted(graph.get(module, ())):
                visit(other, [*path, module])
            done.add(module)

    for module in sorted(graph):
        visit(module, [])
    return found


def import_graph(sources: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Which file imports which when it is loaded; a package stands for its ``__init__``."""
    known = {name.removesuffix(".__init__"): name for name in sources}
    graph: dict[str, set[str]] = {}
    for module, tree in sources.items():
        loaded = (n for n in names_used(module, tree) if n.imported and not n.lazy)
        used = {longest_prefix(n.dotted, known) for n in loaded}
        graph[module] = {known[name] for name in used if name} - {module, "jaxsed.__init__"}
    return graph


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)


def parse(paths: Iterable[Path]) -> dict[str, ast.Module]:
    return {module_name(path): ast.parse(path.read_text("utf-8")) for path in sorted(paths)}


@functools.cache
def package_sources() -> dict[str, ast.Module]:
    return parse(PACKAGE.rglob("*.py"))


@functools.cache
def all_sources() -> dict[str, ast.Module]:
    others = (
        path
        for folder in ("tests", "benchmarks", "examples")
        for path in (REPOSITORY / folder).rglob("*.py")
    )
    return package_sources() | parse(others)


CONFIGURED = {"plan", "run", "citations"}
"""Modules of the catalogue that know a `Config`: it is resolved to a `Plan`, and cited."""


def test_a_configuration_is_resolved_once():
    """After the plan no module reads a key."""
    knowing = {
        module
        for module, tree in package_sources().items()
        for name in names_used(module, tree)
        if re.fullmatch(r"jaxsed\.catalog\.config\.(\w+\.)?(Config|SamplerConfig)", name.dotted)
        and not module.startswith("jaxsed.catalog.config")
    }
    assert knowing == {f"jaxsed.catalog.{name}" for name in CONFIGURED}


def test_imports_go_down_only():
    assert [v for m, tree in package_sources().items() for v in layer_violations(m, tree)] == []


def test_no_pickle_no_eval_no_global_setting():
    assert [v for m, tree in all_sources().items() for v in safety_violations(m, tree)] == []


def test_no_import_circle():
    assert circles(import_graph(package_sources())) == []


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("jaxsed.sps.models.galaxy", "from jaxsed.infer import sample", "upward"),
        ("jaxsed.sps.models.galaxy", "def f():\n    from jaxsed.infer import sample", "upward"),
        ("jaxsed.sps.models.galaxy", "from ...infer.nuts import run", "upward"),
        ("jaxsed.sps.models.galaxy", "from jaxsed import problem", "sideways"),
        ("jaxsed.learn", "import jaxsed.nets.mlp", "sideways"),
        ("jaxsed.plots", "from jaxsed.catalog.results import Results", "sideways"),
        ("jaxsed.core.constants", "from jaxsed.sps.dust.attenuation import power_law", "upward"),
        ("jaxsed.catalog.run", "from jaxsed import load_results", "upward"),
        ("jaxsed.catalog.run", "import jaxsed\nread = jaxsed.load_results", "upward"),
        ("jaxsed.emulators.registry", "from jaxsed.sps import dust", "must not use sps"),
        ("jaxsed.gadgets", "x = 1", "in no layer"),
        ("jaxsed.sps.models.galaxy", "import optax", "belongs to learn"),
        ("jaxsed.emulators.registry", "import flax.linen as nn", "belongs to nets"),
        ("jaxsed.stars.data", "import flax.struct\nx = flax.linen.Dense", "belongs to nets"),
        ("jaxsed.stars.data", "import numpyro as npr\nk = npr.infer.NUTS", "belongs to infer"),
        ("jaxsed.catalog.run", "from blackjax import nuts", "belongs to infer"),
        ("jaxsed.catalog.run", "def f():\n    import matplotlib.pyplot", "belongs to plots"),
        ("jaxsed.plots", "import matplotlib.pyplot as plt", "inside a function"),
        ("jaxsed.infer.nuts", "import arviz", "inside a function"),
    ],
)
def test_layer_rules_can_fail(module, source, complaint):
    problems = layer_violations(module, ast.parse(source))
    assert any(complaint in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("jaxsed.infer.nuts", "from jaxsed.problem import Problem\nimport blackjax"),
        ("jaxsed.sps.models.galaxy", "from . import dust\nfrom jaxsed.sps.ssp.grid import SSPGrid"),
        ("jaxsed.sps.__init__", "from jaxsed.sps.dust.attenuation import power_law"),
        ("jaxsed.params.theta", "from jaxsed.core import keys\nimport numpyro.distributions"),
        ("jaxsed.sps.models.provabgs", "import flax.struct\n@flax.struct.dataclass\nclass A: ..."),
        ("jaxsed.catalog.results", "from jaxsed import __version__"),
        ("jaxsed.catalog.run", "import jaxsed\nversion = jaxsed.__version__.split('.')"),
        ("jaxsed.plots", "def corner(x):\n    import matplotlib.pyplot as plt\n    return plt"),
        ("jaxsed.plots", "if TYPE_CHECKING:\n    from matplotlib.figure import Figure"),
        ("jaxsed.infer.amortised.flow", "def f():\n    import distrax"),
        ("jaxsed.infer.amortised", "from jaxsed.infer.amortised.flow import Flow"),
        ("jaxsed.weights.make_ssp", "from jaxsed.sps import ssp\nimport matplotlib.pyplot"),
    ],
)
def test_layer_rules_can_pass(module, source):
    assert layer_violations(module, ast.parse(source)) == []


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("import pickle", "pickled"),
        ("def f():\n    from joblib import dump", "pickled"),
        ("import dill as d", "pickled"),
        ("import numpy as np\nnp.load('a.npz', allow_pickle=True)", "allow_pickle"),
        ("from numpy import load\nload('a.npz', allow_pickle=flag)", "allow_pickle"),
        ("import jax\njax.config.update('jax_enable_x64', True)", "global setting"),
        ("from jax import config\nconfig.update('jax_enable_x64', True)", "global setting"),
        ("import jax\njax.config.jax_enable_x64 = True", "assigns to jax.config"),
        ("import numpyro\nnumpyro.enable_x64()", "global setting"),
        ("eval(text)", "eval"),
    ],
)
def test_safety_rules_can_fail(source, complaint):
    problems = safety_violations("jaxsed.sps.models.galaxy", ast.parse(source))
    assert any(complaint in problem for problem in problems), problems


@pytest.mark.parametrize(
    "source",
    ["import pickle\npickle.loads(data)", "from pickle import load", "import dill", "eval(text)"],
)
def test_the_unpickler_may_do_nothing_else(source):
    assert safety_violations(UNPICKLER, ast.parse(source))
    allowed = ast.parse("import pickle\nclass Reader(pickle.Unpickler): ...")
    assert safety_violations(UNPICKLER, allowed) == []
    assert safety_violations("jaxsed.emulators.spectral.emulator", allowed)


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np\nnp.load('a.npz', allow_pickle=False)",
        "import jax\nwide = jax.config.jax_enable_x64",
        "import jax\nwith jax.enable_x64(True):\n    pass",
        "model.eval()",
    ],
)
def test_safety_rules_can_pass(source):
    assert safety_violations("jaxsed.sps.models.galaxy", ast.parse(source)) == []


def test_circle_rule_can_fail_and_pass():
    circle = {
        "jaxsed.sps.dust.attenuation": ast.parse("from jaxsed.sps import igm"),
        "jaxsed.sps.igm": ast.parse("from jaxsed.sps.dust.attenuation import power_law"),
    }
    assert circles(import_graph(circle)) == [
        ["jaxsed.sps.dust.attenuation", "jaxsed.sps.igm", "jaxsed.sps.dust.attenuation"]
    ]
    chain = {
        "jaxsed.sps.__init__": ast.parse("from jaxsed.sps.dust.attenuation import power_law"),
        "jaxsed.sps.dust.attenuation": ast.parse("from jaxsed.sps.igm import transmission"),
        "jaxsed.sps.igm": ast.parse("def f():\n    from jaxsed.sps.dust.attenuation import k"),
    }
    assert circles(import_graph(chain)) == []
