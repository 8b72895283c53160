"""Visavis engine: makes a talking head's pictures and sound; knows neither HTTP nor WebRTC."""

import sys

# OpenVINO reports its first import to a service of its maker, from a forked copy of this process; nothing here reports
# anything to anybody. Told that its reporter is not installed, it does without.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
