FROM debian:13
RUN useradd --create-home --shell /bin/bash agent
WORKDIR /home/agent
