#!/bin/bash
python3 -c "import urllib.request; print(urllib.request.urlopen('http://store:8000/price.txt').read().decode(), end='')" > /app/answer.txt
