# made by mllaunch: what the code runs in; the build context is the folder dependencies beside this file
FROM --platform=linux/amd64 debian:12
USER root
RUN { command -v apt-get >/dev/null 2>&1 || { echo 'mllaunch: the base image has no apt-get, which installs system packages' >&2; exit 1; }; } && \
    apt-get update && \
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends g++ 'git=1:2.39.5-0+deb12u2~x' libgl1 && \
    apt-get clean && \
    rm -rf /var/lib/apt/lists/*
RUN cd / && \
    mkdir -p /.mllaunch && \
    { python3 -m pip freeze > /.mllaunch/requirements.lock 2>/dev/null || rm -f /.mllaunch/requirements.lock; }
