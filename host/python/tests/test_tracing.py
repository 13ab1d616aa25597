"""Spans of OpenTelemetry."""

from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sandbox_host import NotFoundError, Provider
from sandbox_host.sync import Provider as SyncProvider


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


def one(exporter: InMemorySpanExporter, name: str) -> ReadableSpan:
    (span,) = [span for span in exporter.get_finished_spans() if span.name == name]
    return span


@pytest.mark.asyncio
async def test_calls_are_spans_below_the_current_one(exporter: InMemorySpanExporter, memory: Provider) -> None:
    exporter.clear()
    with trace.get_tracer("tests").start_as_current_span("outer") as outer:
        async with memory.create() as sandbox:
            await sandbox.run(["echo", "x"])
            async with sandbox.start(["echo", "x"]) as process:
                await process.stdout.read_all()
            with pytest.raises(NotFoundError):
                await memory.sandbox("unknown").info()
    for name in ("sandbox.create", "sandbox.run", "process.start", "sandbox.info", "sandbox.terminate"):
        span = one(exporter, name)
        assert span.parent is not None and span.parent.span_id == outer.get_span_context().span_id
        assert span.attributes is not None and span.attributes["sandbox.method"] == name
    assert (one(exporter, "sandbox.create").attributes or {})["sandbox.id"] == sandbox.id
    assert (one(exporter, "sandbox.run").attributes or {})["sandbox.id"] == sandbox.id
    assert (one(exporter, "process.start").attributes or {})["sandbox.exec"] == process.exec_id
    failed = one(exporter, "sandbox.info")
    assert (failed.attributes or {})["error.type"] == "not-found" and not failed.status.is_ok
    assert not [span for span in exporter.get_finished_spans() if span.name == "process.read"]


def test_synchronous_calls_are_spans_too(exporter: InMemorySpanExporter) -> None:
    exporter.clear()
    with SyncProvider.open("memory") as provider, provider.create() as sandbox:
        sandbox.run(["echo", "x"])
    assert (one(exporter, "sandbox.run").attributes or {})["sandbox.id"] == sandbox.id


def test_nothing_is_needed_without_opentelemetry() -> None:
    code = """
import sys
sys.modules["opentelemetry"] = None
from sandbox_host.sync import Provider
with Provider.open("memory") as provider, provider.create() as sandbox:
    print(sandbox.run(["echo", "x"]).text, end="")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stdout) == (0, "x\n"), ran.stderr
