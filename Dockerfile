# CPU:  docker build -t visavis .
# CUDA: docker build -t visavis:cuda --build-arg ACCELERATOR=cuda .      (run with --gpus all)
# Many machines: add --build-arg CLUSTER=ray; see server/DEPLOY.md.
# Run:  docker run --rm --network host -e VISAVIS_HOST=127.0.0.1 visavis
#       WebRTC media goes over UDP ports chosen at run time, so the host's network is the simplest that works.
#       Without VISAVIS_HOST it listens on every interface and needs an API key: python -m server keys create NAME.
#       Put a TLS proxy in front of it first.
FROM python:3.11-slim-bookworm

# cpu: the built-in model runs on OpenVINO and needs no torch, so the image leaves it out.
# cuda: adds torch, whose own build brings the CUDA libraries; for models that run on it (the built-in one does not).
ARG ACCELERATOR=cpu

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /opt/visavis

COPY requirements.txt .
RUN if [ "$ACCELERATOR" = "cuda" ]; then cp requirements.txt wanted.txt; \
    else grep -v '^torch==' requirements.txt > wanted.txt; fi \
    && pip install -r wanted.txt && rm wanted.txt

# The face models of `avatar create`; alone, because the wheel names packages that clash with ours.
COPY engine/avatar/requirements.txt faces.txt
RUN pip install --no-deps -r faces.txt && rm faces.txt

# The network that hears whether somebody speaks; alone, because its wheel names torch.
COPY engine/conversation/requirements.txt hearing.txt
RUN pip install --no-deps -r hearing.txt && rm hearing.txt

# ray: joins other machines (server/DEPLOY.md); it adds 500 MB.
ARG CLUSTER=none
COPY server/cluster/requirements.txt cluster.txt
RUN if [ "$CLUSTER" = "ray" ]; then pip install -r cluster.txt; fi && rm cluster.txt
ENV RAY_USAGE_STATS_ENABLED=0

COPY engine engine
COPY server server
COPY static static
COPY avatars avatars

# Volumes take over to whom these belong.
RUN useradd --system --create-home --uid 10001 visavis && install -d -o visavis /data /cache
USER visavis

ENV VISAVIS_HOST=0.0.0.0 VISAVIS_PORT=8080
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['VISAVIS_PORT'] + '/healthz', timeout=2)"]
CMD ["python", "-m", "server"]
