# merge on CPUs: docker build --tag merging . && docker run --rm --volume "$PWD:/work" merging --help
# EXTRAS, such as --build-arg EXTRAS=text,adapters: docs/installing.md says what each brings.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS built
WORKDIR /source
RUN python -m venv /opt/merging
ENV PATH=/opt/merging/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1
# The large part first, and by itself: it stays in the cache when the source changes. No CUDA libraries come with it.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install "torch>=2.10" torchvision --index-url https://download.pytorch.org/whl/cpu
COPY . .
ARG EXTRAS=
RUN --mount=type=cache,target=/root/.cache/pip pip install ".${EXTRAS:+[$EXTRAS]}"

FROM python:${PYTHON}-slim
COPY --from=built /opt/merging /opt/merging
RUN useradd --create-home --uid 1000 merging && mkdir /work && chown merging /work
USER 1000
WORKDIR /work
ENV PATH=/opt/merging/bin:$PATH OMP_WAIT_POLICY=PASSIVE
ENTRYPOINT ["merge"]
CMD ["--help"]
