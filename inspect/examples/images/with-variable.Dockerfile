FROM debian:13
ENV ANSWER=42
CMD ["/bin/sh"]
