# An image with nothing but a virtual environment, which runs as nobody in particular.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
COPY . /src
RUN python -m venv /opt/socksd \
    && /opt/socksd/bin/pip install --no-cache-dir --disable-pip-version-check '/src[metrics,tui]' \
    && /opt/socksd/bin/pip uninstall --yes --disable-pip-version-check pip \
    # What Twisted knows of its plugins: later nobody may write it, and each start would say so.
    && /opt/socksd/bin/twistd --help >/dev/null

FROM python:${PYTHON}-slim
COPY --from=build /opt/socksd /opt/socksd
COPY etc/docker.toml /etc/socksd/socksd.toml
RUN groupadd --gid 10800 socksd \
    && useradd --uid 10800 --gid 10800 --no-create-home --home-dir /nonexistent socksd \
    && install -d -o socksd -g socksd -m 750 /run/socksd /var/lib/socksd
ENV PATH=/opt/socksd/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER 10800:10800
WORKDIR /
EXPOSE 1080/tcp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=10s CMD ["socksd", "status"]
ENTRYPOINT ["socksd", "run"]
CMD ["--config", "/etc/socksd/socksd.toml"]
