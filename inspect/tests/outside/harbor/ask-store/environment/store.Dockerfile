FROM python:3.12
WORKDIR /store
COPY price.txt ./
