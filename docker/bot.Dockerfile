# A bot: Slack or Discord, with no library of the model in it. Build from the top of the checkout:
#   docker build -f docker/bot.Dockerfile -t henji-bot .
FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY core ./core
COPY storage ./storage
COPY bots ./bots
RUN python -m venv /opt/henji \
    && /opt/henji/bin/pip install --no-cache-dir --constraint constraints.txt '.[slack,discord]'

FROM python:3.12-slim-bookworm
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin henji
COPY --from=build /opt/henji /opt/henji
ENV PATH=/opt/henji/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HENJI_LOG_FORMAT=json \
    HENJI_METRICS_HOST=0.0.0.0 \
    HENJI_METRICS_PORT=9464
USER 10001
EXPOSE 9464
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s \
    CMD ["python", "-m", "core.observe.healthcheck"]
ENTRYPOINT ["henji"]
CMD ["slack"]
