# made by mllaunch: what the code runs in; the build context is the folder dependencies beside this file
FROM --platform=linux/amd64 debian:12
USER root
RUN cd / && \
    mkdir -p /.mllaunch && \
    { python3 -m pip freeze > /.mllaunch/requirements.lock 2>/dev/null || rm -f /.mllaunch/requirements.lock; }
