FROM debian:13
RUN mkdir /srv/data
COPY greeting.txt /srv/data/greeting.txt
WORKDIR /srv/data
