"""One face for thousands of viewers: sessions sent on to somebody else's distribution, by WHIP or RTMP."""
