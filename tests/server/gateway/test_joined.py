"""Metrics of several processes as one page."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from server.gateway.joined import join

ONE = """# HELP visavis_peers Connected peers
# TYPE visavis_peers gauge
visavis_peers 2.0
# HELP visavis_offers_total Offers by outcome
# TYPE visavis_offers_total counter
visavis_offers_total{outcome="answered"} 5.0
# HELP visavis_encode_ms One picture
# TYPE visavis_encode_ms histogram
visavis_encode_ms_bucket{le="1.0"} 1.0
visavis_encode_ms_bucket{le="+Inf"} 3.0
visavis_encode_ms_count 3.0
visavis_encode_ms_sum 9.5
"""
OTHER = ONE.replace(" 2.0", " 3.0").replace(" 5.0", " 7.0")


def test_every_series_says_whose_it_is_and_families_stay_together():
    text = join([("w1", ONE), ("w2", OTHER)])
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert set(families) == {"visavis_peers", "visavis_offers", "visavis_encode_ms"}
    peers = {sample.labels["worker"]: sample.value for sample in families["visavis_peers"].samples}
    assert peers == {"w1": 2.0, "w2": 3.0}
    offers = [(sample.labels, sample.value) for sample in families["visavis_offers"].samples]
    assert ({"worker": "w2", "outcome": "answered"}, 7.0) in offers
    assert len(families["visavis_encode_ms"].samples) == 8
    assert text.count("# TYPE visavis_peers gauge") == 1
