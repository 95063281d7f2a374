"""The stub libraries: built from ``source/`` for the CUDA that torch was built for.

PyTorch's CUDA build initialises, dispatches, allocates and trains when small libraries stand in
front of NVIDIA's: they keep the books of device memory and launch nothing. What is written by hand
is in ``source/``; every other function that the real library exports gets a stub that succeeds.
They are made where they are used, with the compiler and the headers that are there (pip's NVIDIA
packages bring theirs), and hold nothing of NVIDIA's.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from memfit.errors import NoStubs

__all__ = ["Stubs", "build_stubs"]

_SOURCE = Path(__file__).parent / "source"
_FUNCTION = re.compile(
    r"^(?:int|unsigned|void \*\*|void|size_t|const char \*) ?\*{0,2}(\w+)\(", re.MULTILINE
)

#: Functions of cuDNN that need no device: the real library makes and fills descriptors.
_REAL = re.compile(
    r"cudnn(?:(?:Create|Set|Destroy|Restore|Get(?:Filter|Tensor)Nd).*Descriptor.*"
    r"|SetConvolution\w+|SetPooling\w+|Get(?:Last)?ErrorString|GetVersion|GetProperty"
    r"|BackendDestroyDescriptor|BackendFinalize|BackendGetAttribute"
    r"|GetRNNWeightSpaceSize|GetRNNWeightParams)"
)


@dataclass(frozen=True, slots=True)
class _Library:
    """One library that is stood in for: its sources, its file, and how its functions are named."""

    sources: tuple[str, ...]
    file: str
    prefixes: tuple[str, ...]


#: Comes with the GPU's driver, not with torch: its functions are those of the header.
_DRIVER = _Library(("driver",), "libcuda.so.1", ("cu",))


@dataclass(frozen=True, slots=True)
class Stubs:
    """Stub libraries, ready to be loaded before NVIDIA's.

    Args:
        libraries: in the order in which they are loaded.
        cudnn: the real cuDNN.
        cuda_major: of the CUDA that torch was built for.
    """

    libraries: tuple[Path, ...]
    cudnn: Path
    cuda_major: int


def build_stubs(cache: Path | None = None) -> Stubs:
    """The stub libraries for the installed torch; built once, kept in a cache.

    Args:
        cache: folder for them; ``$XDG_CACHE_HOME/memfit`` when omitted.

    Raises:
        NoStubs: another system than Linux, a torch without CUDA, no compiler or no headers.
    """
    if not sys.platform.startswith("linux"):
        raise NoStubs("PyTorch's CUDA build runs without a GPU on Linux only.")
    version = _cuda_version()
    packages = _packages()
    libraries = _libraries(version // 1000)
    include = _headers(packages)
    real = {each.file: _find(packages, each.file) for each in libraries if each is not _DRIVER}
    real[_DRIVER.file] = _driver_header(include)
    folder = _folder(cache, version, real.values())
    if not folder.is_dir():
        _build_all(folder, libraries, real, include, version)
    return Stubs(
        tuple(folder / library.file for library in libraries),
        real["libcudnn.so.9"],
        version // 1000,
    )


def _libraries(major: int) -> tuple[_Library, ...]:
    return (
        _Library(("runtime",), f"libcudart.so.{major}", ("cuda", "__cuda")),
        _Library(("blas",), f"libcublas.so.{major}", ("cublas",)),
        _Library(("blaslt",), f"libcublasLt.so.{major}", ("cublasLt",)),
        _Library(("dnn", "recurrent"), "libcudnn.so.9", ("cudnn",)),
        _Library(("compiler",), f"libnvrtc.so.{major}", ("nvrtc",)),
        _DRIVER,
    )


def _cuda_version() -> int:
    """As CUDA writes it: 13020 is 13.2; read without loading torch."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        raise NoStubs("PyTorch is not installed.")
    text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    found = re.search(r"^cuda(?:: [^=]+)? = '(\d+)\.(\d+)'", text, re.MULTILINE)
    if found is None:
        raise NoStubs(
            "This PyTorch is a build without CUDA.",
            hint="Install the CUDA build; it needs no GPU.",
        )
    return 1000 * int(found[1]) + 10 * int(found[2])


def _packages() -> Path:
    """Where pip put torch and NVIDIA's libraries."""
    spec = find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parents[1]


def _find(packages: Path, file: str) -> Path:
    places = [*packages.glob(f"nvidia/*/lib/{file}"), *packages.glob(f"torch/lib/{file}")]
    if not places:
        raise NoStubs(f"{file} of the CUDA build of PyTorch is not there.")
    return places[0]


def _headers(packages: Path) -> tuple[Path, ...]:
    found = [path.parent for path in packages.glob("nvidia/*/include/driver_types.h")]
    extra = packages / "triton" / "backends" / "nvidia" / "include"
    if not found:
        raise NoStubs("CUDA's driver_types.h is not there; pip's NVIDIA packages bring it.")
    return (*found, *([extra] if extra.is_dir() else []))


def _driver_header(include: Iterable[Path]) -> Path:
    for path in include:
        if (path / "cuda.h").is_file():
            return path / "cuda.h"
    raise NoStubs("CUDA's cuda.h is not there; triton and pip's NVIDIA packages bring it.")


def _folder(cache: Path | None, version: int, real: Iterable[Path]) -> Path:
    """A place for these stubs alone: other sources or libraries have another."""
    if cache is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "memfit"
    digest = hashlib.sha256(f"{version}".encode())
    for path in sorted(_SOURCE.iterdir()):
        digest.update(path.read_bytes())
    digest.update(Path(__file__).read_bytes())
    for path in real:
        digest.update(f"{path} {path.stat().st_size}".encode())
    return cache / f"virtual-cuda-{digest.hexdigest()[:16]}"


def _build_all(
    folder: Path,
    libraries: tuple[_Library, ...],
    real: dict[str, Path],
    include: tuple[Path, ...],
    version: int,
) -> None:
    compiler = shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc")
    if compiler is None or shutil.which("nm") is None:
        raise NoStubs(
            "There is no C compiler here, which PyTorch's CUDA build needs to run without a GPU.",
            hint="Install gcc (Debian: apt install gcc libc6-dev binutils).",
        )
    work = folder.with_name(f"{folder.name}.{os.getpid()}")
    try:
        work.mkdir(parents=True, exist_ok=True)
        for library in libraries:
            _build(library, real[library.file], work, compiler, include, version)
        work.rename(folder)
    except (OSError, subprocess.SubprocessError) as error:
        if not folder.is_dir():  # else another process was first
            raise NoStubs(f"Stub libraries cannot be made in {folder.parent}: {error}") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _build(
    library: _Library,
    real: Path,
    folder: Path,
    compiler: str,
    include: tuple[Path, ...],
    version: int,
) -> None:
    sources = [_SOURCE / f"{name}.c" for name in library.sources]
    texts = (source.read_text(encoding="utf-8") for source in sources)
    written = {name for text in texts for name in _FUNCTION.findall(text)}
    generated = folder / f"{library.sources[0]}-generated.c"
    named = _declared(real) if library is _DRIVER else _exported(real, library.prefixes)
    functions = [name for name in named if name not in written]
    generated.write_text("\n".join(_generated(library, functions)), encoding="utf-8")
    version_node = folder / f"{library.sources[0]}.map"
    version_node.write_text(f"{library.file} {{ global: *; }};\n", encoding="utf-8")
    command = [
        compiler, "-O1", "-w", "-shared", "-fPIC", f"-DCUDA_VERSION={version}",
        *(f"-I{path}" for path in (_SOURCE, *include)), *map(str, sources), str(generated),
        f"-Wl,-soname,{library.file}", f"-Wl,--version-script,{version_node}",
        *(str(path) for path in folder.glob("libcudart.so.*") if library is _DRIVER),
        "-ldl", "-lpthread", "-o", str(folder / library.file),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoStubs(f"{library.file} does not compile: {done.stderr.strip()[-500:]}")


def _exported(real: Path, prefixes: tuple[str, ...]) -> list[str]:
    """The functions that the real library gives, by name."""
    done = subprocess.run(
        ["nm", "-D", "--defined-only", str(real)], capture_output=True, text=True, check=True
    )
    rows = (line.split() for line in done.stdout.splitlines())
    names = {row[-1].partition("@")[0] for row in rows if row[-2] in "TtWw"}
    return sorted(name for name in names if name.startswith(prefixes))


def _declared(header: Path) -> list[str]:
    """The functions that the driver's header declares."""
    text = header.read_text(encoding="utf-8")
    return sorted(set(re.findall(r"CUDAAPI\s+(cu\w+)\s*\(", text)))


def _generated(library: _Library, functions: list[str]) -> Iterator[str]:
    """C for everything that is not written by hand."""
    yield '#include "card.h"'
    yield "#include <string.h>"
    yield "static const char *said[4096]; static int said_count;"
    yield (
        "void memfit_not_written(const char *name) {"
        " for (int i = 0; i < said_count; i++) if (!strcmp(said[i], name)) return;"
        " if (said_count < 4096) said[said_count++] = strdup(name); }"
    )
    yield "const char *memfit_said(int i) { return i < said_count ? said[i] : 0; }"
    if any(_is_real(name) for name in functions):
        yield "void *memfit_real(const char *name);"
    words = [f"long {letter}" for letter in "abcdefghijklmn"]
    for name in functions:
        if library is _DRIVER:
            yield (
                f"int {name}({', '.join(words)}) {{ return ((int (*)())memfit_driver_entry("
                f'"{name}"))({", ".join(word[-1] for word in words)}); }}'
            )
        elif _is_real(name):
            yield (
                f"long {name}({', '.join(words)}) {{ static long (*real)(); "
                f'if (!real) real = memfit_real("{name}"); '
                f"return real({', '.join(word[-1] for word in words)}); }}"
            )
        else:
            yield f'int {name}() {{ memfit_not_written("{name}"); return 0; }}'


def _is_real(name: str) -> bool:
    return _REAL.fullmatch(name) is not None
