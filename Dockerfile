# `recloop serve` in a container; docs/serve.md says how to start it. On the CPU:
#   docker build -t recloop .
# With CUDA, the index of PyTorch's builds for your driver:
#   docker build -t recloop --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
FROM python:3.11-slim

ARG TORCH="torch==2.13.0"
ARG TORCH_INDEX="https://download.pytorch.org/whl/cpu"
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1

RUN useradd --create-home --uid 10001 recloop
WORKDIR /home/recloop
RUN pip install --index-url "$TORCH_INDEX" "$TORCH"
COPY pyproject.toml README.md LICENSE source/
COPY src source/src
RUN pip install "./source[serve,rerec,re2llm]" && rm -r source && python -m compileall -q "$(python -c 'import recloop; print(recloop.__path__[0])')"

USER recloop
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=3)"]
ENTRYPOINT ["recloop"]
CMD ["serve", "/run-folder", "--host", "0.0.0.0", "--port", "8000"]
