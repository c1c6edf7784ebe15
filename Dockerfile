# CPU only. Not built here: the machine that this was written on has no Docker.
#   docker build -t cmic . && docker run --rm -v "$PWD/outputs:/cmic/outputs" cmic
FROM python:3.11-slim-bookworm
RUN apt-get update \
    && apt-get install -y --no-install-recommends git make npm chromium \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /cmic
COPY . .
RUN make setup vendor TORCH=cpu
CMD ["make", "reproduce"]
