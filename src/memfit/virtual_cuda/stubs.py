"""The stub libraries: built from ``source/`` for the CUDA that torch was built for.

PyTorch's CUDA build initialises, dispatches, allocates and trains when small libraries stand in
front of NVIDIA's: they keep the books of device memory and launch nothing. What is written by hand
is in ``source/``, every other function that the real library exports comes from ``generated.py``.
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
from memfit.virtual_cuda.generated import (
    declared,
    exported,
    from_header,
    passed_to_driver,
    succeeding,
)

__all__ = ["Stubs", "build_stubs"]

_SOURCE = Path(__file__).parent / "source"
_FUNCTION = re.compile(
    r"^(?:int|unsigned|void \*\*|void|size_t|const char \*) ?\*{0,2}(\w+)\(", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class _Library:
    """One library that is stood in for.

    Args:
        sources: what is written by hand.
        file: its name; a pattern where the number is not CUDA's.
        prefixes: of its functions.
        title: as NVIDIA writes it, where its functions follow from its header.
        headers: that declare them.
    """

    sources: tuple[str, ...]
    file: str
    prefixes: tuple[str, ...]
    title: str = ""
    headers: tuple[str, ...] = ()


#: These two come with the GPU's driver, not with torch.
_DRIVER = _Library(("driver",), "libcuda.so.1", ("cu",), headers=("cuda.h",))
_MONITOR = _Library(("monitor",), "libnvidia-ml.so.1", ("nvml",))


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
    major = version // 1000
    packages = _packages()
    include = _headers(packages)
    real = {library: _find(packages, library.file) for library in _libraries(major)}
    folder = _folder(cache, version, real.values())
    if not folder.is_dir():
        _build_all(folder, real, include, version)
    names = [path.name for path in real.values()] + [_DRIVER.file, _MONITOR.file]
    cudnn = next(path for path in real.values() if path.name == "libcudnn.so.9")
    return Stubs(tuple(folder / name for name in names), cudnn, major)


def _libraries(major: int) -> tuple[_Library, ...]:
    """What torch brings along; the runtime first, which the others rest on."""
    return (
        _Library(("runtime", "streams", "kernels"), f"libcudart.so.{major}", ("cuda", "__cuda")),
        _Library(("blas",), f"libcublas.so.{major}", ("cublas",)),
        _Library(("blaslt",), f"libcublasLt.so.{major}", ("cublasLt",)),
        _Library(("dnn", "recurrent"), "libcudnn.so.9", ("cudnn",)),
        _Library(("compiler",), f"libnvrtc.so.{major}", ("nvrtc",)),
        _Library(
            ("solver",), "libcusolver.so.[0-9]*", ("cusolver",), "cuSOLVER",
            ("cusolverDn.h", "cusolver_common.h"),
        ),
        _Library(("sparse",), "libcusparse.so.[0-9]*", ("cusparse",), "cuSPARSE", ("cusparse.h",)),
        _Library(("fourier",), "libcufft.so.[0-9]*", ("cufft",), "cuFFT", ("cufft.h", "cufftXt.h")),
    )  # fmt: skip


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
    places = [
        path for folder in ("nvidia/*", "torch") for path in packages.glob(f"{folder}/lib/{file}")
    ]
    if not places:
        raise NoStubs(f"{file} of the CUDA build of PyTorch is not there.")
    return places[0]


def _headers(packages: Path) -> tuple[Path, ...]:
    """Folders of headers; triton has the driver's, too."""
    found = dict.fromkeys(path.parent for path in packages.glob("nvidia/*/include/cu*.h"))
    if not any((path / "driver_types.h").is_file() for path in found):
        raise NoStubs("CUDA's driver_types.h is not there; pip's NVIDIA packages bring it.")
    return (*found, packages / "triton" / "backends" / "nvidia" / "include")


def _header(include: Iterable[Path], name: str) -> Path:
    for path in include:
        if (path / name).is_file():
            return path / name
    raise NoStubs(f"CUDA's {name} is not there; triton and pip's NVIDIA packages bring it.")


def _folder(cache: Path | None, version: int, real: Iterable[Path]) -> Path:
    """A place for these stubs alone: other sources or libraries have another."""
    if cache is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "memfit"
    digest = hashlib.sha256(f"{version}".encode())
    for path in sorted(_SOURCE.iterdir()):
        digest.update(path.read_bytes())
    for name in ("stubs.py", "generated.py"):
        digest.update(Path(__file__).with_name(name).read_bytes())
    for path in real:
        digest.update(f"{path} {path.stat().st_size}".encode())
    return cache / f"virtual-cuda-{digest.hexdigest()[:16]}"


def _build_all(
    folder: Path, real: dict[_Library, Path], include: tuple[Path, ...], version: int
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
        tools = _Tools(compiler, include, version, work)
        for library, path in real.items():
            tools.build(library, path.name, exported(path, library.prefixes))
        tools.build(_DRIVER, _DRIVER.file, tools.parameters(_DRIVER))
        tools.build(_MONITOR, _MONITOR.file, ())
        work.rename(folder)
    except (OSError, subprocess.SubprocessError) as error:
        if not folder.is_dir():  # else another process was first
            raise NoStubs(f"Stub libraries cannot be made in {folder.parent}: {error}") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Tools:
    """What libraries are built with.

    Args:
        compiler: of C.
        include: folders of headers.
        version: of CUDA, as it writes it.
        folder: where they are built.
    """

    compiler: str
    include: tuple[Path, ...]
    version: int
    folder: Path

    def build(self, library: _Library, file: str, names: Iterable[str]) -> None:
        """Make one library.

        Args:
            library: what it is.
            file: its name.
            names: of all its functions.

        Raises:
            NoStubs: it does not compile.
        """
        sources = [_SOURCE / f"{name}.c" for name in library.sources]
        texts = (source.read_text(encoding="utf-8") for source in sources)
        written = {name for text in texts for name in _FUNCTION.findall(text)}
        generated = self.folder / f"{library.sources[0]}-generated.c"
        others = (name for name in names if name not in written)
        generated.write_text("\n".join(self._generated(library, others)), encoding="utf-8")
        version_node = self.folder / f"{library.sources[0]}.map"
        named = file.replace("-", "_")  # which a linker's script does not take
        version_node.write_text(f"{named} {{ global: *; }};\n", encoding="utf-8")
        command = [
            self.compiler, "-O1", "-w", "-shared", "-fPIC", f"-DCUDA_VERSION={self.version}",
            *(f"-I{path}" for path in (_SOURCE, *self.include)), *map(str, sources),
            str(generated), f"-Wl,-soname,{file}", f"-Wl,--version-script,{version_node}",
            *map(str, self.folder.glob("libcudart.so.*")),
            "-ldl", "-lpthread", "-o", str(self.folder / file),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NoStubs(f"{file} does not compile: {done.stderr.strip()[-500:]}")

    def parameters(self, library: _Library) -> dict[str, tuple[str, ...]]:
        """Of each function in the headers of a library."""
        return declared(_header(self.include, name) for name in library.headers)

    def _generated(self, library: _Library, names: Iterable[str]) -> Iterator[str]:
        if library is _DRIVER:
            return passed_to_driver(names)
        if library.title:
            return from_header(names, self.parameters(library), library.title)
        return succeeding(names)
