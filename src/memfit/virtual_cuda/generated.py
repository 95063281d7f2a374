"""C for what is not written by hand: the other functions of the libraries that are stood in for."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["declared", "exported", "from_header", "passed_to_driver", "succeeding"]

#: Functions of cuDNN that need no device: the real library makes and fills descriptors.
_REAL = re.compile(
    r"cudnn(?:(?:Create|Set|Destroy|Restore|Get(?:Filter|Tensor)Nd).*Descriptor.*"
    r"|SetConvolution\w+|SetPooling\w+|Get(?:Last)?ErrorString|GetVersion|GetProperty"
    r"|BackendDestroyDescriptor|BackendFinalize|BackendGetAttribute"
    r"|GetRNNWeightSpaceSize|GetRNNWeightParams)"
)
_WORDS = [f"long {letter}" for letter in "abcdefghijklmn"]
_PASSED = ", ".join("abcdefghijklmn")

#: How headers of CUDA name the size of a work area that is written through a pointer.
_SIZE = re.compile(r"(size_t|int)\s*\*\s*(?:[lL]work|workSize|workspaceInBytes|p?[bB]ufferSize)\w*")
_MAKES = re.compile(r"\w+(?:Create|_createDescr)\w*")
_DROPS = re.compile(r"\w+(?:Destroy|_destroyDescr)\w*")


def exported(real: Path, prefixes: tuple[str, ...]) -> list[str]:
    """The functions that the real library gives, by name.

    Raises:
        subprocess.CalledProcessError: ``nm`` does not read it.
    """
    done = subprocess.run(
        ["nm", "-D", "--defined-only", str(real)], capture_output=True, text=True, check=True
    )
    rows = (line.split() for line in done.stdout.splitlines())
    names = {row[-1].partition("@")[0] for row in rows if row[-2] in "TtWw"}
    return sorted(name for name in names if name.startswith(prefixes))


def declared(headers: Iterable[Path]) -> dict[str, tuple[str, ...]]:
    """The functions that headers declare, and the parameters of each as they are written."""
    found = {}
    for header in headers:
        text = re.sub(r"/\*.*?\*/|//[^\n]*", "", header.read_text(encoding="utf-8"), flags=re.S)
        for name, parameters in re.findall(r"\b(cu\w+)\s*\(([^()]*)\)\s*;", text):
            found[name] = tuple(" ".join(each.split()) for each in parameters.split(","))
    return found


def succeeding(names: Iterable[str]) -> Iterator[str]:
    """They succeed and do nothing; those that describe something for cuDNN, cuDNN itself does."""
    yield "void *memfit_real(const char *name);"
    for name in names:
        if _REAL.fullmatch(name):
            yield (
                f"long {name}({', '.join(_WORDS)}) {{ static long (*real)(); "
                f'if (!real) real = memfit_real("{name}"); return real({_PASSED}); }}'
            )
        else:
            yield f"int {name}() {{ return 0; }}"


def passed_to_driver(names: Iterable[str]) -> Iterator[str]:
    """They are the runtime's, which has the driver's functions."""
    yield '#include "card.h"'
    for name in names:
        yield (
            f"int {name}({', '.join(_WORDS)}) "
            f'{{ return ((int (*)())memfit_driver_entry("{name}"))({_PASSED}); }}'
        )


def from_header(
    names: Iterable[str], parameters: dict[str, tuple[str, ...]], library: str
) -> Iterator[str]:
    """They make and drop handles, and need no work area, which is noted; undeclared ones fail.

    Args:
        names: of the functions.
        parameters: of each function that the header declares.
        library: the name that is noted.
    """
    yield '#include "card.h"'
    for name in names:
        if name not in parameters:
            yield f"int {name}() {{ return 1; }}"
            continue
        given = parameters[name]
        does = [
            f"*({size[1]} *)p{place} = 0;"
            for place, parameter in enumerate(given)
            if (size := _SIZE.fullmatch(parameter)) is not None
        ]
        if does:
            does.append(f'memfit_not_counted("{library}");')
        elif _MAKES.fullmatch(name) and "*" in given[0]:
            does.append("*(void **)p0 = malloc(64);")
        elif _DROPS.fullmatch(name):
            does.append("free((void *)p0);")
        taken = ", ".join(f"long p{place}" for place in range(len(given)))
        yield f"int {name}({taken}) {{ {' '.join(does)} return 0; }}"
