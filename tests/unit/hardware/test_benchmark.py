"""Measured facts: taken in a process of their own, kept under their conditions, told in plain words."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import needs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware import Profile, benchmark
from hardware.benchmark import BenchmarkError, Measured, conditions, measure, plan, table, verdict
from hardware.schema import Accelerator, Cluster, Cpu, Memory, Thermal

RATES = {
    "conv_fp32": 20.0,
    "conv_qdq_u8s8": 60.0,
    "matmul_fp32": 18.0,
    "matmulinteger_u8s8": 70.0,
    "matmulinteger_u8u8": 7.0,
    "matmulnbits_4": 6.0,
}
PROFILE = Profile(
    cpu=Cpu(online=(0, 1, 2, 3), usable=(0, 1, 2, 3), governor="ondemand", model="Cortex-A76"),
    memory=Memory(budget_bytes=3_100_000_000),
    kernel_release="6.6.20",
)


def results(rates: dict[str, float], **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return results with these rates at four threads, a fourth of them at one."""
    kernels = {name: {"macs": 1, "gmac_s_1": rate / 4, "gmac_s": rate} for name, rate in rates.items()}
    memory = {"read_gb_s_1": 5.0, "read_gb_s": 10.0}
    return {"threads": 4, "memory": memory, "kernels": kernels, "disk": {"write_mb_s": 20.0, "read_mb_s": 40.0}, **more}


def test_it_measures_everything(tmp_path: Path) -> None:
    """The real process, as `measure` starts it: each figure is there, and nothing of it is left on the disk."""
    needs.module("onnxruntime")
    measured = measure(PROFILE, tmp_path, seconds=60.0)  # for a busy machine; each kernel has a slice of a second
    assert not measured.cached
    assert set(measured.results["kernels"]) == {
        "conv_fp32",
        "conv_qdq_u8s8",
        "matmul_fp32",
        "matmulinteger_u8s8",
        "matmulinteger_u8u8",
        "matmulnbits_4",
        "qlinearmatmul_u8s8",
        "qlinearmatmul_u8u8",
    }
    for rate in measured.results["kernels"].values():
        assert rate["gmac_s_1"] > 0
        assert rate["gmac_s"] > 0
    assert measured.results["unknown"] == {}
    assert 0.1 < measured.results["memory"]["read_gb_s_1"] < 1000
    assert measured.results["disk"]["read_mb_s"] > 0
    assert "CPUExecutionProvider" in measured.results["providers"]
    assert [path.name for path in tmp_path.iterdir()] == ["benchmark.json"]
    assert measure(PROFILE, tmp_path, python="/nonexistent").cached
    assert len(verdict(PROFILE, measured)) >= 5


def test_every_kernel_is_documented() -> None:
    """docs/profile.md names each kernel whose rate is given."""
    needs.module("numpy")
    from hardware.kernels import kernels  # noqa: PLC0415 - needs numpy

    text = (Path(__file__).parents[3] / "docs" / "profile.md").read_text()
    assert [kernel.name for kernel in kernels() if f"`{kernel.name}`" not in text] == []


def test_asking_loads_neither_numpy_nor_onnxruntime() -> None:
    """The daemon stays light: both live in the measuring process only."""
    code = "import sys, hardware.benchmark; print([m for m in ('numpy', 'onnxruntime') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_models_are_what_they_claim(tmp_path: Path) -> None:
    """Each model is valid ONNX, and after onnxruntime's rewriting the operator that is timed does the work."""
    needs.module("onnx")
    needs.module("onnxruntime")
    import onnx  # noqa: PLC0415 - not installed everywhere
    import onnxruntime  # noqa: PLC0415 - as above

    from hardware.kernels import kernels  # noqa: PLC0415 - needs numpy

    for kernel in kernels():
        data, inputs = kernel.build()
        onnx.checker.check_model(data)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        (output,) = session.run(None, inputs)
        assert output.std() > 0, kernel.name
        operators = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
        assert kernel.expected in operators, (kernel.name, operators)
        assert not {"DequantizeLinear", "QuantizeLinear"} & set(operators), (kernel.name, operators)


def test_kept_under_its_conditions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept figures are given again until a condition changes, or somebody asks for new ones."""
    runs: list[Profile] = []

    def run(profile: Profile, *_: object) -> dict[str, Any]:
        runs.append(profile)
        return results(RATES)

    monkeypatch.setattr(benchmark, "_run", run)
    assert [measure(PROFILE, tmp_path).cached for _ in range(2)] == [False, True]
    changed = (
        replace(PROFILE, kernel_release="6.12.0"),
        replace(PROFILE, cpu=replace(PROFILE.cpu, governor="performance")),
        replace(PROFILE, cpu=replace(PROFILE.cpu, usable=(0, 1))),
    )
    for profile in changed:
        assert [measure(profile, tmp_path).cached for _ in range(2)] == [False, True]
    monkeypatch.setattr(benchmark, "_onnxruntime_version", lambda: "9.9")
    assert not measure(changed[-1], tmp_path).cached
    assert not measure(changed[-1], tmp_path, again=True).cached
    assert len(runs) == 6


@given(st.binary(max_size=200) | st.sampled_from([b"{}", b"[]", b'{"conditions": 1, "results": {}}', b"[" * 100_000]))
def test_a_broken_cache_is_measured_again(data: bytes) -> None:
    """A file that was cut, or isn't ours, counts as none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "benchmark.json"
        path.write_bytes(data)
        assert benchmark._read(path) is None


@pytest.mark.parametrize(
    ("python", "message"), [("/nonexistent/python", "could not be started"), ("/bin/false", "failed (status 1)")]
)
def test_failures_say_what_to_do(tmp_path: Path, python: str, message: str) -> None:
    """No figures are made up when the process fails, and none are kept."""
    with pytest.raises(BenchmarkError, match=message.replace("(", r"\(").replace(")", r"\)")):
        measure(PROFILE, tmp_path, python=python)
    assert list(tmp_path.iterdir()) == []


def test_threads_obey_big_cores_affinity_and_quota() -> None:
    """Big cores that we may use, as far as the quota goes; never less than one thread."""
    clusters = (
        Cluster(name="Cortex-A55", cpus=(0, 1, 2, 3), big=False),
        Cluster(name="Cortex-A76", cpus=(4, 5, 6, 7), big=True),
    )
    cpu = Cpu(online=tuple(range(8)), usable=tuple(range(8)), clusters=clusters)
    assert plan(Profile(cpu=cpu)) == (4, (4, 5, 6, 7))
    assert plan(Profile(cpu=replace(cpu, usable=(0, 1, 5)))) == (1, (5,))
    assert plan(Profile(cpu=replace(cpu, usable=(0, 1)))) == (2, (0, 1))
    assert plan(Profile(cpu=replace(cpu, quota_cpus=2.5))) == (2, (4, 5, 6, 7))
    assert plan(Profile(cpu=replace(cpu, quota_cpus=0.2)))[0] == 1
    assert plan(Profile()) == (1, None)
    assert conditions(Profile(cpu=cpu))["threads"] == 4


def test_verdict_in_plain_words() -> None:
    """A Raspberry-Pi-like machine: real time for MobileNet, free memory, slow card, formats, accelerators."""
    npu = Accelerator(
        "npu", "Hailo-8", "hailo", "/dev/hailo0", usable=False, why="no onnxruntime provider exists for it"
    )
    profile = replace(PROFILE, accelerators=(npu,), thermal=Thermal(under_voltage=True))
    heat = {"throttled_after_seconds": 6.2, "max_celsius": 84.0}
    text = "\n".join(verdict(profile, Measured({}, results(RATES, thermal=heat))))
    assert "MobileNet's size fluently" in text
    assert "8.3 ms to 42 ms" in text
    assert "3.1 GB are free for models" in text
    assert "at most 6 tokens a second" in text
    assert "8 bits run 3.0 times as fast" in text
    assert "signed weights are 10.0 times as fast as with unsigned" in text
    assert "100 MB takes 2 s" in text
    assert "Hailo-8: not usable" in text
    assert "slowed down 6 s into" in text
    assert "too weak" in text


def test_verdict_claims_nothing_it_has_no_figures_for() -> None:
    """Without figures only what the profile knows is said."""
    assert verdict(Profile(), Measured({}, {})) == []
    assert verdict(PROFILE, Measured({}, {})) == ["3.1 GB are free for models."]
    assert table(Measured({}, {}))


def test_small_memory_serves_no_language_model() -> None:
    """A billion parameters don't fit into half a gigabyte."""
    profile = replace(PROFILE, memory=Memory(budget_bytes=500_000_000))
    assert any("does not fit" in sentence for sentence in verdict(profile, Measured({}, results(RATES))))


def test_table_has_a_line_for_each_figure() -> None:
    """Names, both numbers of threads, units."""
    lines = table(Measured({}, results(RATES, thermal={"before_celsius": 50.0, "after_celsius": 60.0})))
    assert any(line.startswith("conv_fp32") and "5.0" in line and "20.0" in line and "GMAC/s" in line for line in lines)
    assert len(lines) == 1 + 1 + len(RATES) + 2 + 1


def test_time_that_runs_out_is_said(tmp_path: Path) -> None:
    """A machine too slow for all kernels leaves some out, with the reason."""
    needs.module("onnxruntime")
    command = [sys.executable, "-m", "hardware.benchmark", "--json", "--threads", "1", "--seconds", "0.01"]
    done = subprocess.run([*command, "--folder", str(tmp_path)], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["kernels"] == {}
    assert found["unknown"]["kernels.conv_fp32"] == "the time ran out"
