"""The catalogue's entries, its lookup, the context rule against its readings, and NVML faked."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import memfit.cards.catalogue as catalogue
from memfit.cards.catalogue import GPU, context_bytes, gpu, gpus, gpus_named, local_gpu
from memfit.cards.services import services
from memfit.errors import UnknownName, UsageError
from memfit.units import GIB, MIB

TABLES = tomllib.loads(Path(catalogue.__file__).with_name("gpus.toml").read_text("utf-8"))
ROWS = {row["key"]: row for family in TABLES["family"] for row in family["gpus"]}
CARDS = list(gpus().values())
# NVIDIA's names for the first number of a compute capability; the second number splits 7 and 8.
ARCHITECTURES = {
    (3, 5): "Kepler", (3, 7): "Kepler", (5, 0): "Maxwell", (5, 2): "Maxwell", (5, 3): "Maxwell",
    (6, 0): "Pascal", (6, 1): "Pascal", (6, 2): "Pascal", (7, 0): "Volta", (7, 2): "Volta",
    (7, 5): "Turing", (8, 0): "Ampere", (8, 6): "Ampere", (8, 7): "Ampere",
    (8, 9): "Ada Lovelace", (9, 0): "Hopper", (10, 0): "Blackwell", (11, 0): "Blackwell",
    (12, 0): "Blackwell",
}  # fmt: skip


def residuals_mib(state: str) -> list[float]:
    """Reading less rule, MiB, of every context reading in ``state``."""

    def rule(card: GPU) -> int:
        return card.eager_context_bytes if state == "eager" else card.context_bytes

    readings = [r for r in TABLES["context_reading"] if r["state"] == state]
    return [r["mib"] - rule(gpu(r["gpu"])) / MIB for r in readings]


# ---------------------------------------------------------------------------------- the entries


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.key)
def test_an_entry_is_within_what_cards_are(card: GPU) -> None:
    nominal_bytes = ROWS[card.key]["gib"] * GIB
    assert nominal_bytes * 0.9 < card.total_bytes < nominal_bytes * 1.01
    assert card.total_bytes - 64 * MIB < card.usable_bytes < card.total_bytes
    is_small = card.is_shared or nominal_bytes <= 4 * GIB  # boards, and cards of thin laptops
    assert (0 if is_small else 5) < card.multiprocessors <= 188
    assert (25 if is_small else 90) < card.bandwidth_gb_per_s <= 8000
    assert (30 if is_small else 50) * MIB < card.context_bytes < 800 * MIB
    assert card.eager_context_bytes > card.context_bytes
    least_l2 = MIB // 4 if is_small else MIB
    assert card.l2_cache_bytes is None or least_l2 <= card.l2_cache_bytes <= 128 * MIB
    assert card.architecture == ARCHITECTURES[card.compute_capability]
    assert card.total_source
    assert card.context_source
    assert not card.is_custom


def test_no_spelling_belongs_to_two_cards() -> None:
    owners: dict[str, set[str]] = {}
    for card in CARDS:
        for name in (card.key, card.name, *card.aliases):
            owners.setdefault(catalogue._spelling(name), set()).add(card.key)
    # Cards with one driver name: the bare name is an alias of neither, and means the first.
    assert {name: keys for name, keys in owners.items() if len(keys) > 1} == {}


def test_keys_are_plain_and_mapped_to_themselves() -> None:
    assert len(CARDS) == len(ROWS) > 110
    for key, card in gpus().items():
        assert card.key == key == key.lower()
        assert not set(key) - set("abcdefghijklmnopqrstuvwxyz0123456789-")


@pytest.mark.parametrize("name", ["t4", "v100", "p100", "a10g", "l4", "l40s", "a100", "h100-nvl"])
def test_rented_cards_are_there(name: str) -> None:
    assert gpu(name).total_bytes > 14 * GIB


def test_totals_that_cuda_printed() -> None:
    assert gpu("rtx-6000-ada").total_bytes == 50_865_307_648
    assert gpu("rtx-4090").total_bytes == 25_250_627_584
    assert gpu("a100-40gb").total_bytes == 42_298_834_944
    assert gpu("rtx-3060").total_bytes // MIB == 11_910


def test_the_reserve_rule_comes_near_the_readings() -> None:
    """Where a total was read, the rule for cards without a reading would have been close."""
    errors = []
    for family in TABLES["family"]:
        for row in family["gpus"]:
            if "total_source" in row:
                read = ("total_mib", "total_bytes", "total_source")
                bare = {k: v for k, v in row.items() if k not in read}
                ruled, _ = catalogue._total(tuple(family["compute_capability"]), bare)
                total_bytes = gpu(row["key"]).total_bytes
                errors.append(abs(ruled - total_bytes) / total_bytes)
    assert len(errors) > 30
    assert statistics.median(errors) < 0.01
    assert max(errors) < 0.03


# ---------------------------------------------------------------------------------- the context


def test_the_context_rule_lies_on_its_readings() -> None:
    lazy = residuals_mib("lazy")
    assert len(lazy) >= 25
    assert abs(statistics.median(lazy)) < 15
    assert statistics.median(map(abs, lazy)) < 30


def test_the_context_grows_with_resident_threads_not_with_multiprocessors_alone() -> None:
    """40 multiprocessors of a T4 hold 40,960 threads; 108 of an A100 hold 221,184."""
    assert context_bytes(40, (7, 5)) == 30 * MIB + 2400 * 40_960
    assert context_bytes(108, (8, 0)) == 30 * MIB + 2400 * 221_184
    assert context_bytes(80, (7, 0)) > context_bytes(80, (8, 6)) > context_bytes(80, (7, 5))


def test_a_bare_context_is_below_that_of_a_process_at_work() -> None:
    """Of cards alone with no display, that is: two readings are marked as perhaps with one."""
    bare = [r for r in TABLES["context_reading"] if r["state"] == "bare"]
    headless = [r for r in bare if "display" not in r["source"]]
    assert len(headless) >= 18
    assert all(r["mib"] * MIB < gpu(r["gpu"]).context_bytes for r in headless)


def test_the_eager_rule_lies_among_its_readings() -> None:
    eager = residuals_mib("eager")
    assert len(eager) >= 10
    assert abs(statistics.median(eager)) < 60
    assert statistics.median(map(abs, eager)) < 250


def test_an_unknown_capability_counts_as_the_newest_known_before_it() -> None:
    assert context_bytes(10, (8, 7)) == context_bytes(10, (8, 6))
    assert context_bytes(10, (13, 0)) == context_bytes(10, (12, 0))
    assert context_bytes(10, (2, 0)) == context_bytes(10, (3, 7))


# ------------------------------------------------------------------------------------ the lookup


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("rtx-3060", "rtx-3060"),
        ("3060", "rtx-3060"),
        ("RTX3060", "rtx-3060"),
        ("NVIDIA GeForce RTX 3060", "rtx-3060"),
        ("GeForce RTX 3060 12GB", "rtx-3060"),
        ("rtx 3060 8gb", "rtx-3060-8gb"),
        ("NVIDIA GeForce RTX 4060 Ti 16GB", "rtx-4060-ti-16gb"),
        ("4060ti", "rtx-4060-ti"),
        ("3070 Laptop", "rtx-3070-laptop"),
        ("NVIDIA GeForce RTX 3070 Laptop GPU", "rtx-3070-laptop"),
        ("a100", "a100-40gb"),
        ("A100-PCIE-40GB", "a100-40gb"),
        ("Tesla V100-SXM2-16GB", "v100-16gb"),
        ("T4", "t4"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("a6000", "rtx-a6000"),
        ("RTX 6000 Ada", "rtx-6000-ada"),
        ("Quadro RTX 6000", "quadro-rtx-6000"),
        ("titan rtx", "titan-rtx"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000"),
        ("RTX3060Ti", "rtx-3060-ti"),
        ("rtx 3090 24GB", "rtx-3090"),
        ("1080ti 11g", "gtx-1080-ti"),
        ("A100 80G", "a100-80gb"),
        ("V100 32 GiB", "v100-32gb"),
        ("rtx 4070 mobile", "rtx-4070-laptop"),
        ("GTX TITAN X", "titan-x"),
        ("NVIDIA TITAN X (Pascal)", "titan-x-pascal"),
        ("TITAN Xp", "titan-xp"),
        ("980 Ti", "gtx-980-ti"),
        ("Tesla K40", "k40"),
        ("MX150", "mx150"),
        ("Jetson Orin Nano 8GB", "jetson-orin-nano"),
        ("colab", "t4"),
        ("Kaggle", "t4"),
    ],
)
def test_spellings(name: str, key: str) -> None:
    assert gpu(name).key == key
    assert gpus()[name] is gpu(name)
    assert name in gpus()


@given(st.sampled_from(CARDS), st.sampled_from(["", " ", "-", "_"]), st.booleans())
def test_any_case_and_separator_finds_the_card(card: GPU, separator: str, upper: bool) -> None:
    name = card.key.replace("-", separator)
    assert gpu(name.upper() if upper else name) is card


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("rtx 3061", "rtx-3060"), ("NVIDIA GeForce RTX 4900", "rtx-4090"), ("h10", "h100")],
)
def test_an_unknown_name_names_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UnknownName, match="Unknown GPU") as caught:
        gpu(name)
    assert nearest in str(caught.value)
    assert "11GiB" in str(caught.value)


def test_the_mapping_behaves_as_mappings_do() -> None:
    with pytest.raises(KeyError):
        gpus()["voodoo2"]
    assert "voodoo2" not in gpus()
    assert gpus().get("voodoo2") is None
    assert "11GiB" not in gpus()
    assert next(iter(gpus())) == "k80"


@pytest.mark.parametrize(
    ("name", "usable_bytes"),
    [
        ("11GiB", 11 * GIB), ("512 MiB", 512 * MIB), ("24gb", 24 * GIB), ("8g", 8 * GIB),
        ("24GB", 24 * GIB), ("24Gb", 24 * GIB), ("16 gb", 16 * GIB), ("12G", 12 * GIB),
        ("11178MiB", 11178 * MIB), ("24576MB", 24 * GIB), ("0.5TB", 512 * GIB),
    ],
)  # fmt: skip
def test_a_size_is_a_custom_card(name: str, usable_bytes: int) -> None:
    card = gpu(name)
    assert card.is_custom
    assert card.usable_bytes == card.total_bytes == usable_bytes
    assert card.compute_capability == (8, 6)
    assert "Ampere" in card.context_source
    assert card.context_bytes < usable_bytes
    assert gpu(card.key).usable_bytes == pytest.approx(usable_bytes, rel=1e-3)


def test_a_card_says_what_its_gb_are() -> None:
    """An RTX 3090 "with 24 GB" has 24,576 MiB; nearly every report says GB (case 23)."""
    assert gpu("24GB").name == "GPU with 24GB = 24 GiB"
    assert gpu("24GiB").name == gpu("24g").name == "GPU with 24 GiB"
    assert gpu("24GB").key == gpu("24GiB").key


def test_several_cards_are_named_with_commas() -> None:
    def keys(names: str) -> list[str]:
        return [card.key for card in gpus_named(names)]

    assert keys("t4, RTX 4070,a100-40gb") == ["t4", "rtx-4070", "a100-40gb"]
    assert keys("11GB,t4,T4") == ["11gib", "t4"]
    assert keys("kaggle") == ["t4", "p100"]
    with pytest.raises(UnknownName, match="voodoo2"):
        keys("t4,voodoo2")


def test_services_offer_cards_of_the_catalogue_and_say_since_when() -> None:
    for service in services().values():
        assert [gpus()[key].key for key in service.cards] == list(service.cards)
        assert service.source.startswith("https://")
        assert service.date >= "2026"


def test_the_memory_of_a_jetson_is_the_systems_too() -> None:
    assert {card.key for card in CARDS if card.is_shared} == {
        card.key for card in CARDS if card.key.startswith("jetson")
    }


@pytest.mark.parametrize("name", ["0GiB", "-3GiB", "0.0 MiB", "-1b"])
def test_a_size_that_is_none_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        gpu(name)
    assert not isinstance(caught.value, UnknownName)


@pytest.mark.parametrize("name", ["", "11", "GiB", "nvidia"])
def test_neither_card_nor_size(name: str) -> None:
    with pytest.raises(UnknownName):
        gpu(name)


# ------------------------------------------------------------------------------------ the driver


class NVMLError(Exception):
    """Stands in for pynvml's."""


def fake_nvml(name: str, total: int, *, reserved: int = 0, free: int = 0, count: int = 1):
    """The part of pynvml that is asked, with one kind of GPU behind it."""
    calls: list[str] = []

    def handle_by_index(index: int) -> str:
        calls.append(f"index {index}")
        return "handle"

    def handle_by_uuid(uuid: str) -> str:
        calls.append(uuid)
        return "handle"

    memory = SimpleNamespace(total=total, reserved=reserved, free=free)
    return SimpleNamespace(
        calls=calls,
        NVMLError=NVMLError,
        NVML_CLOCK_MEM=2,
        nvmlMemory_v2=0x02000028,
        nvmlInit=lambda: calls.append("init"),
        nvmlShutdown=lambda: calls.append("shutdown"),
        nvmlDeviceGetCount=lambda: count,
        nvmlDeviceGetHandleByIndex=handle_by_index,
        nvmlDeviceGetHandleByUUID=handle_by_uuid,
        nvmlDeviceGetName=lambda handle: name,
        nvmlDeviceGetMemoryInfo=lambda handle, version: memory,
        nvmlDeviceGetCudaComputeCapability=lambda handle: (8, 6),
        nvmlDeviceGetNumGpuCores=lambda handle: 10496,
        nvmlDeviceGetMaxClockInfo=lambda handle, clock: 9751,
        nvmlDeviceGetMemoryBusWidth=lambda handle: 384,
    )


@pytest.fixture(autouse=True)
def _no_visible_devices_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_known_gpu_is_its_entry_and_its_free_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    total, reserved = 12288 * MIB, 378 * MIB
    nvml = fake_nvml("NVIDIA GeForce RTX 3060", total, reserved=reserved, free=9 * GIB)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert local_gpu() == (gpu("rtx-3060"), 9 * GIB)
    assert nvml.calls == ["init", "index 0", "shutdown"]


def test_cards_that_share_a_name_are_told_apart_by_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a driver older than 470 leaves the vendor out of the name."""
    nvml = fake_nvml("GeForce RTX 3060", 8192 * MIB, reserved=360 * MIB, free=7 * GIB)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert local_gpu() == (gpu("rtx-3060-8gb"), 7 * GIB)


@pytest.mark.parametrize(
    ("name", "total"),
    [("NVIDIA GeForce RTX 9090", 24 * GIB), ("NVIDIA A100-SXM4-80GB", 10 * GIB)],
)
def test_an_unknown_gpu_is_made_from_the_drivers_figures(
    monkeypatch: pytest.MonkeyPatch, name: str, total: int
) -> None:
    """A new card; and a slice of a known one (MIG), which has not the entry's memory."""
    nvml = fake_nvml(name, total, reserved=400 * MIB, free=GIB)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    found = local_gpu()
    assert found is not None
    card, free_bytes = found
    assert free_bytes == GIB
    assert (card.name, card.key, card.is_custom) == (name, "local", True)
    assert card.total_bytes == total - 400 * MIB
    assert card.usable_bytes < card.total_bytes
    assert (card.multiprocessors, card.architecture) == (82, "Ampere")
    assert card.bandwidth_gb_per_s == pytest.approx(gpu("rtx-3090").bandwidth_gb_per_s, rel=1e-3)
    assert card.context_bytes == gpu("rtx-3090").context_bytes


@pytest.mark.parametrize(
    ("visible", "asked"),
    [("1,0", "index 1"), ("GPU-8932f937", "GPU-8932f937"), ("", None), ("-1", None), ("2", None)],
)
def test_cuda_visible_devices_is_heeded(
    monkeypatch: pytest.MonkeyPatch, visible: str, asked: str | None
) -> None:
    nvml = fake_nvml("Tesla T4", 15360 * MIB, reserved=447 * MIB, count=2)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert (local_gpu() is None) == (asked is None)
    assert nvml.calls == ["init", *([asked] if asked else []), "shutdown"]


def test_no_gpu_behind_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml("", 0, count=0))
    assert local_gpu() is None


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise NVMLError("Driver Not Loaded")

    nvml = fake_nvml("", 0)
    nvml.nvmlInit = refuse
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert local_gpu() is None
    assert nvml.calls == []


def test_a_driver_that_fails_midway_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(handle: str, version: int) -> None:
        raise NVMLError("GPU is lost")

    nvml = fake_nvml("Tesla T4", 15360 * MIB)
    nvml.nvmlDeviceGetMemoryInfo = fail
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert local_gpu() is None
    assert nvml.calls[-1] == "shutdown"


def test_no_pynvml_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert local_gpu() is None


def test_the_catalogue_needs_no_torch() -> None:
    code = (
        "import sys; from memfit.cards import catalogue; catalogue.gpu('3060'); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
