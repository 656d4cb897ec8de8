# merge on CPUs: docker build --tag merging .
# docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/work" merging --help
# EXTRAS, such as --build-arg EXTRAS=text,adapters: docs/installing.md says what each brings.
# TORCH_INDEX and PIP_INDEX_URL, for whoever has mirrors: from where torch is installed, and everything else.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS built
WORKDIR /source
RUN python -m venv /opt/merging
ENV PATH=/opt/merging/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG PIP_INDEX_URL
# The large part first, and by itself: it stays in the cache when the source changes. No CUDA libraries come with it.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install "torch>=2.10" torchvision --index-url "$TORCH_INDEX"
COPY . .
ARG EXTRAS=
RUN --mount=type=cache,target=/root/.cache/pip pip install ".${EXTRAS:+[$EXTRAS]}"

FROM python:${PYTHON}-slim
COPY --from=built /opt/merging /opt/merging
# Whoever it runs as: a home to write caches to, and a name, which an id without an account has not.
RUN useradd --no-create-home --uid 1000 merging && mkdir --mode 1777 /home/merging /work
USER 1000
WORKDIR /work
ENV PATH=/opt/merging/bin:$PATH OMP_WAIT_POLICY=PASSIVE HOME=/home/merging USER=merging
ENTRYPOINT ["merge"]
CMD ["--help"]
