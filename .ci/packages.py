"""
Builds the wheel and the sdist and tries them as users get them: ``python .ci/packages.py``, about five minutes.

For every Python on this machine that the package supports it installs the wheel into two clean environments, with the
lowest and with the newest versions of what it requires, and runs tests against it from the unpacked sdist: the package of
the checkout is out of reach. Only what is committed counts.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Sequence
from email.parser import Parser
from pathlib import Path

ROOT = Path(__file__).parents[1]
OLDEST = (3, 10)
# What touches requests, urllib3, tenacity and logging, what starts processes, and what users meet first.
TESTS = (
    "tests/test_end_to_end.py",
    "tests/test_examples.py",
    "tests/test_formatting.py",
    "tests/test_frozen.py",
    "tests/client/test_client.py",
    "tests/client/test_transport.py",
    "tests/pipeline/test_retry.py",
)
PLUGIN = "pytest_dis_logging.py"  # beside the package, so that pytest need not import that
REQUIRED_IN_WHEEL = {PLUGIN, "dis_logging/py.typed", "dis_logging/emulator/__init__.py", "dis_logging/commands/demo.py"}
# requests 2 allows both lines of urllib3, and they differ in what a transport leans on.
OLD_URLLIB3 = "urllib3<2"


def main() -> None:
    """Runs every step and ends with what was tried, or at the first step that fails."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        run(sys.executable, "-m", "venv", str(work / "tools"))
        tools = work / "tools" / "bin" / "python"
        pip(tools, "install", "--upgrade", "pip", "build", "twine")  # dependency groups came with pip 25.1
        source = work / "source"
        run("git", "clone", "--quiet", str(ROOT), str(source))
        wheel, sdist = build(tools, source, work / "dist")
        check_wheel(wheel)
        check_sdist(sdist, source)
        run(str(tools), "-m", "twine", "check", "--strict", str(wheel), str(sdist))

        bench = unpack_tests(sdist, work / "bench")
        lowest = lowest_requirements(wheel)
        for python in supported_pythons():
            for kind, constraints in (("lowest", [*lowest, OLD_URLLIB3]), ("newest", [])):
                say(f"{python}, {kind}: {try_out(tools, python, constraints, wheel, bench, work / 'trial')}")
    say(f"packages are fine ({time.monotonic() - started:.0f} s)")


def say(text: str) -> None:
    """Prints what happens, at once."""
    print(f"+ {text}", flush=True)


def run(*command: str, cwd: Path | None = None) -> str:
    """Runs *command* and returns its output; ends the program, showing that, when it fails."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    result = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if result.returncode:
        sys.exit(f"{result.stdout}\n{' '.join(command)} failed with exit code {result.returncode}")
    return result.stdout


def require(condition: bool, complaint: str) -> None:
    """Ends the program with *complaint* unless *condition* holds."""
    if not condition:
        sys.exit(complaint)


# -- environments ---------------------------------------------------------------------------------------------------


def supported_pythons() -> list[Path]:
    """Returns one interpreter of each supported minor version: of pyenv, on the PATH, or the one that runs this."""
    candidates = [Path(sys.executable)]
    for directory in os.get_exec_path():
        candidates += Path(directory).glob("python3.[0-9]*")
    if shutil.which("pyenv"):
        candidates += Path(run("pyenv", "root").strip(), "versions").glob("*/bin/python3.[0-9]*")
    found: dict[tuple[int, int], Path] = {}
    for candidate in candidates:
        version = version_of(candidate)
        if version is not None and version >= OLDEST:
            found.setdefault(version, candidate)
    return [found[version] for version in sorted(found)]


def version_of(candidate: Path) -> tuple[int, int] | None:
    """Returns the minor version of an interpreter, None when it cannot be run or is not one for this package."""
    if not re.fullmatch(r"python(3(\.\d+)?)?", candidate.name):  # not python3.13t, python3.12-config
        return None
    program = "import sys, venv, ensurepip; print(sys.implementation.name, *sys.version_info[:2])"
    try:
        result = subprocess.run([candidate, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return None
    match = re.fullmatch(r"cpython (\d+) (\d+)\s*", result.stdout)
    return (int(match[1]), int(match[2])) if match and result.returncode == 0 else None


def pip(tools: Path, *arguments: str, cwd: Path | None = None) -> None:
    """Runs pip of the environment *tools*, on that environment or on the one that *arguments* name."""
    run(str(tools), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments, cwd=cwd)


# -- the distributions ----------------------------------------------------------------------------------------------


def build(python: Path, source: Path, where: Path) -> tuple[Path, Path]:
    """Builds the sdist, the wheel from it, and the wheel from the checkout, which must be the same."""
    say("build the sdist and the wheel")
    (source / "stray.txt").write_text("must not be packed")
    run(str(python), "-m", "build", "--outdir", str(where), str(source))
    run(str(python), "-m", "build", "--wheel", "--outdir", str(where / "direct"), str(source))
    (wheel,), (sdist,), (direct,) = where.glob("*.whl"), where.glob("*.tar.gz"), (where / "direct").glob("*.whl")
    require(contents(wheel) == contents(direct), "the sdist builds another wheel than the checkout")
    return wheel, sdist


def contents(wheel: Path) -> dict[str, bytes]:
    """Returns the files in *wheel*."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def check_wheel(wheel: Path) -> None:
    """Checks that *wheel* has what it must have, and nothing beside the package and its metadata."""
    files = contents(wheel)
    (information,) = {name.split("/")[0] for name in files if ".dist-info/" in name}
    needed = REQUIRED_IN_WHEEL | {f"{information}/licenses/LICENSE", f"{information}/entry_points.txt"}
    require(needed <= files.keys(), f"the wheel lacks {sorted(needed - files.keys())}")
    stray = [name for name in files if not name.startswith((f"{information}/", "dis_logging/", PLUGIN))]
    stray += [name for name in files if name.startswith("dis_logging/") and not name.endswith((".py", "/py.typed"))]
    require(not stray, f"the wheel has stray files: {stray}")
    entry_points = files[f"{information}/entry_points.txt"].decode()
    require("dis-logging = dis_logging.cli:main" in entry_points, f"no command in the wheel: {entry_points}")


def check_sdist(sdist: Path, source: Path) -> None:
    """Checks that *sdist* has every file that is committed, and no other."""
    with tarfile.open(sdist) as archive:
        packed = {name.split("/", 1)[1] for name in archive.getnames()}
    committed = set(run("git", "ls-files", cwd=source).splitlines())
    expected = committed | {"PKG-INFO"}
    require(
        packed == expected, f"the sdist lacks {sorted(expected - packed)}, or has stray {sorted(packed - expected)}"
    )
    require({"README.md", "tests/conftest.py"} <= packed, "the sdist has no README.md or no tests")


def lowest_requirements(wheel: Path) -> list[str]:
    """Returns the lower bounds of what *wheel* requires, as versions to install."""
    (metadata,) = (text for name, text in contents(wheel).items() if name.endswith(".dist-info/METADATA"))
    required = Parser().parsestr(metadata.decode()).get_all("Requires-Dist", [])
    bounds = [text for text in required if "extra ==" not in text]
    require(
        len(bounds) == 2 and all(re.fullmatch(r"(requests|tenacity)>=[0-9.]+", text) for text in bounds),
        f"the wheel must require requests and tenacity, each with a lower bound only, not {bounds}",
    )
    return [text.replace(">=", "==") for text in bounds]


def unpack_tests(sdist: Path, where: Path) -> Path:
    """Unpacks *sdist* without the package and returns the directory to run its tests in."""
    with tarfile.open(sdist) as archive:
        archive.extractall(where)
    (top,) = where.iterdir()
    shutil.rmtree(top / "dis_logging")
    return top


# -- the trial ------------------------------------------------------------------------------------------------------

# Prints what is installed beyond the package, its two requirements and theirs.
SURPLUS = """
import re
from importlib.metadata import distributions, requires

def normal(name):
    return name.lower().replace("_", "-")

installed = {normal(item.name) for item in distributions()}

def needed(name):
    plain = [text for text in requires(name) or () if "extra ==" not in text]
    names = {normal(re.match(r"[A-Za-z0-9._-]+", text)[0]) for text in plain}
    return {name}.union(*(needed(name) for name in names & installed))  # some are for other Pythons only

print(*sorted(installed - needed("requests") - needed("tenacity") - {"dis-logging"}))
"""
ORIGIN = "import dis_logging, sysconfig; print(dis_logging.__file__.startswith(sysconfig.get_path('purelib')))"
VERSIONS = (
    "from importlib.metadata import version as v; print(*[f'{n} {v(n)}' for n in ('requests', 'urllib3', 'tenacity')])"
)


def try_out(tools: Path, python: Path, constraints: Sequence[str], wheel: Path, bench: Path, where: Path) -> str:
    """Installs *wheel* into a clean environment, with *constraints*, and tests it; returns with what, and the result."""
    run(str(python), "-m", "venv", "--without-pip", str(where))
    interpreter = str(where / "bin" / "python")
    (where / "constraints.txt").write_text("\n".join(constraints))
    install = ("--python", interpreter, "install", "--constraint", str(where / "constraints.txt"))
    pip(tools, *install, str(wheel))
    surplus = run(interpreter, "-c", SURPLUS).strip()
    require(not surplus, f"installing the wheel brings more than it should: {surplus}")
    run(str(where / "bin" / "dis-logging"), "demo", cwd=where)

    pip(tools, *install, "--group", "core-tests", cwd=bench)
    pip(tools, "--python", interpreter, "check")
    require(run(interpreter, "-c", ORIGIN, cwd=bench).strip() == "True", "the tests would not test the wheel")
    versions = run(interpreter, "-c", VERSIONS).strip()
    # urllib3 1.26 leaves a socket to the garbage collector when a proxy refuses.
    leniency = ["-W", "ignore::ResourceWarning"] if OLD_URLLIB3 in constraints else []
    result = run(interpreter, "-m", "pytest", "-n", "3", "-q", "-p", "no:cacheprovider", *leniency, *TESTS, cwd=bench)
    shutil.rmtree(where)
    return f"{versions}: {result.splitlines()[-1]}"


if __name__ == "__main__":
    main()
