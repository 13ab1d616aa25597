FROM debian:13
RUN echo about to fail; exit 3
