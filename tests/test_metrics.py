"""Metrics: all documented in one place, apart per engine, and as many series on the last day as on the first."""

from __future__ import annotations

import re

from prometheus_client import CollectorRegistry, generate_latest

from engine import metrics
from engine.metrics import EngineMetrics


def _families(engine: EngineMetrics) -> set[str]:
    return {family.name for family in engine.registry.collect()}


def test_the_docstring_names_every_metric_and_no_other():
    documented = set(re.findall(r"\| ``(visavis_\w+?)(?:_total)?(?:\{\w+\})?`` \|", metrics.__doc__))
    assert documented == _families(EngineMetrics())


def test_every_documented_attribute_is_there():
    engine = EngineMetrics()
    for name in ("sessions", "render_queue"):
        getattr(engine, name).inc()
    for name in ("render_ms", "render_wait_ms", "frame_late_ms", "first_sound_ms"):
        getattr(engine, name).observe(3)
    for name in ("idle", "speaking", "held", "dropped"):
        getattr(engine, f"frames_{name}").inc(2)
    engine.utterances.inc()
    engine.interrupts.inc()
    engine.failures("render").inc()
    text = generate_latest(engine.registry).decode()
    assert 'visavis_frames_total{kind="held"} 2.0' in text
    assert 'visavis_failures_total{stage="voice"} 0.0' in text
    assert 'visavis_render_ms_bucket{le="4.0"} 1.0' in text


def test_two_engines_count_apart_unless_they_share_a_registry():
    one, other = EngineMetrics(), EngineMetrics()
    one.utterances.inc()
    assert other.registry.get_sample_value("visavis_utterances_total") == 0
    registry = CollectorRegistry()
    assert EngineMetrics(registry).registry is registry
